"""Workers that are killed at random moments."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path


def kill_workers(
    pids: Path, drawn: random.Random, *, every_s: float = 1.5, most: int | None = None
) -> Callable[[], int]:
    """Kill one of the workers with a file in `pids` now and then, at most so many; the result ends
    that and counts the kills."""
    ended = threading.Event()
    killed: list[int] = []

    def kill() -> None:
        while len(killed) != most and not ended.wait(drawn.uniform(0.5, 1.5) * every_s):
            if alive := sorted(int(path.name) for path in pids.iterdir()):
                pid = drawn.choice(alive)
                (pids / str(pid)).unlink()
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()

    def end() -> int:
        ended.set()
        thread.join()
        return len(killed)

    return end
