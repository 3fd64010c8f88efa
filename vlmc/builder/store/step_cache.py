"""The folder of finished steps, which builds, machines and plans share."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vlmc.artifact.integrity import payload_files
from vlmc.builder.steps.step import Step
from vlmc.errors import BuildError
from vlmc.files.atomic import make_private, sync, sync_tree, write_atomically
from vlmc.files.hashing import files_sha256
from vlmc.files.lock import locked, locked_if_free
from vlmc.files.staging import staging_folder
from vlmc.machine.memory import MemoryPeak
from vlmc.machine.user_cache import user_cache

SCHEMA = 1
_RECORD, _FILES = "step.json", "files"


@dataclass(frozen=True, slots=True)
class CachedFile:
    """One file that a step wrote, as it was stored; `size` in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class CachedStep:
    """A finished step in the cache."""

    key: str
    name: str
    key_parts: Mapping[str, Any]  # what the key was made of, as `Step.key_parts`
    seconds: float  # that the work took
    peak_memory_bytes: int | None
    created: float  # seconds since 1970
    files: Mapping[str, CachedFile]  # by path relative to `folder`
    folder: Path

    @property
    def bytes(self) -> int:
        """Size of the files on disk."""
        return sum(file.size for file in self.files.values())


@dataclass(frozen=True, slots=True)
class Damage:
    """An entry that is not what was stored, and why."""

    reason: str


def default_folder() -> Path:
    """`$VLMC_CACHE`, else `build` in vlmc's folder of the user's caches."""
    given = os.environ.get("VLMC_CACHE")
    return Path(given) if given else user_cache("build")


