"""An artifact's files against its manifest, hashed once for a whole tree of processes."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from vlmc.artifact.identity import IDENTITY
from vlmc.artifact.manifest import MANIFEST, Manifest, read_manifest
from vlmc.errors import IntegrityError, UsageError
from vlmc.files.hashing import file_sha256, files_sha256

__all__ = ["REPORTS", "Artifact", "check_files", "file_sha256", "open_artifact", "payload_files"]

REPORTS = "reports"
# An artifact's are two deep.
_MAX_DEPTH = 8


@dataclass(frozen=True, slots=True)
class FileMark:
    """What a file system changes whenever a file is written or replaced; times in ns."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artifact whose files have been checked.

    It may be sent to other processes of the machine, as an argument of `multiprocessing.Process`
    is: `vlmc.load(artifact)` takes it there without hashing the files again.
    """

    folder: Path
    manifest: Manifest
    identity: str
    marks: Mapping[str, FileMark]

    def path(self, name: str) -> Path:
        """A payload file.

        Raises:
            IntegrityError: the manifest does not list it.
        """
        if name not in self.manifest.payload:
            raise IntegrityError(f"{self.folder} holds no {name}; the artifact is incomplete")
        return self.folder / name

    def to_json(self) -> dict[str, Any]:
        """What `from_json` needs in another process of the machine."""
        marks = {name: astuple(mark) for name, mark in self.marks.items()}
        return {"folder": str(self.folder), "identity": self.identity, "marks": marks}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Artifact:
        """The artifact that another process has opened; `confirmed` says whether it still is that.

        Raises:
            IntegrityError: its manifest is damaged.
        """
        folder = Path(values["folder"])
        marks = {name: FileMark(*mark) for name, mark in values["marks"].items()}
        return Artifact(folder, read_manifest(folder), values["identity"], marks)

    def confirmed(self) -> Artifact:
        """This artifact if no file's size, time or inode differs from when it was hashed.

        Otherwise, as after a backup touched the files, everything is checked again.

        Raises:
            IntegrityError: the folder holds another artifact now, or a damaged one.
        """
        manifest = read_manifest(self.folder)
        if manifest.identity != self.identity:
            raise IntegrityError(
                f"{self.folder} held the artifact {self.identity[:8]} when it was checked, and "
                f"holds {manifest.identity[:8]} now. Open it again to use that one."
            )
        check_files(self.folder, manifest)
        if all(_mark(self.folder / name) == mark for name, mark in self.marks.items()):
            return self
        return open_artifact(self.folder)


def open_artifact(folder: str | Path) -> Artifact:
    """Check manifest, then sizes, then hashes on all cores. Nothing is deserialized.

    Raises:
        IntegrityError: a payload file is missing, extra, a link, or not what the manifest says.
        UsageError: `folder` is not a path.

    >>> from vlmc import load, open_artifact
    >>> artifact = open_artifact("artifacts/quickstart")
    >>> len(artifact.identity), artifact.manifest.image.resampler in ("opencv", "pillow")
    (64, True)
    >>> load(artifact, device="cpu").close()
    """
    if not isinstance(folder, str | Path):
        raise UsageError(f"an artifact is given as the path of its folder, got {folder!r:.100}")
    folder = resolve_folder(Path(folder))
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    # Taken before the hashes, so that a write while they are computed shows later.
    marks = {name: _mark(folder / name) for name in manifest.payload}
    sizes = {folder / name: entry.size for name, entry in manifest.payload.items()}
    try:
        digests = files_sha256(sizes)
    except OSError as error:
        raise IntegrityError(f"{error.filename} cannot be read ({error.strerror})") from error
    for name, entry in manifest.payload.items():
        digest = digests[folder / name]
        if digest != entry.sha256:
            raise IntegrityError(
                f"{folder / name} has SHA-256 {digest}, the manifest says {entry.sha256}. The file "
                "was changed or damaged; copy the artifact again."
            )
    return Artifact(folder, manifest, manifest.identity, marks)


def resolve_folder(folder: Path) -> Path:
    """The folder that a link to an artifact leads to.

    Raises:
        IntegrityError: the links lead in a circle.
    """
    try:
        return folder.resolve()
    except (OSError, RuntimeError) as error:
        raise IntegrityError(f"{folder} leads nowhere ({error})") from error


def check_files(folder: Path, manifest: Manifest) -> None:
    """Names and sizes of the payload against the manifest; reads no file.

    Raises:
        IntegrityError: a payload file is missing, extra, a link, or of another size.
    """
    found = payload_files(folder)
    extra = sorted(found.keys() - manifest.payload.keys())
    missing = sorted(manifest.payload.keys() - found.keys())
    if extra or missing:
        what = (
            f"lacks {missing[0]}" if missing else f"holds {extra[0]}, which is not in its manifest"
        )
        raise IntegrityError(
            f"{folder} {what}. An artifact is immutable: copy it again, or build it again."
        )
    for name, entry in manifest.payload.items():
        if found[name] != entry.size:
            raise IntegrityError(
                f"{folder / name} is {found[name]:,} bytes, the manifest says {entry.size:,}. "
                "The copy is incomplete; copy the artifact again."
            )


def payload_files(folder: Path) -> dict[str, int]:
    """Sizes in bytes of all files that belong to the payload, by relative path.

    Raises:
        IntegrityError: something in it is a link or not a plain file, or cannot be read.
    """
    sizes: dict[str, int] = {}
    pending = [folder]
    while pending:
        above = pending.pop()
        depth = len(above.relative_to(folder).parts)
        if depth > _MAX_DEPTH:
            raise IntegrityError(f"{folder} holds folders deeper than any artifact's")
        try:
            entries = [(path, path.lstat()) for path in sorted(above.iterdir())]
        except OSError as error:
            raise IntegrityError(f"{above} cannot be read ({error.strerror})") from error
        for path, status in entries:
            name = path.relative_to(folder).as_posix()
            if stat.S_ISDIR(status.st_mode):
                if name != REPORTS:
                    pending.append(path)
            elif not stat.S_ISREG(status.st_mode):
                raise IntegrityError(
                    f"{path} is a link or a special file; an artifact holds plain files only"
                )
            elif name not in (MANIFEST, IDENTITY):
                sizes[name] = status.st_size
    return sizes


def _mark(path: Path) -> FileMark:
    try:
        status = path.lstat()
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read ({error.strerror})") from error
    return FileMark(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )
