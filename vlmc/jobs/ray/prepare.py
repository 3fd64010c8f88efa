"""Images of a few rows read, decoded and tiled in a task, ahead of the model.

Imports no torch, so that the processes of such tasks start quickly and stay small.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from vlmc.artifact.manifest import ImageRules
from vlmc.errors import VlmcError
from vlmc.image.source import describe
from vlmc.image.tiles import TileRule
from vlmc.jobs.input.fetch import Fetcher
from vlmc.runtime.images.prepare import ImagePreparer
from vlmc.runtime.requests.request import PreparedImage, TileOrigin

if TYPE_CHECKING:
    from vlmc.jobs.input.rows import ImageInput


@dataclass(frozen=True, slots=True)
class TileMaker:
    """Makes preparers of images in other processes."""

    rules: ImageRules
    tiles: TileRule
    origin: TileOrigin

    def preparer(self) -> ImagePreparer:
        """A preparer of images for the model."""
        return ImagePreparer(self.rules, self.tiles, self.origin)


@dataclass(frozen=True, slots=True)
class FailedImage:
    """Stands for an image that could not be prepared, and raises its error when it is read."""

    name: str
    error: VlmcError

    def seekable(self) -> bool:
        """It is read as a whole."""
        return False

    def read(self) -> bytes:
        """Raises the error."""
        raise self.error


Prepared: TypeAlias = PreparedImage | FailedImage
Images: TypeAlias = list[Prepared | list[Prepared] | None]
"""Of some rows: an image, several, or none."""


def prepare_images(
    maker: TileMaker, work_folder: str, images: Sequence[ImageInput | None]
) -> Images:
    """The images of some rows, prepared; one that cannot be read does not hide the others.

    Paths are relative to `work_folder`, where this process moves.
    """
    move_to(work_folder)
    preparer = _preparer(maker)
    with closing(Fetcher()) as fetcher:
        # All remote ones are on their way before the first is decoded.
        started = [fetcher.started(image) for image in images]
        return [
            [_prepared(preparer, part) for part in image]
            if isinstance(image, list)
            else None
            if image is None
            else _prepared(preparer, image)
            for image in started
        ]


def move_to(folder: str) -> None:
    """Move this process to a folder, to which paths are relative.

    A node without it has no such path either. It can do what remains: whole paths and addresses.
    """
    with suppress(OSError):
        os.chdir(folder)


@lru_cache(1)
def _preparer(maker: TileMaker) -> ImagePreparer:
    """One for all tasks of a process, since it keeps the last images."""
    return maker.preparer()


def _prepared(preparer: ImagePreparer, image: object) -> Prepared:
    try:
        return preparer.image(image)  # type: ignore[arg-type]
    except VlmcError as error:
        return FailedImage(describe(image), error)
