"""Builds in forked processes that may be killed: `python -m tests.builder.killing RECIPE OUTPUT`.

It builds once undisturbed, which imports everything, and then for each line that it reads: `CACHE
OUTPUT SECONDS`, killed after so many seconds, or not at all if they are negative. It answers with
the exit status and the seconds that the build took.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

from vlmc.builder.build import build
from vlmc.builder.store.step_cache import StepCache
from vlmc.recipe.read import read_recipe


def run_build(recipe: Path, output: Path, cache: Path) -> None:
    """Build in this process."""
    build(read_recipe(recipe, ()), output, cache=StepCache(cache))


def build_and_kill(recipe: Path, output: Path, cache: Path, seconds: float) -> int:
    """Build in a fork; returns its exit status, the signal's number negated."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            run_build(recipe, output, cache)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if seconds >= 0:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(recipe: Path, output: Path) -> None:
    """Serve until the input ends."""
    torch.set_num_threads(1)
    run_build(recipe, output, output.with_name("cache"))
    print("ready", flush=True)
    for line in sys.stdin:
        cache, target, seconds = line.split()
        start = time.perf_counter()
        status = build_and_kill(recipe, Path(target), Path(cache), float(seconds))
        print(status, time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
