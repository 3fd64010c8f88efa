"""JPEGs decoded at a reduced scale: libjpeg leaves out the frequencies that a small target drops.

The parts of a JPEG's cosine transform that stand for fine detail are not computed, so that
decoding is faster and everything after it has fewer pixels.
"""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from vlmc.image.resize import KEPT_RESOLUTION

TargetSize = Callable[[int, int], tuple[int, int]]
"""From an upright image's (width, height) to the size that it will be resized to."""
_SCALES = (8, 4, 2)
_MODES = ("RGB", "L")  # CMYK becomes RGB after decoding, by a formula that is not linear


def reduce_scale(image: Image.Image, target_size: TargetSize, *, sideways: bool) -> None:
    """Have an opened JPEG decoded at 1/2, 1/4 or 1/8 where its target is much smaller.

    The reduced image keeps at least `KEPT_RESOLUTION` times the target's pixels along each axis.
    An image whose sides the scale does not divide stays whole: libjpeg would fill up its last
    pixels, and the picture would be stretched by their share. `sideways` says that the image will
    be turned by 90° after decoding.

    A reduced image has the same grid of tiles: its aspect ratio is exactly the same, and it is
    larger than the grid that the whole image has.
    """
    if not isinstance(image, JpegImageFile) or image.mode not in _MODES:
        return
    width, height = image.size[::-1] if sideways else image.size
    target_width, target_height = target_size(width, height)
    for scale in _SCALES:
        if width % scale or height % scale:
            continue
        kept = min(width / target_width, height / target_height) / scale
        if kept >= KEPT_RESOLUTION:
            image.draft(None, (image.width // scale, image.height // scale))
            return
