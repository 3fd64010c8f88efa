"""Grey pictures of more than 8 bits: 16-bit and 32-bit whole numbers, and floats."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from vlmc.image.source import Pixels

HighBitDepth = Literal["original", "scale"]


def has_high_bit_depth(image: Image.Image) -> bool:
    """Whether a picture is grey with more than 8 bits, which Pillow's `convert` clips to 0..255.

    Colour pictures of 16 bits are not among them: Pillow reads their upper 8 bits.
    """
    return image.mode == "F" or image.mode.startswith("I")


def scale_to_8_bits(image: Image.Image) -> Pixels:
    """A picture of high bit depth as uint8 (height, width, 3), scaled in place of clipped.

    The darkest value of a range becomes 0, its brightest 255, and those between the nearest of
    256 levels, `round((value − low) · 255 / (high − low))`. The range is:

    - whole numbers: 0..65535, so that the level is `round(value / 257)`; where a value lies
      outside, that of the picture's own values.
    - floats: 0..1; where a value lies outside, that of the picture's own finite values. NaN
      becomes 0, and an infinite value the end of the range.
    """
    whole = image.mode != "F"
    # float32 holds every 16-bit value, and no quotient by 257 is close to a half.
    values: npt.NDArray[np.floating] = np.array(
        image, np.float64 if image.mode in ("I", "F") else np.float32
    )
    finite = values[np.isfinite(values)]
    least, most = (finite.min(), finite.max()) if finite.size else (0, 0)
    low, high = 0, 65535 if whole else 1
    if least < low or most > high:
        low, high = least, most
    with np.errstate(invalid="ignore"):  # infinite · 0
        values -= low
        values *= 255 / (high - low) if high > low else 0
    levels = np.rint(np.nan_to_num(values, copy=False, nan=0)).clip(0, 255).astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=-1)
