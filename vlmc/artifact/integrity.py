"""An artifact's files against its manifest."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path

from vlmc.artifact.manifest import MANIFEST, Manifest, read_manifest
from vlmc.errors import IntegrityError

REPORTS = "reports"


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artifact whose files have been checked."""

    folder: Path
    manifest: Manifest
    identity: str

    def path(self, name: str) -> Path:
        """A payload file.

        Raises:
            IntegrityError: the manifest does not list it.
        """
        if name not in self.manifest.payload:
            raise IntegrityError(f"{self.folder} holds no {name}; the artifact is incomplete")
        return self.folder / name


def open_artifact(folder: Path) -> Artifact:
    """Check manifest, then sizes, then hashes. Nothing is deserialized.

    Raises:
        IntegrityError: a payload file is missing, extra, a link, or not what the manifest says.
    """
    try:
        folder = folder.resolve()
    except (OSError, RuntimeError) as error:  # links that lead in a circle
        raise IntegrityError(f"{folder} leads nowhere ({error})") from error
    manifest = read_manifest(folder)
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
    for name, entry in manifest.payload.items():
        try:
            digest = file_sha256(folder / name)
        except OSError as error:
            raise IntegrityError(f"{folder / name} cannot be read ({error.strerror})") from error
        if digest != entry.sha256:
            raise IntegrityError(
                f"{folder / name} has SHA-256 {digest}, the manifest says {entry.sha256}. The file "
                "was changed or damaged; copy the artifact again."
            )
    return Artifact(folder, manifest, manifest.identity)


def payload_files(folder: Path) -> dict[str, int]:
    """Sizes in bytes of all files that belong to the payload, by relative path.

    Raises:
        IntegrityError: something in it is a link or not a plain file.
    """
    sizes: dict[str, int] = {}
    pending = [folder]
    while pending:
        for path in sorted(pending.pop().iterdir()):
            name, mode = path.relative_to(folder).as_posix(), path.lstat().st_mode
            if name in (MANIFEST, REPORTS):
                continue
            if stat.S_ISDIR(mode):
                pending.append(path)
            elif stat.S_ISREG(mode):
                sizes[name] = path.lstat().st_size
            else:
                raise IntegrityError(
                    f"{path} is a link or a special file; an artifact holds plain files only"
                )
    return sizes


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
