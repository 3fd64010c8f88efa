"""The command line on something hostile, in a process of its own with little memory to spare."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

# Enough to answer a question about a small picture, and far less than any attack asks for.
SPARE_BYTES = 400 << 20
SECONDS = 60
# Forked from one process that has imported everything: importing takes longer than an attack.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.attacks.loaded"])


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended. `exit_code` is negative where a signal ended it."""

    exit_code: int
    stdout: str
    stderr: str

    def refused(self, exit_code: int, *said: str) -> None:
        """Check that it ended with this code and one message, which holds all of `said`."""
        assert self.exit_code == exit_code, self
        assert self.stderr.startswith("error: "), self.stderr
        assert self.stderr.count("\n") == 1, self.stderr
        assert len(self.stderr) < 1500
        assert self.stdout == ""
        for part in said:
            assert part in self.stderr, self.stderr


def attempt(folder: Path, *arguments: object, spare_bytes: int = SPARE_BYTES) -> Ended:
    """Run `vlmc ARGUMENTS` in `folder`, with so much more memory than it has after importing.

    Raises:
        AssertionError: it does not end.
    """
    words = [str(argument) for argument in arguments]
    process = _FORKS.Process(target=_run, args=(words, folder, spare_bytes))
    process.start()
    process.join(SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"vlmc {' '.join(words)} does not end")
    stdout, stderr = ((folder / name).read_text(errors="replace") for name in ("stdout", "stderr"))
    return Ended(process.exitcode, stdout, stderr)


def _run(words: list[str], folder: Path, spare_bytes: int) -> NoReturn:
    from vlmc.cli.main import main

    os.chdir(folder)
    for stream, name in ((sys.stdout, "stdout"), (sys.stderr, "stderr")):
        with Path(name).open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + spare_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    main(words, prog_name="vlmc")
    raise AssertionError("click ends the process")
