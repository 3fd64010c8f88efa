"""Put each fault into a copy of the tree and run its tests: `python -m tests.mutants [NAME…]`.

Names are rooms of vlmc, or parts of faults' names; without any, all faults are tried. The exit
code is 1 if a fault survives, cannot be put in, or breaks its tests before they can fail.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

# What most tests import beside vlmc: once here, and not once for each fault.
import cv2  # noqa: F401
import hypothesis  # noqa: F401
import onnx  # noqa: F401
import onnxruntime  # noqa: F401
import pytest
import safetensors.torch  # noqa: F401
import torch

from tests.mutants.faults import ROOT, Fault, read_faults

LIMIT_SECONDS = 300
"""For the tests of one fault; one that lets them hang is not caught by what they say."""
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", "artifacts")
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:anyio")
# Artifacts that tests share are made without the fault, unless it is in what makes them.
MAKE_ARTIFACTS = {"artifact", "builder", "checkpoint", "compile", "recipe"}


@dataclass(frozen=True, slots=True)
class Run:
    """Tests that run in a tree, in a process of their own."""

    tree: Path
    process: BaseProcess
    begin: float

    @classmethod
    def start(cls, tree: Path, arguments: Sequence[str], *, clean: bool = False) -> Run:
        """Start pytest; `clean` says that the tree is without a fault, so that what is compiled
        of it may be kept."""
        process = multiprocessing.get_context("fork").Process(
            target=_run_tests, args=(tree, arguments, clean)
        )
        process.start()
        return cls(tree, process, time.monotonic())

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.begin

    def is_over(self) -> bool:
        """Whether the process has ended; one that is out of time is killed."""
        if self.process.exitcode is None and self.seconds > LIMIT_SECONDS and self.process.pid:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.join()
        return self.process.exitcode is not None

    @property
    def output(self) -> str:
        """What pytest printed."""
        return _output(self.tree).read_text(encoding="utf-8", errors="replace")


def _output(tree: Path) -> Path:
    return tree.with_name(f"{tree.name}.txt")


def _run_tests(tree: Path, arguments: Sequence[str], clean: bool) -> None:
    os.setsid()  # so that processes of the tests end with them
    os.chdir(tree)
    os.environ["PYTHONPATH"] = str(tree)
    if not clean:
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        sys.dont_write_bytecode = True
    sys.path[:] = [str(tree), *(path for path in sys.path if path not in ("", str(ROOT)))]
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "vlmc")]:
        del sys.modules[name]
    with (
        _output(tree).open("w", encoding="utf-8", buffering=1) as file,
        redirect_stdout(file),
        redirect_stderr(file),
    ):
        code = pytest.main([*OPTIONS, *arguments])
        import vlmc

        if not Path(vlmc.__file__).is_relative_to(tree):
            print(f"{vlmc.__file__} was tested, and not the copy")
            code = pytest.ExitCode.INTERNAL_ERROR
    os._exit(code)  # threads of a faulty runtime may never end


def _verdict(run: Run) -> str:
    """What became of a fault, `caught` if a test failed."""
    match run.process.exitcode:
        case pytest.ExitCode.TESTS_FAILED:
            return "caught"
        case pytest.ExitCode.OK:
            return "SURVIVED"
        case code if code is not None and code < 0:
            return f"its tests were killed, after {LIMIT_SECONDS} s or by a crash"
    return f"BROKEN, its tests cannot run:\n{run.output}"


def _chosen(faults: Sequence[Fault], names: Sequence[str]) -> list[Fault]:
    rooms = {fault.room for fault in faults}
    return [
        fault
        for fault in faults
        if not names
        or any(fault.room == name if name in rooms else name in fault.name for name in names)
    ]


def try_all(faults: Sequence[Fault], trees: Sequence[Path], artifacts: Path) -> list[str]:
    """Try the faults, one at a time in each tree; returns the names of those not caught."""
    waiting, free = list(faults), list(trees)
    running: dict[Fault, tuple[Run, Callable[[], None]]] = {}
    wrong, done = [], 0
    while waiting or running:
        while waiting and free:
            fault = waiting.pop(0)
            tree = free.pop()
            remove = fault.apply(tree)
            shared = () if fault.room in MAKE_ARTIFACTS else (f"--artifacts={artifacts}",)
            running[fault] = Run.start(tree, [*fault.tests, *shared]), remove
        wait([run.process.sentinel for run, _ in running.values()], timeout=1)
        for fault, (run, remove) in list(running.items()):
            if not run.is_over():
                continue
            del running[fault]
            remove()
            free.append(run.tree)
            verdict, done = _verdict(run), done + 1
            if verdict != "caught":
                wrong.append(fault.name)
            print(
                f"{done}/{len(faults)} {run.seconds:5.1f} s  {fault.room}: {fault.name}: {verdict}",
                flush=True,
            )
    return wrong


def main(names: Sequence[str]) -> int:
    """Try the faults of these names, print a line for each, and return the exit code."""
    faults = _chosen(read_faults(), names)
    # Unlike `is_available`, this does not start CUDA, which would not survive a fork.
    if not torch.cuda.device_count():
        for fault in [fault for fault in faults if fault.gpu]:
            said = f"not tried, since it needs a GPU: {fault.name} ({', '.join(fault.tests)})"
            print(said, flush=True)  # before a fork, which would print it again
        faults = [fault for fault in faults if not fault.gpu]
    if not faults:
        print("no fault has such a name")
        return 1
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vlmc-mutants-") as name:
        folder = Path(name)
        tree, artifacts = folder / "tree", folder / "artifacts"
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        artifacts.mkdir()
        problems = [
            f"{fault.name}: {fault.problem(tree)}" for fault in faults if fault.problem(tree)
        ]
        if problems:
            print("\n".join(problems))
            return 1
        # A test that fails without any fault would seem to notice every one.
        tests = sorted({test for fault in faults for test in fault.tests})
        run = Run.start(tree, [*tests, f"--artifacts={artifacts}"], clean=True)
        run.process.join()
        if run.process.exitcode != pytest.ExitCode.OK:
            print(f"the tests fail without any fault:\n{run.output}")
            return 1
        print(f"without a fault the tests pass, in {run.seconds:.0f} s", flush=True)
        cores = min(len(os.sched_getaffinity(0)), len(faults))
        others = [folder / f"tree-{number}" for number in range(1, cores)]
        for other in others:
            shutil.copytree(tree, other)
        wrong = try_all(faults, [tree, *others], artifacts)
    minutes = (time.monotonic() - begin) / 60
    print(f"{len(faults) - len(wrong)} of {len(faults)} faults caught in {minutes:.1f} minutes")
    for name in wrong:
        print(f"not caught: {name}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