class StepCache:
    """Steps by key. Entries appear whole or not at all, and are never changed.

    Reading touches nothing. A step is made under its key's lock, so that of two builds one works
    and the other waits; where a file system has no locks both work, and one result is kept.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = default_folder() if folder is None else folder
        self._steps, self._locks = self.folder / "steps", self.folder / "locks"

    def find(self, key: str) -> CachedStep | None:
        """The step, if it is there with every file in its size; hashes are checked on use."""
        found = self.check(key)
        return found if isinstance(found, CachedStep) else None

    def check(self, key: str) -> CachedStep | Damage | None:
        """As `find`, but returns the damage of an entry that is damaged."""
        folder = self._steps / key
        if not folder.is_dir():
            return None
        try:
            entry = _parse(json.loads((folder / _RECORD).read_bytes()), folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return Damage(f"{_RECORD} cannot be read: {error!r}")
        if entry.key != key:
            return Damage(f"{_RECORD} is of another step")
        for name, file in entry.files.items():
            with suppress(OSError):
                if (entry.folder / name).stat().st_size == file.size:
                    continue
            return Damage(f"{name} is missing or not {file.size:,} bytes")
        return entry

    def entry_keys(self) -> list[str]:
        """Keys of all entries, whole or damaged, sorted."""
        if not self._steps.is_dir():
            return []
        return sorted(p.name for p in self._steps.iterdir() if not p.name.startswith("."))

    def entries(self) -> list[CachedStep]:
        """All whole entries, the newest first."""
        found = [entry for entry in map(self.find, self.entry_keys()) if entry is not None]
        return sorted(found, key=lambda entry: (-entry.created, entry.key))

    def used(self, key: str) -> float:
        """When a build last took the entry, in seconds since 1970."""
        return (self._steps / key).stat().st_mtime

    def remember_build(self, name: str, keys: Mapping[str, str]) -> None:
        """Note the keys of a recipe's build by step, for later plans of the same recipe name."""
        folder = self.folder / "builds"
        with suppress(OSError):  # a cache that may only be read
            make_private(self.folder, folder)
            write_atomically(folder / f"{name}.json", json.dumps(dict(keys)))

    def last_build(self, name: str) -> dict[str, CachedStep]:
        """The steps of the last build of a recipe name that are still here, by step."""
        try:
            keys = dict(json.loads((self.folder / "builds" / f"{name}.json").read_bytes()))
            found = {str(step): self.find(str(key)) for step, key in keys.items()}
        except (OSError, ValueError, TypeError, RecursionError):
            return {}
        return {step: entry for step, entry in found.items() if entry is not None}

    def mark_used(self, key: str) -> None:
        """Note that a build takes the entry now; a cache that may only be read stays as it is."""
        with suppress(OSError):
            os.utime(self._steps / key)

    def locked(
        self, key: str, *, shared: bool = False, waiting: Callable[[], None] = lambda: None
    ) -> AbstractContextManager[None]:
        """Hold a key against other builds; `waiting` is called if that takes a wait.

        Raises:
            OSError: the folder cannot be made or written to.
        """
        make_private(self.folder, self._locks)
        return locked(self._locks / key, shared=shared, waiting=waiting)

    def store(self, step: Step, needed: Sequence[Path] = ()) -> CachedStep:
        """Do the step's work and keep what it wrote; replaces an entry that is there.

        `needed` are the folders of the steps that it needs, in their order.

        Raises:
            OSError, VlmcError: as the work does; the cache stays as it was.
        """
        make_private(self.folder, self._steps)
        with staging_folder(self._steps, step.key) as partial:
            folder = partial / _FILES
            folder.mkdir()
            peak, start = MemoryPeak(), time.perf_counter()
            step.work(folder, *needed)
            seconds = round(time.perf_counter() - start, 3)
            sizes = payload_files(folder)
            if not sizes:
                raise BuildError(f"{step.name} wrote no file; this is an error in vlmc")
            digests = files_sha256({folder / name: size for name, size in sizes.items()})
            entry = CachedStep(
                key=step.key,
                name=step.name,
                key_parts=step.key_parts,
                seconds=seconds,
                peak_memory_bytes=peak.read(),
                created=time.time(),
                files={
                    name: CachedFile(digests[folder / name], size) for name, size in sizes.items()
                },
                folder=self._steps / step.key / _FILES,
            )
            (partial / _RECORD).write_text(json.dumps(_to_json(entry), indent=1), encoding="utf-8")
            sync_tree(partial)
            self.drop(step.key)
            try:
                partial.rename(self._steps / step.key)
            except OSError:
                # Without locks another build may have been quicker; what it stored is the same.
                if self.find(step.key) is None:
                    raise
            sync(self._steps)
        return entry

    def drop(self, key: str) -> None:
        """Remove an entry, if there is one; it is gone at once, whenever this is killed."""
        folder = self._steps / key
        if folder.exists():
            with suppress(FileNotFoundError), staging_folder(self._steps, key) as aside:
                folder.rename(aside / key)

    @contextmanager
    def held_if_free(self, key: str) -> Iterator[bool]:
        """Hold a key unless a build does; yields whether it is held."""
        make_private(self.folder, self._locks)
        with locked_if_free(self._locks / key) as held:
            yield held

    def remove_leftovers(self) -> int:
        """Remove what killed builds left half made; returns how many folders."""
        removed = 0
        if self._steps.is_dir():
            for path in self._steps.glob(".*.partial-*"):
                key = path.name[1:].partition(".")[0]
                with self.held_if_free(key) as held:
                    if held and path.exists():
                        shutil.rmtree(path)
                        removed += 1
        return removed


def _to_json(entry: CachedStep) -> dict[str, Any]:
    values = asdict(entry)
    del values["folder"]
    # The name in the file is that of the first caches, which stay readable.
    values["ingredients"] = values.pop("key_parts")
    return {"schema": SCHEMA} | values


def _parse(values: Any, folder: Path) -> CachedStep:
    if values["schema"] != SCHEMA:
        raise ValueError(f"schema {values['schema']!r} is not {SCHEMA}")
    peak = values["peak_memory_bytes"]
    return CachedStep(
        key=str(values["key"]),
        name=str(values["name"]),
        key_parts=dict(values["ingredients"]),
        seconds=float(values["seconds"]),
        peak_memory_bytes=None if peak is None else int(peak),
        created=float(values["created"]),
        files={
            _inside(name): CachedFile(str(file["sha256"]), int(file["size"]))
            for name, file in values["files"].items()
        },
        folder=folder / _FILES,
    )


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{name!r} leads out of the cache")
    return name
