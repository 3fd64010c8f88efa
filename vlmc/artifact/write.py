"""Finish an artifact's folder and publish it in one step."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from vlmc.artifact.identity import IDENTITY, identity_text, is_recorded, read_identity
from vlmc.artifact.integrity import open_artifact, payload_files
from vlmc.artifact.manifest import MANIFEST, Manifest, PayloadFile
from vlmc.errors import IntegrityError, UsageError
from vlmc.files.atomic import move_into_place, sync
from vlmc.files.hashing import files_sha256


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write manifest and identity of a folder whose payload is complete.

    Returns:
        The manifest with the payload.
    """
    sizes = payload_files(folder)
    digests = files_sha256({folder / name: size for name, size in sizes.items()})
    payload = {
        name: PayloadFile(digests[folder / name], size) for name, size in sorted(sizes.items())
    }
    sealed = replace(manifest, payload=payload)
    (folder / MANIFEST).write_text(sealed.to_text(), encoding="utf-8")
    (folder / IDENTITY).write_text(identity_text(sealed.identity), encoding="ascii")
    return sealed


def publish(partial: Path, target: Path) -> None:
    """Move a sealed folder into place, whole or not at all.

    An equal artifact there is kept; if an earlier version built it, its identity is added.

    Raises:
        UsageError: another file or folder is at `target`.
        IntegrityError: the equal artifact there is damaged.
    """
    if os.path.lexists(target):
        if not _holds(target, partial):
            raise UsageError(
                f"{target} already exists and is another artifact. Artifacts are immutable: name "
                "another folder with -o, or remove that one first."
            )
        try:
            open_artifact(target)
        except IntegrityError as error:
            raise IntegrityError(
                f"{target} was built before and is damaged now. Remove it, then build again. "
                f"{error}"
            ) from error
        if not is_recorded(target):
            sync(partial / IDENTITY)
            (partial / IDENTITY).rename(target / IDENTITY)
            sync(target)
        shutil.rmtree(partial)
        return
    move_into_place(partial, target)


def _holds(target: Path, new: Path) -> bool:
    """Whether `target` is the artifact `new`, by its manifest or, if that is damaged, by the
    identity that it carries."""
    manifest = target / MANIFEST
    if manifest.is_file() and manifest.read_bytes() == (new / MANIFEST).read_bytes():
        return True
    try:
        return read_identity(target) == read_identity(new)
    except IntegrityError:
        return False


def check_link(link: Path) -> None:
    """Raise UsageError if `link` exists and is not a link."""
    if os.path.lexists(link) and not link.is_symlink():
        raise UsageError(f"{link} exists and is not a link; move it away, then build again")


def point_link(link: Path, target: Path) -> None:
    """Make `link` point to `target` beside it, replacing an older link in one step.

    Raises:
        UsageError: `link` exists and is not a link.
    """
    check_link(link)
    temporary = link.with_name(f".{link.name}.link-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target.name)
    temporary.rename(link)
    sync(link.parent)
