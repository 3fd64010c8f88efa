"""Furniture and clutter that no question is about, some of it much like the equipment."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recipes.quickstart.training.rooms import brown, muted
from recipes.quickstart.training.sprite import Pen, Picture, shade
from recipes.quickstart.training.words import PALETTE, RGB

Draw = Callable[[Pen, np.random.Generator], None]


@dataclass(frozen=True, slots=True)
class Item:
    """One drawing of clutter. `resembles` is the kind of equipment that it may be taken for.

    `aspect` is width / height; `size` the longer side, against the picture's shorter side for
    furniture and against the scene's base size for the rest.
    """

    aspect: float
    size: float
    draw: Draw
    resembles: str | None = None


def sketch(item: Item, longest: float, random: np.random.Generator) -> Picture:
    """Draw an item at a little more than the pixels it will be seen at."""
    height = max(48.0, 1.3 * longest) / max(1.0, item.aspect)
    pen = Pen(max(8, round(height * item.aspect)), max(8, round(height)))
    item.draw(pen, random)
    return pen.canvas


def _vivid(random: np.random.Generator) -> RGB:
    names = list(PALETTE)
    return shade(PALETTE[names[int(random.integers(len(names)))]], float(random.uniform(0.7, 1)))


def _window(pen: Pen, random: np.random.Generator) -> None:
    frame = shade((236, 234, 228), float(random.uniform(0.6, 1)))
    sky = [(186, 214, 236), (236, 226, 196), (60, 72, 104), (206, 212, 216)]
    glass = sky[int(random.integers(len(sky)))]
    pen.rectangle(0, 0, 1, 1, shade(frame, 0.7))
    pen.rectangle(0.015, 0.02, 0.985, 0.98, frame)
    pen.rectangle(0.06, 0.07, 0.94, 0.93, glass)
    hill = shade((96, 130, 84), float(random.uniform(0.5, 1.2)))
    low = float(random.uniform(0.5, 0.85))
    pen.polygon(
        [(0.06, low), (0.4, low - 0.12), (0.94, low + 0.05), (0.94, 0.93), (0.06, 0.93)], hill
    )
    for x in np.linspace(0, 1, int(random.integers(3, 5)))[1:-1]:
        pen.rectangle(float(x) - 0.015, 0.05, float(x) + 0.015, 0.95, frame)
    if random.random() < 0.4:
        pen.rectangle(0.05, 0.36, 0.95, 0.39, frame)
    if random.random() < 0.5:
        cloth = muted(random, (0.4, 0.8), 0.5)
        for x in (0.0, 0.84):
            for fold in range(4):
                left = x + 0.04 * fold
                pen.rectangle(left, 0, left + 0.04, 1, shade(cloth, 0.86 if fold % 2 else 1))


def _door(pen: Pen, random: np.random.Generator) -> None:
    wood = brown(random, (0.3, 0.7)) if random.random() < 0.6 else muted(random, (0.4, 0.85), 0.3)
    pen.rectangle(0, 0, 1, 1, shade(wood, 0.6))
    pen.rectangle(0.06, 0.03, 0.94, 1, wood)
    panels = [(0.1, 0.5), (0.56, 0.94)] if random.random() < 0.6 else [(0.08, 0.3), (0.36, 0.94)]
    for top, bottom in panels:
        pen.rectangle(0.18, top, 0.82, bottom, shade(wood, 0.8))
        pen.rectangle(0.2, top + 0.01, 0.82, bottom, shade(wood, 1.07))
    pen.ellipse(0.86, 0.53, 0.035, 0.016, (200, 190, 150))


def _table(pen: Pen, random: np.random.Generator) -> None:
    wood = brown(random)
    for x in (0.04, 0.88):
        pen.rectangle(x, 0.1, x + 0.07, 1, shade(wood, 0.7))
    if random.random() < 0.4:
        pen.rectangle(0.6, 0.1, 0.93, 0.7, shade(wood, 0.85))
        pen.rectangle(0.62, 0.16, 0.91, 0.4, wood)
        pen.rectangle(0.62, 0.43, 0.91, 0.67, wood)
    pen.rectangle(0, 0, 1, 0.11, wood)
    pen.rectangle(0, 0.09, 1, 0.13, shade(wood, 0.6))


def _shelf(pen: Pen, random: np.random.Generator) -> None:
    wood = brown(random)
    pen.rectangle(0, 0, 1, 1, wood)
    rows = int(random.integers(3, 5))
    for row in range(rows):
        top, bottom = 0.04 + 0.95 * row / rows, 0.04 + 0.95 * (row + 1) / rows - 0.04
        pen.rectangle(0.05, top, 0.95, bottom, shade(wood, 0.5))
        x = 0.07
        while x < 0.8 * float(random.uniform(0.5, 1.1)):
            width = float(random.uniform(0.03, 0.08))
            height = (bottom - top) * float(random.uniform(0.6, 0.95))
            pen.rectangle(x, bottom - height, x + width, bottom, muted(random, (0.25, 0.75), 0.6))
            x += width + 0.008


def _sofa(pen: Pen, random: np.random.Generator) -> None:
    cloth = muted(random, (0.25, 0.65), 0.5)
    pen.rounded((0.05, 0, 0.95, 0.8), 0.15, shade(cloth, 0.85))
    pen.rounded((0.09, 0.42, 0.5, 0.72), 0.08, cloth)
    pen.rounded((0.5, 0.42, 0.91, 0.72), 0.08, shade(cloth, 1.05))
    pen.rounded((0.03, 0.68, 0.97, 0.93), 0.05, shade(cloth, 0.75))
    for x in (0.0, 0.88):
        pen.rounded((x, 0.28, x + 0.12, 0.94), 0.1, shade(cloth, 0.95))
    for x in (0.06, 0.9):
        pen.rectangle(x, 0.93, x + 0.04, 1, (50, 40, 34))
    if random.random() < 0.6:
        pen.rounded((0.16, 0.24, 0.32, 0.56), 0.08, muted(random, (0.3, 0.8), 0.6))


def _bed(pen: Pen, random: np.random.Generator) -> None:
    wood, cloth = brown(random), muted(random, (0.4, 0.85), 0.5)
    pen.rectangle(0, 0, 0.06, 1, wood)
    pen.rectangle(0.94, 0.4, 1, 1, wood)
    pen.rectangle(0.04, 0.7, 0.96, 0.9, shade(wood, 0.8))
    pen.rounded((0.05, 0.44, 0.95, 0.76), 0.06, (224, 222, 216))
    pen.rounded((0.3, 0.4, 0.955, 0.84), 0.06, cloth)
    pen.rounded((0.3, 0.4, 0.4, 0.84), 0.06, shade(cloth, 1.15))
    pen.rounded((0.07, 0.28, 0.27, 0.5), 0.1, (240, 238, 232))


def _cabinet(pen: Pen, random: np.random.Generator) -> None:
    paint = brown(random) if random.random() < 0.5 else muted(random, (0.4, 0.8), 0.3)
    pen.rectangle(0, 0, 1, 1, shade(paint, 0.7))
    pen.rectangle(0, 0, 1, 0.06, shade(paint, 1.1))
    for left, right in ((0.03, 0.49), (0.51, 0.97)):
        pen.rectangle(left, 0.09, right, 0.94, paint)
    for x in (0.44, 0.54):
        pen.rectangle(x, 0.45, x + 0.02, 0.6, shade(paint, 0.4))


def _radiator(pen: Pen, random: np.random.Generator) -> None:
    paint = shade((226, 224, 216), float(random.uniform(0.75, 1)))
    pen.rectangle(0, 0.1, 1, 0.92, shade(paint, 0.62))
    ribs = int(random.integers(8, 14))
    for rib in range(ribs):
        pen.rounded((rib / ribs + 0.01, 0, (rib + 0.8) / ribs, 1), 0.05, paint)


def _picture(pen: Pen, random: np.random.Generator) -> None:
    pen.rectangle(0, 0, 1, 1, brown(random, (0.12, 0.5)))
    pen.rectangle(0.06, 0.07, 0.94, 0.93, (226, 222, 210))
    pen.rectangle(0.13, 0.15, 0.87, 0.85, muted(random, (0.5, 0.8), 0.6))
    for _ in range(int(random.integers(2, 5))):
        x, y = random.uniform(0.25, 0.75, 2)
        rx, ry = random.uniform(0.05, 0.12, 2)
        pen.ellipse(float(x), float(y), float(rx), float(ry), muted(random, (0.2, 0.7), 0.7))


def _clock(pen: Pen, random: np.random.Generator) -> None:
    pen.ellipse(0.5, 0.5, 0.5, 0.5, muted(random, (0.1, 0.4), 0.4))
    pen.ellipse(0.5, 0.5, 0.42, 0.42, (240, 238, 228))
    for hour in range(12):
        angle = hour * np.pi / 6
        x, y = float(np.cos(angle)), float(np.sin(angle))
        pen.line(
            [(0.5 + 0.33 * x, 0.5 + 0.33 * y), (0.5 + 0.4 * x, 0.5 + 0.4 * y)], (40,) * 3, 0.03
        )
    for length in (0.2, 0.31):
        angle = float(random.uniform(0, 2 * np.pi))
        tip = (0.5 + length * float(np.cos(angle)), 0.5 + length * float(np.sin(angle)))
        pen.line([(0.5, 0.5), tip], (20, 20, 24), 0.05)


def _switch(pen: Pen, random: np.random.Generator) -> None:
    plate = shade((236, 234, 226), float(random.uniform(0.85, 1)))
    pen.rounded((0, 0, 1, 1), 0.1, (130, 130, 126))
    pen.rounded((0.03, 0.03, 0.97, 0.97), 0.09, plate)
    pen.rectangle(0.28, 0.2, 0.72, 0.8, shade(plate, 0.7))
    pen.rectangle(0.3, 0.22, 0.7, 0.5, shade(plate, 1.05))
    pen.rectangle(0.3, 0.5, 0.7, 0.78, shade(plate, 0.85))


def _ceiling_lamp(pen: Pen, random: np.random.Generator) -> None:
    pen.ellipse(0.5, 0.34, 0.5, 0.3, (140, 120, 84))
    pen.ellipse(0.5, 0.42, 0.46, 0.5, (255, 240, 190), (0, 180))
    pen.ellipse(0.5, 0.42, 0.46, 0.16, (255, 250, 226))


def _vase(pen: Pen, random: np.random.Generator) -> None:
    paint = _vivid(random)
    for _ in range(5):
        x, y = float(random.uniform(0.1, 0.9)), float(random.uniform(0.06, 0.26))
        pen.line([(0.5, 0.5), (x, y)], (60, 120, 56), 0.05)
        pen.ellipse(x, y, 0.12, 0.06, muted(random, (0.5, 0.8), 0.9))
    pen.ellipse(0.5, 0.74, 0.4, 0.25, paint)
    pen.rectangle(0.36, 0.42, 0.64, 0.6, shade(paint, 0.9))
    pen.ellipse(0.5, 0.42, 0.2, 0.03, shade(paint, 1.2))
    pen.ellipse(0.36, 0.7, 0.07, 0.1, shade(paint, 1.35))


def _bottle(pen: Pen, random: np.random.Generator) -> None:
    glass = _vivid(random)
    pen.polygon([(0.36, 0.05), (0.64, 0.05), (0.66, 0.3), (1, 0.45), (0, 0.45), (0.34, 0.3)], glass)
    pen.rounded((0, 0.4, 1, 1), 0.15, glass)
    pen.rectangle(0.32, 0, 0.68, 0.07, shade(glass, 0.5))
    pen.rectangle(0.14, 0.48, 0.26, 0.9, shade(glass, 1.4))


def _bucket(pen: Pen, random: np.random.Generator) -> None:
    paint = _vivid(random)
    pen.line([(0.04, 0.22), (0.2, 0.02), (0.8, 0.02), (0.96, 0.22)], (110, 112, 116), 0.04)
    pen.polygon([(0, 0.2), (1, 0.2), (0.8, 1), (0.2, 1)], paint)
    pen.polygon([(0.6, 0.2), (1, 0.2), (0.8, 1), (0.56, 1)], shade(paint, 0.8))
    pen.ellipse(0.5, 0.2, 0.5, 0.1, shade(paint, 0.6))
    pen.ellipse(0.5, 0.215, 0.45, 0.075, shade(paint, 0.35))


def _ball(pen: Pen, random: np.random.Generator) -> None:
    paint = _vivid(random)
    pen.ellipse(0.5, 0.5, 0.5, 0.5, shade(paint, 0.7))
    pen.ellipse(0.46, 0.45, 0.44, 0.44, paint)
    pen.ellipse(0.34, 0.3, 0.12, 0.1, shade(paint, 1.5))


def _box(pen: Pen, random: np.random.Generator) -> None:
    card = brown(random, (0.5, 0.7))
    pen.polygon([(0.12, 0), (1, 0), (0.86, 0.18), (0, 0.18)], shade(card, 1.12))
    pen.polygon([(0.86, 0.18), (1, 0), (1, 0.8), (0.86, 1)], shade(card, 0.74))
    pen.rectangle(0, 0.18, 0.86, 1, card)
    pen.rectangle(0.38, 0.18, 0.48, 1, shade(card, 1.1))


def _suitcase(pen: Pen, random: np.random.Generator) -> None:
    paint = _vivid(random)
    pen.line([(0.36, 0.2), (0.38, 0.04), (0.62, 0.04), (0.64, 0.2)], (50, 44, 40), 0.07)
    pen.rounded((0, 0.16, 1, 1), 0.12, shade(paint, 0.6))
    pen.rounded((0.02, 0.18, 0.98, 0.98), 0.1, paint)
    for x in (0.16, 0.76):
        pen.rectangle(x, 0.17, x + 0.08, 0.99, shade(paint, 0.66))


def _plant(pen: Pen, random: np.random.Generator) -> None:
    for _ in range(11):
        angle = float(random.uniform(-2.5, -0.6))
        x, y = 0.5 + 0.46 * float(np.cos(angle)), 0.58 + 0.54 * float(np.sin(angle))
        leaf = shade((52, 122, 58), float(random.uniform(0.6, 1.3)))
        pen.polygon([(0.46, 0.68), (x - 0.09, y + 0.1), (x, y), (x + 0.07, y + 0.12)], leaf)
    pot = brown(random, (0.3, 0.5))
    pen.polygon([(0.22, 0.66), (0.78, 0.66), (0.7, 1), (0.3, 1)], pot)
    pen.rectangle(0.19, 0.64, 0.81, 0.72, shade(pot, 1.15))


def _chair(pen: Pen, random: np.random.Generator) -> None:
    wood = brown(random) if random.random() < 0.6 else muted(random, (0.2, 0.6), 0.6)
    for x in (0.1, 0.8):
        pen.rectangle(x, 0.0, x + 0.09, 1, shade(wood, 0.8))
    for y in (0.04, 0.2):
        pen.rectangle(0.1, y, 0.89, y + 0.09, wood)
    pen.polygon([(0.12, 0.5), (0.88, 0.5), (1, 0.62), (0, 0.62)], shade(wood, 1.15))
    for x in (0.0, 0.91):
        pen.rectangle(x, 0.6, x + 0.09, 0.99, wood)


def _standing_lamp(pen: Pen, random: np.random.Generator) -> None:
    cloth = muted(random, (0.55, 0.85), 0.5)
    pen.rectangle(0.47, 0.28, 0.53, 0.96, (70, 62, 54))
    pen.ellipse(0.5, 0.96, 0.3, 0.035, (60, 54, 48))
    pen.polygon([(0.26, 0.0), (0.74, 0.0), (1, 0.3), (0, 0.3)], cloth)
    pen.polygon([(0.5, 0.0), (0.74, 0.0), (1, 0.3), (0.62, 0.3)], shade(cloth, 0.88))


OPENINGS: tuple[Item, ...] = (Item(1.3, 0.42, _window), Item(0.85, 0.4, _window))
DOORS: tuple[Item, ...] = (Item(0.46, 0.6, _door),)
FURNITURE: tuple[Item, ...] = (
    Item(1.9, 0.5, _table),
    Item(0.8, 0.52, _shelf, "ladder"),
    Item(2.1, 0.56, _sofa),
    Item(2.3, 0.6, _bed),
    Item(1.1, 0.34, _cabinet, "fusebox"),
    Item(1.6, 0.3, _radiator),
)
WITH_TOPS: tuple[Draw, ...] = (_table, _cabinet)
WALL_CLUTTER: tuple[Item, ...] = (
    Item(1.25, 1.1, _picture, "sign"),
    Item(0.8, 1.1, _picture, "fusebox"),
    Item(1.0, 0.8, _clock, "detector"),
    Item(0.85, 0.5, _switch, "outlet"),
)
CEILING_CLUTTER: tuple[Item, ...] = (Item(1.8, 1.1, _ceiling_lamp, "detector"),)
FLOOR_CLUTTER: tuple[Item, ...] = (
    Item(0.55, 1.0, _vase, "extinguisher"),
    Item(0.36, 0.85, _bottle, "extinguisher"),
    Item(0.95, 0.75, _bucket, "cone"),
    Item(1.0, 0.65, _ball, "helmet"),
    Item(1.15, 0.9, _box, "kit"),
    Item(1.3, 0.9, _suitcase, "kit"),
    Item(0.8, 1.3, _plant),
    Item(0.62, 1.6, _chair, "ladder"),
    Item(0.42, 1.9, _standing_lamp, "cone"),
)
SCREENS: tuple[Item, ...] = (Item(1.15, 0.9, _box), Item(0.8, 1.3, _plant))
