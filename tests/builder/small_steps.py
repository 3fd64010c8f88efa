"""Steps of a few bytes, for tests of what keeps them.

`python -m tests.builder.small_steps CACHE HOW` makes one in a process of its own.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from vlmc.builder.executor import place, run_step
from vlmc.builder.steps.step import Step
from vlmc.builder.store.step_cache import StepCache
from vlmc.cli.views.plain_view import plain_line
from vlmc.progress.channel import receiving

FILES = {"a.bin": b"a" * 1000, "below/b.txt": b"b"}


def write_small(folder: Path) -> None:
    """Write `FILES`."""
    for name, data in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


def small_step(name: str = "vision.weights", **changes: object) -> Step:
    """A step that writes `FILES`, with fields other than the usual."""
    values: dict[str, object] = {
        "version": 1,
        "inputs": {"model.safetensors": "0" * 64},
        "parameters": {"dtype": "float32", "layers": [1, 2]},
        "tools": {"torch": "2.0"},
        "work": write_small,
    }
    return Step(name=name, **(values | changes))  # type: ignore[arg-type]


def kill_at_operation(number: int) -> None:
    """End this process with SIGKILL at that file operation from now on, before it is done."""
    seen = 0

    def hook(event: str, _: object) -> None:
        nonlocal seen
        if event == "open" or event.startswith(("os.", "shutil.", "fcntl.")):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def make_and_place(cache: StepCache, target: Path, *, force: bool = False) -> None:
    """Make the small step and copy its files."""
    place(run_step(small_step(), cache, force=force), target, cache)


def _kill_everywhere(folder: Path) -> None:
    """Kill a build at its first file operation, its second, and so on until one ends by itself."""
    number = status = 1
    while status:
        child = os.fork()
        if child == 0:
            kill_at_operation(number)
            make_and_place(StepCache(folder / str(number)), folder / f"{number}-placed")
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        number += 1


def _make_slowly(folder: Path) -> None:
    def work(below: Path) -> None:
        print("working", flush=True)
        time.sleep(600 if "hang" in sys.argv else 0.5)
        write_small(below)

    with receiving(lambda event: print(plain_line(event), flush=True)):
        run_step(small_step(work=work), StepCache(folder))


if __name__ == "__main__":
    where = Path(sys.argv[1])
    if sys.argv[2] == "everywhere":
        _kill_everywhere(where)
    else:
        _make_slowly(where)
