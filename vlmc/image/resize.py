"""Resize an image: bit for bit as Pillow does, or close to it and several times as fast."""

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

KEPT_RESOLUTION = 1.6
"""An image may be shrunk in two steps if the first keeps this many times the last one's pixels
along each axis. Measured on photographs: `docs/notes/preprocessing.md`."""


def resize(image: Pixels, width: int, height: int, resampler: Resampler) -> Pixels:
    """Stretch uint8 (H, W, 3) to uint8 (`height`, `width`, 3).

    `pillow` is bit-exact to `Image.resize` with its default BICUBIC filter. `opencv` uses
    OpenCV's INTER_CUBIC, whose kernel is slightly sharper (a = −0.75, Pillow's −0.5), where no
    axis shrinks. Where one does, that kernel would alias and INTER_AREA would blur, so it uses
    torch's antialiased bicubic, which is Pillow's filter but for rounding.
    """
    if resampler == "pillow":
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(resized)
    if resampler == "opencv":
        old_height, old_width = image.shape[:2]
        if (old_width, old_height) == (width, height):
            return image.copy()
        if width >= old_width and height >= old_height:
            opencv = _opencv()
            grown: Pixels = opencv.resize(image, (width, height), interpolation=opencv.INTER_CUBIC)
            return grown
        return _shrink(image, width, height)
    raise UsageError(f"unknown resampler {resampler!r}; use one of {', '.join(RESAMPLERS)}")


def _shrink(image: Pixels, width: int, height: int) -> Pixels:
    """Antialiased bicubic; torch computes uint8 on the calling thread alone."""
    import torch
    from torch.nn.functional import interpolate

    # torch warns of memory that it could write to and must not.
    pixels = torch.from_numpy(image if image.flags.writeable else image.copy())
    batch = pixels.permute(2, 0, 1)[None]  # (1, 3, H, W), channels last in memory
    resized = interpolate(batch, (height, width), mode="bicubic", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


@cache
def _opencv() -> ModuleType:
    """OpenCV with one thread a call.

    Several workers prepare images at once, and each would start OpenCV's own pool on every core.
    OpenCV has only this one setting, which holds for the process.
    """
    import cv2

    cv2.setNumThreads(1)
    return cv2
