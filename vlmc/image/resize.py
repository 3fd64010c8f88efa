"""Resize an image: bit for bit as Pillow does, or close to it with OpenCV."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Literal, get_args

import numpy as np
from PIL import Image

from vlmc.errors import UsageError
from vlmc.image.source import Pixels

Resampler = Literal["pillow", "opencv"]
RESAMPLERS: tuple[Resampler, ...] = get_args(Resampler)


def resize(image: Pixels, width: int, height: int, resampler: Resampler) -> Pixels:
    """Stretch uint8 (H, W, 3) to uint8 (`height`, `width`, 3).

    `pillow` is bit-exact to `Image.resize` with its default BICUBIC filter. `opencv` uses
    INTER_CUBIC along an axis that grows and INTER_AREA along one that shrinks, because
    OpenCV's cubic does not smooth before it shrinks, so that it aliases.
    """
    if resampler == "pillow":
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(resized)
    if resampler == "opencv":
        return _resize_opencv(image, width, height)
    raise UsageError(f"unknown resampler {resampler!r}; use one of {', '.join(RESAMPLERS)}")


def _resize_opencv(image: Pixels, width: int, height: int) -> Pixels:
    old_height, old_width = image.shape[:2]
    if (old_width, old_height) == (width, height):
        return image.copy()
    # The axis that shrinks goes first, so that the other has fewer pixels to work on.
    shrunk = (min(width, old_width), min(height, old_height))
    if shrunk != (old_width, old_height):
        image = _opencv().resize(image, shrunk, interpolation=_opencv().INTER_AREA)
    if shrunk != (width, height):
        image = _opencv().resize(image, (width, height), interpolation=_opencv().INTER_CUBIC)
    return image


@cache
def _opencv() -> ModuleType:
    """OpenCV with one thread a call.

    Several workers prepare images at once, and each would start OpenCV's own pool on every core.
    OpenCV has only this one setting, which holds for the process.
    """
    import cv2

    cv2.setNumThreads(1)
    return cv2
