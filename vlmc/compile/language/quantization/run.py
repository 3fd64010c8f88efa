"""Run the quantization process, and report its errors."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from vlmc.errors import BuildError
from vlmc.machine.child_process import module_command, module_environment
from vlmc.progress.channel import report
from vlmc.progress.pipe import from_line

_ERRORS = "worker.log"
_TAIL_LINES = 12
# Disable downloads and progress bars. The malloc settings keep freed memory for the next sample;
# returning it to the system doubles the running time.
_SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 31),
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}
_WORKER = "vlmc.compile.language.quantization.worker"


def run_job(folder: Path) -> None:
    """Quantize the job in `folder`; its progress is reported.

    Raises:
        BuildError: the process failed; contains the end of its output.
    """
    # A separate pipe, because libraries print to stdout.
    read, write = os.pipe()
    worker = module_command(_WORKER, str(folder), str(write))
    with os.fdopen(read) as lines, (folder / _ERRORS).open("w+", encoding="utf-8") as errors:
        try:
            process = subprocess.Popen(
                worker,
                stdout=errors,
                stderr=errors,
                pass_fds=(write,),
                env=module_environment(_SETTINGS),
            )
        finally:
            os.close(write)
        with process:
            try:
                for line in lines:
                    report(from_line(line))
            except BaseException:
                process.kill()
                raise
        if process.returncode == 0:
            return
        errors.seek(0)
        tail = "".join(errors.readlines()[-_TAIL_LINES:]).rstrip()
    if process.returncode < 0:
        tail += f"\nit was terminated by signal {-process.returncode}; memory may be too small"
    raise BuildError(f"quantizing the language model failed:\n{tail}")
