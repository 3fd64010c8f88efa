"""Draws the pictures beside it; run again only to change them, then make the oracle anew.

    python tests/data/images/draw_images.py

The files are committed, because encoders differ between Pillow versions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

FOLDER = Path(__file__).parent
ORIENTATION = 0x0112


def texture(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """A smooth colour field with mild noise, (height, width, 3)."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [
        np.sin(x / (20 + 13 * channel) + seed) * np.cos(y / (31 + 9 * channel)) * 60
        for channel in range(3)
    ]
    field = np.stack(waves, axis=-1) + 128 + (x[..., None] / width - 0.5) * 70
    noisy: NDArray[np.float64] = np.clip(field + generator.normal(0, 2, field.shape), 0, 255)
    return noisy.astype(np.uint8)


def picture(width: int, height: int, seed: int) -> Image.Image:
    """A texture with shapes, thin lines and text over it."""
    image = Image.fromarray(texture(width, height, seed))
    pen = ImageDraw.Draw(image)
    generator = np.random.default_rng(seed + 100)
    for _ in range(6):
        x, y = int(generator.integers(0, width)), int(generator.integers(0, height))
        size = int(generator.integers(10, min(width, height) // 2))
        colour = tuple(int(value) for value in generator.integers(0, 256, 3))
        shape = pen.ellipse if generator.random() < 0.5 else pen.rectangle
        shape((x, y, x + size, y + size), fill=colour, outline=(255, 255, 255))
    for step in range(0, width, max(width // 12, 1)):
        pen.line((step, 0, width - step, height), fill=(20, 20, 20), width=1)
    pen.text((width // 8, height // 3), f"EXIT {seed}", fill=(255, 0, 0), font_size=height // 8)
    return image


def draw_plain() -> None:
    sizes = [(480, 320), (640, 480), (320, 480), (1000, 300), (448, 448)]
    for seed, (width, height) in enumerate(sizes):
        picture(width, height, seed).save(FOLDER / f"{width}x{height}.jpg", quality=60)


def draw_odd() -> None:
    """Modes and files at the edges of what decoders meet."""
    folder = FOLDER / "odd"
    folder.mkdir(exist_ok=True)
    base = picture(90, 60, 7)
    base.convert("L").save(folder / "grey.jpg", quality=80)
    base.convert("L").save(folder / "grey.png")
    base.convert("1").save(folder / "bilevel.png")
    palette = base.quantize(16)
    palette.save(folder / "palette-transparent.png", transparency=3)
    palette.save(folder / "palette-alpha.png", transparency=bytes(range(0, 256, 16)))
    alpha = Image.fromarray(np.tile(np.linspace(0, 255, 90).astype(np.uint8), (60, 1)))
    rgba = base.copy()
    rgba.putalpha(alpha)
    rgba.save(folder / "rgba.png")
    rgba.convert("LA").save(folder / "grey-alpha.png")
    base.convert("CMYK").save(folder / "cmyk.jpg", quality=80)
    base.convert("CMYK").save(folder / "cmyk.tif", compression="tiff_lzw")
    deep = np.linspace(0, 65535, 90 * 60).reshape(60, 90).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep-grey.png")
    Image.new("RGB", (1, 1), (200, 30, 60)).save(folder / "one-pixel.png")
    Image.fromarray(texture(300, 1, 3)).save(folder / "one-row.png")
    frames = [picture(60, 40, seed).quantize(32) for seed in (8, 9)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:], duration=80)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    base.save(folder / "rotated.jpg", quality=80, exif=exif)
    base.save(folder / "progressive.jpg", quality=80, progressive=True)
    base.save(folder / "picture.webp", lossless=True)


if __name__ == "__main__":
    draw_plain()
    draw_odd()
