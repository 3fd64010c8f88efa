"""Finish an artifact's folder and publish it in one step."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

from vlmc.artifact.integrity import open_artifact, payload_files
from vlmc.artifact.manifest import MANIFEST, Manifest, PayloadFile
from vlmc.errors import IntegrityError, UsageError
from vlmc.files.atomic import move_into_place, sync
from vlmc.files.hashing import files_sha256


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest of a folder whose payload is complete; returns it with the payload."""
    sizes = payload_files(folder)
    digests = files_sha256({folder / name: size for name, size in sizes.items()})
    payload = {
        name: PayloadFile(digests[folder / name], size) for name, size in sorted(sizes.items())
    }
    sealed = replace(manifest, payload=payload)
    text = json.dumps(sealed.to_json(), indent=1, sort_keys=True, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return sealed


def publish(partial: Path, target: Path) -> None:
    """Move a sealed folder into place, whole or not at all. An equal artifact there is kept.

    Raises:
        UsageError: another file or folder is at `target`.
        IntegrityError: the equal artifact there is damaged.
    """
    if os.path.lexists(target):
        old, new = target / MANIFEST, partial / MANIFEST
        if not old.is_file() or old.read_bytes() != new.read_bytes():
            raise UsageError(
                f"{target} exists already and is another artifact. Artifacts are immutable: name "
                "another folder with -o, or remove that one first."
            )
        try:
            open_artifact(target)
        except IntegrityError as error:
            raise IntegrityError(
                f"{target} was built before and is damaged now. Remove it, then build again. "
                f"{error}"
            ) from error
        shutil.rmtree(partial)
        return
    move_into_place(partial, target)


def check_link(link: Path) -> None:
    """Raise UsageError if `link` exists and is not a link."""
    if os.path.lexists(link) and not link.is_symlink():
        raise UsageError(f"{link} exists and is not a link; move it away, then build again")


def point_link(link: Path, target: Path) -> None:
    """Make `link` lead to `target` beside it, replacing an older link in one step.

    Raises:
        UsageError: `link` exists and is not a link.
    """
    check_link(link)
    temporary = link.with_name(f".{link.name}.link-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target.name)
    temporary.rename(link)
    sync(link.parent)
