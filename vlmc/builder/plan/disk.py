"""Whether what a build writes fits on the disks that it goes to."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vlmc.files.units import bytes_text


@dataclass(frozen=True, slots=True)
class Shortage:
    """A disk with too little room for the folders that will grow on it."""

    folders: tuple[Path, ...]
    needed_bytes: int
    free_bytes: int

    def __str__(self) -> str:
        folders = " and ".join(str(folder) for folder in self.folders)
        return (
            f"the disk of {folders} has {bytes_text(self.free_bytes)} free, the build needs about "
            f"{bytes_text(self.needed_bytes)} there"
        )


def shortages(growing: Iterable[tuple[Path, int]]) -> tuple[Shortage, ...]:
    """Disks that lack room; `growing` are folders, which need not exist yet, and how many bytes
    will be written below each."""
    by_disk: dict[int, list[tuple[Path, int]]] = {}
    for folder, size in growing:
        by_disk.setdefault(_existing(folder).stat().st_dev, []).append((folder, size))
    found = []
    for parts in by_disk.values():
        needed = sum(size for _, size in parts)
        free = shutil.disk_usage(_existing(parts[0][0])).free
        if needed > free:
            folders = tuple(folder for folder, size in parts if size)
            found.append(Shortage(folders, needed, free))
    return tuple(found)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    absolute = folder.absolute()
    return next(path for path in (absolute, *absolute.parents) if path.exists())
