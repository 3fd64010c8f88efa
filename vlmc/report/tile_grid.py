"""Images with the grid of their tiles drawn over them (HTML and SVG)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vlmc.report.escape import escape, quote

# Narrower images are stretched, as the whole image is to its grid, so that lines stay apart.
_LEAST = 48


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """An image as a `data:` URI, and its size in pixels."""

    uri: str
    width: int
    height: int


def define_images(images: Mapping[str, Thumbnail]) -> str:
    """Hidden images by id, which the figures of a page refer to, each image once."""
    parts = (
        f'<image id={quote(name)} href={quote(image.uri)} width="{max(image.width, _LEAST)}" '
        f'height="{max(image.height, _LEAST)}" preserveAspectRatio="none"/>'
        for name, image in images.items()
    )
    opening = '<svg xmlns="http://www.w3.org/2000/svg" width="0" height="0"><defs>'
    return "\n".join([opening, *parts, "</defs></svg>"])


def draw_tile_grid(name: str, image: Thumbnail, columns: int, rows: int, caption: str) -> str:
    """A figure: the image of an id, white lines with a dark border between tiles, and text."""
    width, height = max(image.width, _LEAST), max(image.height, _LEAST)
    lines = [f"M{width * at / columns:.1f} 0V{height}" for at in range(1, columns)]
    lines += [f"M0 {height * at / rows:.1f}H{width}" for at in range(1, rows)]
    path = quote("".join([*lines, f"M1 1H{width - 1}V{height - 1}H1Z"]))
    return (
        f'<figure><svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><use href={quote(f"#{name}")}/>'
        f'<path d={path} fill="none" stroke="#000000" stroke-opacity="0.6" stroke-width="4"/>'
        f'<path d={path} fill="none" stroke="#ffffff" stroke-width="1.5"/></svg>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
