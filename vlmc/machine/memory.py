"""Memory of this machine, and peak memory of this process."""

from __future__ import annotations

import os
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5), clear_refs


class MemoryPeak:
    """Peak resident memory of this process since the object was created; Linux only."""

    def __init__(self) -> None:
        try:
            _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
            self._known = True
        except OSError:
            self._known = False

    def read(self) -> int | None:
        """Bytes, including mapped files, or None if the system does not report it."""
        if not self._known:
            return None
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return None


def available_bytes() -> int:
    """Memory that can be taken without swapping, as Linux estimates it."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass  # another system
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
