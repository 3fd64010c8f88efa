"""Image files of a remote folder or pattern, or a single one."""

from __future__ import annotations

import glob
from collections import Counter

from vlmc.errors import UsageError
from vlmc.image.formats import IMAGE_SUFFIXES, RAW_SUFFIXES, content_looks_like_image
from vlmc.jobs.input.image_files import ImageFiles, but_left_out
from vlmc.jobs.input.remote import RemoteFile, file_system, matching

_HEAD_BYTES = 1 << 16


def remote_images(place: RemoteFile) -> ImageFiles:
    """All images of a remote folder at any depth, all files that a pattern matches, or one file.

    In a folder a file counts as an image by its suffix, or else by its first bytes.

    Raises:
        UsageError: there is no image, or the folder cannot be listed.
    """
    system, path = file_system(place.url)
    left_out: Counter[str] = Counter()
    try:
        if glob.has_magic(path):
            found = matching(place.url)
        elif system.isdir(path):
            found = [
                RemoteFile(str(system.unstrip_protocol(name)))
                for name in sorted(map(str, system.find(path)))
                if _is_image(system, name, name[len(path) :], left_out)
            ]
        elif system.exists(path):
            return ImageFiles(place.url, [place], {})
        else:
            raise UsageError(f"{place.url}: there is no such file or folder; check the path")
    except OSError as error:
        raise UsageError(f"{place.url}: cannot be listed ({error})") from error
    if not found:
        raise UsageError(f"{place.url}: has no image file{but_left_out(left_out)}")
    return ImageFiles(place.url, [*found], left_out)


def _is_image(system: object, name: str, below: str, left_out: Counter[str]) -> bool:
    """Whether a file counts as an image; `below` is its path in the folder."""
    if any(part.startswith(".") for part in below.split("/")):
        left_out["hidden"] += 1
        return False
    suffix = RemoteFile(name).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return True
    if suffix not in RAW_SUFFIXES:
        head = system.cat_file(name, start=0, end=_HEAD_BYTES)  # type: ignore[attr-defined]
        if content_looks_like_image(head):
            return True
    left_out[suffix or "without suffix"] += 1
    return False
