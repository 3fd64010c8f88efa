"""The list of faults: TOML files beside this module, one for each room of vlmc.

A table's name says what would go wrong for the user. It holds the `file`, the `old` text, which
occurs in it exactly once, the `new` text, and the `tests` that have to fail: files or node ids,
few and quick. `gpu = true` marks a fault that only a test on a GPU notices.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]


@dataclass(frozen=True, slots=True)
class Fault:
    """One change of one file, and the tests that notice it."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    gpu: bool = False

    @property
    def room(self) -> str:
        """The folder of vlmc that the file is in."""
        return Path(self.file).parts[1]

    def problem(self, root: Path) -> str | None:
        """Why the fault cannot be put into the tree at `root`, or None."""
        text = (root / self.file).read_text(encoding="utf-8") if (root / self.file).exists() else ""
        found = text.count(self.old)
        if found != 1:
            return f"its old text occurs {found} times in {self.file}"
        if self.old == self.new:
            return "it changes nothing"
        return None

    def apply(self, root: Path) -> Callable[[], None]:
        """Put the fault into the tree at `root`; returns what takes it out again."""
        path = root / self.file
        good, status = path.read_text(encoding="utf-8"), path.stat()

        def remove() -> None:
            path.write_text(good, encoding="utf-8")
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

        path.write_text(good.replace(self.old, self.new), encoding="utf-8")
        # What was compiled of a file is known by its size and its time in seconds.
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**10))
        return remove


def read_faults() -> list[Fault]:
    """All faults, by room."""
    return [
        Fault(name, **{**values, "tests": tuple(values["tests"])})
        for path in sorted(FOLDER.glob("*.toml"))
        for name, values in tomllib.loads(path.read_text(encoding="utf-8")).items()
    ]
