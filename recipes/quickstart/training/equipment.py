"""Drawings of the equipment that questions are about, each in two visible states."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recipes.quickstart.training.sprite import Pen, Picture, shade
from recipes.quickstart.training.words import PALETTE, RGB

WALL, FLOOR, CEILING = "wall", "floor", "ceiling"
_STEEL: RGB = (150, 154, 158)
_DARK: RGB = (36, 38, 42)
_PALE: RGB = (226, 226, 220)


@dataclass(frozen=True, slots=True)
class Form:
    """How one state of a kind looks and where it belongs.

    `aspect` is width / height, `size` the longer side against the scene's base size, `turns` the
    range of turns in degrees, `band` the part of the wall's height (0 top, 1 bottom) it hangs in.
    """

    place: str
    aspect: float
    size: float
    turns: tuple[float, float]
    draw: Callable[[Pen, RGB, np.random.Generator], None]
    band: tuple[float, float] = (0.0, 1.0)


def paint(colour: str | None, random: np.random.Generator) -> RGB:
    """The shade of a named colour that one thing has; pale plastic where it has no named colour."""
    base = _PALE if colour is None else PALETTE[colour]
    spread = 8 if colour in ("white", "black") else 14
    red, green, blue = (
        int(np.clip(channel + random.integers(-spread, spread + 1), 0, 255)) for channel in base
    )
    return red, green, blue


def is_light(colour: RGB) -> bool:
    """Whether dark marks stand out on a colour better than pale ones."""
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] > 140


def sketch(form: Form, colour: RGB, longest: float, random: np.random.Generator) -> Picture:
    """Draw a form at twice the pixels (`longest` side) it will be seen at."""
    height = max(72.0, 2 * longest) / max(1.0, form.aspect)
    pen = Pen(round(height * form.aspect), round(height))
    form.draw(pen, colour, random)
    return pen.canvas


def _cylinder(pen: Pen, colour: RGB, random: np.random.Generator) -> None:
    pen.rounded((0.22, 0.24, 0.78, 0.99), 0.3, shade(colour, 0.75))
    pen.rounded((0.24, 0.25, 0.76, 0.98), 0.28, colour)
    pen.rectangle(0.34, 0.3, 0.42, 0.92, shade(colour, 1.25))
    band = (112, 116, 122) if is_light(colour) else _PALE
    pen.rectangle(0.24, 0.54, 0.76, 0.66, band)
    for y in (0.57, 0.61):
        line = shade(band, 0.55)
        pen.rectangle(0.32, y, float(random.uniform(0.5, 0.68)), y + 0.015, line)
    pen.rectangle(0.4, 0.14, 0.6, 0.26, _DARK)
    pen.polygon([(0.3, 0.03), (0.9, 0.0), (0.92, 0.05), (0.45, 0.15), (0.3, 0.12)], _STEEL)
    pen.ellipse(0.5, 0.18, 0.09, 0.045, _PALE)
    pen.line([(0.42, 0.18), (0.14, 0.22), (0.08, 0.4), (0.1, 0.66)], _DARK, 0.1)
    pen.polygon([(0.03, 0.64), (0.17, 0.64), (0.2, 0.78), (0.0, 0.78)], _DARK)


def _extinguisher_hung(pen: Pen, colour: RGB, random: np.random.Generator) -> None:
    pen.rectangle(0.0, 0.3, 1.0, 0.96, (84, 86, 90))
    pen.rectangle(0.03, 0.32, 0.97, 0.94, (134, 138, 142))
    _cylinder(pen, colour, random)
    for y in (0.4, 0.78):
        pen.rectangle(0.1, y, 0.9, y + 0.04, (70, 72, 76))


def _dome(pen: Pen, colour: RGB, random: np.random.Generator) -> None:
    edge = shade(colour, 0.6) if is_light(colour) else shade(colour, 0.55)
    pen.ellipse(0.47, 0.76, 0.42, 0.74, edge, (180, 360))
    pen.ellipse(0.47, 0.76, 0.4, 0.7, colour, (180, 360))
    for x in (0.36, 0.47, 0.58):
        tip = 0.1 + 1.4 * (x - 0.47) ** 2
        ridge = [(x, tip), (0.47 + (x - 0.47) * 1.6, 0.72)]
        pen.line(ridge, shade(colour, 0.72), 0.05)
        pen.line([(a - 0.02, b) for a, b in ridge], shade(colour, 1.25), 0.03)
    pen.rounded((0.0, 0.72, 1.0, 0.9), 0.08, edge)
    pen.rounded((0.02, 0.73, 0.98, 0.85), 0.06, shade(colour, 1.08))


def _helmet_upside_down(pen: Pen, colour: RGB, random: np.random.Generator) -> None:
    edge = shade(colour, 0.6)
    pen.ellipse(0.5, 0.3, 0.44, 0.7, edge, (0, 180))
    pen.ellipse(0.5, 0.3, 0.42, 0.66, colour, (0, 180))
    for x in (0.38, 0.5, 0.62):
        pen.line([(x, 0.5), (0.5 + (x - 0.5) * 0.7, 0.92)], shade(colour, 0.72), 0.05)
    pen.ellipse(0.5, 0.28, 0.5, 0.26, edge)
    pen.ellipse(0.5, 0.27, 0.47, 0.23, shade(colour, 1.08))
    pen.ellipse(0.5, 0.28, 0.38, 0.17, (52, 50, 48))
    pen.line([(0.16, 0.24), (0.5, 0.38), (0.84, 0.24)], (190, 186, 170), 0.05)
    pen.line([(0.3, 0.4), (0.7, 0.16)], (190, 186, 170), 0.05)


def _cone(pen: Pen, colour: RGB, random: np.random.Generator) -> None:
    def slice_(top: float, bottom: float, paint_: RGB) -> None:
        half_top, half_bottom = 0.07 + 0.25 * top, 0.07 + 0.25 * bottom
        pen.polygon(
            [
                (0.5 - half_top, top),
                (0.5 + half_top, top),
                (0.5 + half_bottom, bottom),
                (0.5 - half_bottom, bottom),
            ],
            paint_,
        )
        pen.polygon(
            [
                (0.5 + half_top * 0.45, top),
                (0.5 + half_top, top),
                (0.5 + half_bottom, bottom),
                (0.5 + half_bottom * 0.45, bottom),
            ],
            shade(paint_, 0.78),
        )

    stripe = (92, 94, 98) if is_light(colour) and min(colour) > 150 else (232, 232, 228)
    slice_(0.02, 0.9, colour)
    for top in (0.28, 0.56) if random.random() < 0.5 else (0.4,):
        slice_(top, top + 0.13, stripe)
    pen.polygon([(0.08, 0.86), (0.92, 0.86), (1.0, 0.99), (0.0, 0.99)], shade(colour, 0.7))
    pen.polygon([(0.08, 0.86), (0.92, 0.86), (0.96, 0.93), (0.04, 0.93)], shade(colour, 0.95))


def _ladder(pen: Pen, colour: RGB, random: np.random.Generator) -> None:
    dark = shade(colour, 0.66) if max(colour) > 60 else (74, 74, 80)
    rungs = int(random.integers(5, 8))
    for rung in range(rungs):
        y = 0.08 + 0.86 * rung / (rungs - 1) * 0.98
        inset = 0.16 * (1 - y)
        pen.line([(0.08 + inset, y), (0.92 - inset, y)], dark, 0.1)
        pen.line([(0.08 + inset, y - 0.006), (0.92 - inset, y - 0.006)], colour, 0.06)
    for side in (-1, 1):
        rail = [(0.5 + side * 0.29, 0.01), (0.5 + side * 0.44, 0.99)]
        pen.line(rail, dark, 0.13)
        pen.line([(x - 0.01, y) for x, y in rail], colour, 0.09)


def _outlet_plate(pen: Pen, colour: RGB) -> None:
    pen.rounded((0.0, 0.0, 1.0, 1.0), 0.08, (120, 120, 118))
    pen.rounded((0.02, 0.03, 0.98, 0.97), 0.07, colour)
    for x in (0.27, 0.73):
        pen.ellipse(x, 0.5, 0.2, 0.38, (150, 150, 148))
        pen.ellipse(x, 0.5, 0.18, 0.34, shade(colour, 0.9))
        for y in (0.36, 0.64):
            pen.ellipse(x, y, 0.045, 0.085, (30, 30, 32))


def _outlet(pen: Pen, colour: RGB, random: np.random.Generator) -> None:
    _outlet_plate(pen, colour)


def _outlet_broken(pen: Pen, colour: RGB, random: np.random.Generator) -> None:
    _outlet_plate(pen, colour)
    pen.polygon(
        [(0.5, -0.1), (0.56, 0.3), (0.46, 0.5), (0.6, 0.66), (0.56, 1.1), (1.1, 1.1), (1.1, -0.1)],
        (34, 30, 28),
    )
    for y, hue in ((0.3, (206, 120, 40)), (0.52, (120, 84, 50)), (0.7, (206, 120, 40))):
        wiggle = float(random.uniform(-0.12, 0.12))
        pen.line([(0.62, y), (0.76, y + wiggle), (0.92, y - 0.1)], hue, 0.09)
    pen.line([(0.52, 0.2), (0.36, 0.3), (0.2, 0.12)], (60, 58, 56), 0.05)


def _fusebox_frame(pen: Pen, colour: RGB) -> None:
    outline = shade(colour, 0.5) if max(colour) > 70 else (96, 96, 100)
    pen.rectangle(0.0, 0.0, 1.0, 1.0, outline)
    pen.rectangle(0.03, 0.025, 0.97, 0.975, colour)


def _fusebox_closed(pen: Pen, colour: RGB, random: np.random.Generator) -> None:
    _fusebox_frame(pen, colour)
    edge = shade(colour, 0.72) if max(colour) > 70 else (70, 70, 76)
    pen.rectangle(0.1, 0.08, 0.9, 0.92, edge)
    pen.rectangle(0.12, 0.095, 0.9, 0.92, shade(colour, 1.04))
    pen.polygon([(0.5, 0.2), (0.76, 0.6), (0.24, 0.6)], (30, 30, 30))
    pen.polygon([(0.5, 0.265), (0.69, 0.57), (0.31, 0.57)], (246, 206, 30))
    bolt = [(0.53, 0.31), (0.43, 0.46), (0.5, 0.46), (0.46, 0.55), (0.57, 0.42), (0.5, 0.42)]
    pen.polygon(bolt, (20, 20, 20))
    pen.ellipse(0.82, 0.74, 0.045, 0.04, (40, 40, 44))
    for y in (0.72, 0.77, 0.82):
        pen.rectangle(0.24, y, 0.64, y + 0.02, edge)


def _fusebox_open(pen: Pen, colour: RGB, random: np.random.Generator) -> None:
    outline = shade(colour, 0.5) if max(colour) > 70 else (96, 96, 100)
    pen.polygon([(0.0, 0.0), (0.36, 0.06), (0.36, 0.94), (0.0, 1.0)], outline)
    pen.polygon([(0.02, 0.03), (0.35, 0.08), (0.35, 0.92), (0.02, 0.97)], shade(colour, 0.85))
    pen.rectangle(0.36, 0.06, 1.0, 0.94, outline)
    pen.rectangle(0.375, 0.075, 0.985, 0.925, colour)
    pen.rectangle(0.44, 0.13, 0.93, 0.87, (58, 60, 64))
    for row in (0.18, 0.42, 0.66):
        for column in range(5):
            x = 0.47 + 0.09 * column
            up = 0.02 if random.random() < 0.7 else 0.08
            pen.rectangle(x, row, x + 0.07, row + 0.16, (222, 222, 216))
            pen.rectangle(x + 0.018, row + up, x + 0.052, row + up + 0.06, (40, 42, 48))


def _sign_figure(pen: Pen, board: RGB, figure: RGB) -> None:
    pen.rounded((0.0, 0.0, 1.0, 1.0), 0.08, shade(board, 0.5))
    pen.rounded((0.02, 0.04, 0.98, 0.96), 0.06, board)
    pen.ellipse(0.3, 0.24, 0.045, 0.09, figure)
    pen.line([(0.3, 0.38), (0.26, 0.58), (0.34, 0.7), (0.3, 0.88)], figure, 0.1)
    pen.line([(0.26, 0.58), (0.18, 0.74), (0.1, 0.76)], figure, 0.09)
    pen.line([(0.14, 0.5), (0.2, 0.38), (0.3, 0.4), (0.36, 0.52), (0.42, 0.48)], figure, 0.08)
    pen.rectangle(0.52, 0.43, 0.78, 0.57, figure)
    pen.polygon([(0.74, 0.24), (0.93, 0.5), (0.74, 0.76)], figure)


def _sign_lit(pen: Pen, colour: RGB, random: np.random.Generator) -> None:
    _sign_figure(pen, (24, 196, 92), (250, 255, 250))


def _sign_dark(pen: Pen, colour: RGB, random: np.random.Generator) -> None:
    _sign_figure(pen, (44, 58, 50), (104, 116, 108))


def _detector_disc(pen: Pen, y: float, half_height: float, colour: RGB) -> None:
    pen.ellipse(0.5, y, 0.5, half_height, (116, 116, 114))
    pen.ellipse(0.5, y - 0.1 * half_height, 0.48, 0.9 * half_height, colour)
    pen.ellipse(0.5, y + 0.1 * half_height, 0.34, 0.62 * half_height, (128, 128, 126))
    pen.ellipse(0.5, y + 0.04 * half_height, 0.32, 0.58 * half_height, shade(colour, 1.04))
    pen.ellipse(0.5, y + 0.06 * half_height, 0.14, 0.26 * half_height, (84, 86, 88))
    pen.ellipse(0.7, y + 0.04 * half_height, 0.05, 0.1 * half_height, (226, 40, 32))


def _detector_fixed(pen: Pen, colour: RGB, random: np.random.Generator) -> None:
    _detector_disc(pen, 0.5, 0.49, colour)


def _detector_hanging(pen: Pen, colour: RGB, random: np.random.Generator) -> None:
    pen.ellipse(0.5, 0.14, 0.4, 0.14, (110, 110, 108))
    pen.ellipse(0.5, 0.13, 0.36, 0.11, (190, 190, 186))
    pen.ellipse(0.5, 0.14, 0.22, 0.07, (58, 58, 60))
    for x, hue in ((0.44, (190, 60, 40)), (0.56, (40, 40, 44))):
        pen.line([(x, 0.14), (1 - x, 0.36), (x, 0.56)], hue, 0.06)
    _detector_disc(pen, 0.72, 0.28, colour)


def _case(pen: Pen, colour: RGB, top: float) -> None:
    outline = shade(colour, 0.55) if max(colour) > 70 else (92, 92, 96)
    pen.rounded((0.0, top, 1.0, 1.0), 0.1, outline)
    pen.rounded((0.02, top + 0.025, 0.98, 0.975), 0.09, colour)
    cross = (206, 36, 34) if is_light(colour) else (248, 248, 246)
    middle, arm = (top + 1.0) / 2, (1.0 - top) * 0.36
    pen.rectangle(0.5 - 0.08, middle - arm, 0.5 + 0.08, middle + arm, cross)
    pen.rectangle(0.5 - arm * 0.8, middle - 0.1, 0.5 + arm * 0.8, middle + 0.1, cross)


def _kit_closed(pen: Pen, colour: RGB, random: np.random.Generator) -> None:
    pen.line([(0.36, 0.2), (0.38, 0.05), (0.62, 0.05), (0.64, 0.2)], _DARK, 0.08)
    _case(pen, colour, 0.16)
    for x in (0.1, 0.8):
        pen.rectangle(x, 0.14, x + 0.1, 0.26, _STEEL)


def _kit_open(pen: Pen, colour: RGB, random: np.random.Generator) -> None:
    outline = shade(colour, 0.5) if max(colour) > 70 else (92, 92, 96)
    pen.polygon([(0.1, 0.0), (0.9, 0.0), (1.0, 0.4), (0.0, 0.4)], outline)
    pen.polygon([(0.12, 0.02), (0.88, 0.02), (0.95, 0.32), (0.05, 0.32)], shade(colour, 0.8))
    pen.polygon([(0.04, 0.3), (0.96, 0.3), (1.0, 0.46), (0.0, 0.46)], (52, 50, 48))
    for x, hue in ((0.12, (244, 240, 226)), (0.36, (90, 150, 190)), (0.6, (226, 190, 150))):
        pen.rounded((x, float(random.uniform(0.18, 0.26)), x + 0.2, 0.5), 0.05, hue)
    _case(pen, colour, 0.44)


def _extinguisher_loose(pen: Pen, colour: RGB, random: np.random.Generator) -> None:
    _cylinder(pen, colour, random)


_UPRIGHT, _TIPPED = (-4.0, 4.0), (78.0, 102.0)
FORMS: dict[str, dict[bool, Form]] = {
    "extinguisher": {
        True: Form(WALL, 0.5, 1.15, _UPRIGHT, _extinguisher_hung),
        False: Form(FLOOR, 0.5, 1.15, _TIPPED, _extinguisher_loose),
    },
    "helmet": {
        True: Form(FLOOR, 1.45, 0.9, (-8.0, 8.0), _dome),
        False: Form(FLOOR, 1.45, 0.9, (-10.0, 10.0), _helmet_upside_down),
    },
    "cone": {
        True: Form(FLOOR, 0.78, 1.1, _UPRIGHT, _cone),
        False: Form(FLOOR, 0.78, 1.1, _TIPPED, _cone),
    },
    "ladder": {
        True: Form(FLOOR, 0.42, 1.9, (-9.0, 9.0), _ladder),
        False: Form(FLOOR, 0.42, 1.7, _TIPPED, _ladder),
    },
    "outlet": {
        True: Form(WALL, 1.75, 0.8, _UPRIGHT, _outlet, (0.3, 1.0)),
        False: Form(WALL, 1.75, 0.8, _UPRIGHT, _outlet_broken, (0.3, 1.0)),
    },
    "fusebox": {
        True: Form(WALL, 0.82, 1.1, (-2.0, 2.0), _fusebox_closed),
        False: Form(WALL, 1.15, 1.25, (-2.0, 2.0), _fusebox_open),
    },
    "sign": {
        True: Form(WALL, 2.0, 1.15, _UPRIGHT, _sign_lit, (0.0, 0.6)),
        False: Form(WALL, 2.0, 1.15, _UPRIGHT, _sign_dark, (0.0, 0.6)),
    },
    "detector": {
        True: Form(CEILING, 1.7, 0.85, (-6.0, 6.0), _detector_fixed),
        False: Form(CEILING, 0.95, 1.0, (-5.0, 5.0), _detector_hanging),
    },
    "kit": {
        True: Form(WALL, 1.3, 0.95, _UPRIGHT, _kit_closed),
        False: Form(WALL, 1.1, 1.05, _UPRIGHT, _kit_open),
    },
}
