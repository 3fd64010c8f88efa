"""Run the quantizing process on a job, and say why where it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from vlmc.compile.progress import tell
from vlmc.errors import BuildError

_ERRORS = "worker.log"
_TAIL_LINES = 12
# Nothing is downloaded, and nobody watches the bars. Freed memory is kept for the next sample:
# giving it back to the system and taking it again is half of the time otherwise.
_SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 31),
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}


def run_job(folder: Path) -> None:
    """Quantize the job in `folder`; its progress is told.

    Raises:
        BuildError: the process failed; with the end of what it said.
    """
    command = [sys.executable, "-m", "vlmc.compile.quantize.worker", str(folder)]
    with (folder / _ERRORS).open("w+", encoding="utf-8") as errors:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | _SETTINGS
        ) as process:
            try:
                for line in process.stdout or ():
                    tell(line.rstrip())
            except BaseException:
                process.kill()
                raise
        if process.returncode == 0:
            return
        errors.seek(0)
        tail = "".join(errors.readlines()[-_TAIL_LINES:]).rstrip()
    if process.returncode < 0:
        tail += (
            f"\nit was ended by signal {-process.returncode}; the memory may have been too small"
        )
    raise BuildError(f"quantizing the language model failed:\n{tail}")
