"""Time that processes took of the processors: waiting for other tests does not add to it."""

from __future__ import annotations

import resource
from collections.abc import Callable


def of_children(work: Callable[[], object]) -> float:
    """Seconds that the processes which `work` starts, and waits for, take."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
