"""Label plates: a word or a number in large letters on a contrasting plate."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from recipes.quickstart.training.sprite import Pen, Picture, shade
from recipes.quickstart.training.words import NUMBERS, RGB, WORDS

_OVERSAMPLING = 3
_STYLES: tuple[tuple[RGB, RGB], ...] = (
    ((244, 244, 240), (22, 22, 26)),
    ((248, 212, 40), (20, 20, 20)),
    ((190, 30, 28), (250, 250, 248)),
    ((24, 66, 164), (250, 250, 248)),
    ((20, 116, 58), (250, 250, 248)),
    ((26, 26, 30), (250, 214, 60)),
    ((244, 244, 240), (186, 24, 24)),
)


def choose_text(random: np.random.Generator) -> str:
    """A word, or a number a third of the time."""
    texts = NUMBERS if random.random() < 0.35 else WORDS
    return texts[int(random.integers(len(texts)))]


@lru_cache(maxsize=128)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError(
            "Pillow was built without FreeType, so its built-in font cannot be scaled; "
            "install a Pillow wheel with FreeType to draw label plates"
        )
    return font


@lru_cache(maxsize=1)
def _capital_share() -> float:
    """Height of a capital letter against the font's nominal size."""
    _, top, _, bottom = _font(200).getbbox("H")
    return float(bottom - top) / 200


def plate(text: str, letter_height: float, random: np.random.Generator) -> Picture:
    """A plate (h, w, 4) at three times its size in the scene, the letters being that many pixels.

    Letter height is that of a capital.
    """
    letter = letter_height * _OVERSAMPLING
    font = _font(round(letter / _capital_share()))
    weight = int(random.integers(1, 3)) if letter_height >= 12 else 1
    left, top, right, bottom = font.getbbox(text, stroke_width=weight)
    pad_x, pad_y = letter * random.uniform(0.4, 0.9), letter * random.uniform(0.35, 0.7)
    width, height = round(right - left + 2 * pad_x), round(bottom - top + 2 * pad_y)
    back, front = _STYLES[int(random.integers(len(_STYLES)))]
    pen = Pen(width, height)
    radius = float(random.choice([0.0, 0.12, 0.22]))
    border = letter * 0.12
    inset_x, inset_y = border / width, border / height
    framed = random.random() < 0.4
    pen.rounded((0, 0, 1, 1), radius, front if framed else shade(back, 0.55))
    pen.rounded((inset_x, inset_y, 1 - inset_x, 1 - inset_y), radius * 0.85, back)
    mask = Image.new("L", (width, height), 0)
    origin = ((width - right - left) / 2, (height - bottom - top) / 2)
    ImageDraw.Draw(mask).text(origin, text, fill=255, font=font, stroke_width=weight)
    cover = np.asarray(mask, np.float32)[:, :, None] / 255
    painted = pen.canvas[:, :, :3] * (1 - cover) + np.array(front, np.float32) * cover
    pen.canvas[:, :, :3] = painted.astype(np.uint8)
    return pen.canvas
