"""Images of the report, small, as the source sees them and as the artifact does."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vlmc.artifact.manifest import ImageRules
from vlmc.errors import ImageError
from vlmc.image.decode import decode
from vlmc.image.source import Pixels
from vlmc.image.tiles import Grid, TileRule, choose_grid
from vlmc.report.tile_grid import Thumbnail

_SIDE = 320
_QUALITY = 70
MAX_BYTES = 1 << 20
"""Of all images of a page, as base64."""


@dataclass(frozen=True, slots=True)
class GridImage:
    """A small JPEG, and the grid of the whole image."""

    image: Thumbnail
    grid: Grid


def grid_images(
    paths: Iterable[Path], rules: ImageRules
) -> dict[Path, tuple[GridImage, GridImage]]:
    """What the source and the artifact see of each path, until the bytes are used up.

    An image that can no longer be read has none.
    """
    found: dict[Path, tuple[GridImage, GridImage]] = {}
    size = 0
    for path in dict.fromkeys(paths):
        try:
            of_source = decode(path)
            of_artifact = decode(path, exif=rules.exif, high_bit_depth=rules.high_bit_depth)
        except ImageError:
            continue
        views = (_view(of_source, rules.published), _view(of_artifact, rules.tiles))
        size += sum(map(len, {view.image.uri for view in views}))
        if size > MAX_BYTES:
            break
        found[path] = views
    return found


def _view(pixels: Pixels, rule: TileRule) -> GridImage:
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels)
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY)
    uri = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return GridImage(Thumbnail(uri, *image.size), choose_grid(width, height, rule))
