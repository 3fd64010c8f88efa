"""The empty room: one-point perspective geometry, and its walls, floor and ceiling."""

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipes.quickstart.training.sprite import Box, Picture, fill, shade, stroke
from recipes.quickstart.training.words import RGB


@dataclass(frozen=True, slots=True)
class Room:
    """A box seen from inside. Pixels; `near` is its cross-section at the picture's plane.

    `back` is the far wall; both rectangles are scaled about the vanishing point. `roll_deg` turns
    everything about the picture's centre.
    """

    width: int
    height: int
    vanishing: tuple[float, float]
    near: Box
    back: Box
    roll_deg: float

    def turn(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Level pixel coordinates (n, 2) as the rolled camera sees them."""
        angle = np.deg2rad(self.roll_deg)
        matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        centre = np.array([self.width / 2, self.height / 2])
        turned: NDArray[np.float64] = (points - centre) @ matrix + centre
        return turned

    def at(self, x: float, y: float, depth: float) -> tuple[float, float]:
        """A point of the near plane pushed back: depth 0 is near, 1 is the far wall."""
        far = (self.back[2] - self.back[0]) / (self.near[2] - self.near[0])
        scale = 1 / (1 + depth * (1 / far - 1))
        vx, vy = self.vanishing
        return vx + scale * (x - vx), vy + scale * (y - vy)

    def wall_span(self, x: float) -> tuple[float, float]:
        """The top and bottom of whatever wall stands at a level column x."""
        vx, vy = self.vanishing
        if x < self.back[0]:
            scale = (vx - x) / (vx - self.back[0])
        elif x > self.back[2]:
            scale = (x - vx) / (self.back[2] - vx)
        else:
            scale = 1.0
        return vy + scale * (self.back[1] - vy), vy + scale * (self.back[3] - vy)

    def side(self, x: float) -> int:
        """Which wall stands at a level column: -1 left, 0 far, 1 right."""
        return -1 if x < self.back[0] else int(x > self.back[2])


def choose_room(width: int, height: int, random: np.random.Generator) -> Room:
    """A random room for a picture of the given size."""
    vx, vy = width * random.uniform(0.3, 0.7), height * random.uniform(0.38, 0.54)
    far = random.uniform(0.5, 0.78)
    near_top = -height * random.uniform(0.0, 0.3)
    near_bottom = height * random.uniform(1.0, 1.16)
    near = (-0.04 * width, near_top, 1.04 * width, near_bottom)
    back = (
        vx + far * (near[0] - vx),
        vy + far * (near[1] - vy),
        vx + far * (near[2] - vx),
        vy + far * (near[3] - vy),
    )
    roll = float(random.normal(0, 1.2)) if random.random() < 0.5 else 0.0
    return Room(width, height, (vx, vy), near, back, float(np.clip(roll, -3, 3)))


def muted(random: np.random.Generator, lightness: tuple[float, float], strength: float) -> RGB:
    """A quiet colour of random hue."""
    red, green, blue = colorsys.hls_to_rgb(
        random.random(), random.uniform(*lightness), random.uniform(0, strength)
    )
    return int(red * 255), int(green * 255), int(blue * 255)


def brown(random: np.random.Generator, lightness: tuple[float, float] = (0.25, 0.6)) -> RGB:
    """The colour of some wood."""
    red, green, blue = colorsys.hls_to_rgb(
        random.uniform(0.05, 0.11), random.uniform(*lightness), random.uniform(0.2, 0.5)
    )
    return int(red * 255), int(green * 255), int(blue * 255)


class _Shell:
    """Paints one room's surfaces on one picture."""

    def __init__(self, picture: Picture, room: Room, random: np.random.Generator) -> None:
        self.picture, self.room, self.random = picture, room, random

    def quad(self, points: list[tuple[float, float]], colour: RGB) -> None:
        fill(self.picture, self.room.turn(np.array(points)), colour)

    def line(self, points: list[tuple[float, float]], colour: RGB, width: int = 1) -> None:
        stroke(self.picture, self.room.turn(np.array(points)), colour, width)

    def floor(self) -> None:
        room, random = self.room, self.random
        x0, _, x1, y1 = room.near
        x0, x1 = x0 - 0.2 * room.width, x1 + 0.2 * room.width
        pattern = random.choice(["plain", "tiles", "checks", "planks"], p=[0.15, 0.3, 0.2, 0.35])
        base = brown(random) if pattern == "planks" else muted(random, (0.3, 0.7), 0.25)
        near, far = -0.3, 1.0
        y_near = room.at(0, y1, near)[1]
        self.quad(
            [
                (-0.3 * room.width, room.back[3]),
                (1.3 * room.width, room.back[3]),
                (1.3 * room.width, y_near + 0.3 * room.height),
                (-0.3 * room.width, y_near + 0.3 * room.height),
            ],
            base,
        )
        columns = int(random.integers(6, 15))
        xs = np.linspace(x0, x1, columns + 1)
        depths = np.linspace(near, far, int(random.integers(5, 12)))
        if pattern in ("checks", "planks"):
            other = shade(base, float(random.uniform(0.6, 0.85)))
            for column in range(columns):
                for row in range(len(depths) - 1):
                    if pattern == "checks":
                        if (row + column) % 2:
                            continue
                        tone = other
                    else:
                        tone = shade(base, 0.9 + 0.2 * float(random.random()))
                    a, b = float(xs[column]), float(xs[column + 1])
                    d, e = float(depths[row]), float(depths[row + 1])
                    corners = [room.at(a, y1, d), room.at(b, y1, d), room.at(b, y1, e)]
                    self.quad([*corners, room.at(a, y1, e)], tone)
        if pattern in ("tiles", "planks"):
            seam = shade(base, 0.72)
            for x in xs:
                self.line([room.at(float(x), y1, near), room.at(float(x), y1, far)], seam)
            for depth in depths if pattern == "tiles" else ():
                self.line([room.at(x0, y1, float(depth)), room.at(x1, y1, float(depth))], seam)

    def ceiling(self) -> None:
        room, random = self.room, self.random
        base = muted(random, (0.66, 0.86), 0.15)
        width, height = room.width, room.height
        top = min(room.near[1], 0.0) - 0.3 * height
        self.quad(
            [
                (-0.3 * width, top),
                (1.3 * width, top),
                (1.3 * width, room.back[1]),
                (-0.3 * width, room.back[1]),
            ],
            base,
        )
        if random.random() < 0.3:
            for x in np.linspace(room.near[0], room.near[2], int(random.integers(4, 10))):
                ends = [room.at(float(x), room.near[1], -0.2), room.at(float(x), room.near[1], 1)]
                self.line(ends, shade(base, 0.88))

    def walls(self) -> None:
        room, random = self.room, self.random
        base = muted(random, (0.45, 0.82), 0.34)
        bx0, by0, bx1, by1 = room.back
        nx0, ny0, nx1, ny1 = room.near
        sides = shade(base, float(random.uniform(0.8, 0.94))), shade(base, random.uniform(0.84, 1))
        lower = shade(base, float(random.uniform(0.6, 0.85))) if random.random() < 0.25 else None
        split = float(random.uniform(0.5, 0.66))
        split_near, split_back = ny0 + split * (ny1 - ny0), by0 + split * (by1 - by0)
        for near_x, back_x, paint in ((nx0, bx0, sides[0]), (nx1, bx1, sides[1])):
            a, b = room.at(near_x, ny0, -0.3), room.at(near_x, ny1, -0.3)
            self.quad([a, (back_x, by0), (back_x, by1), b], paint)
            if lower is not None:
                middle = room.at(near_x, split_near, -0.3)
                self.quad([middle, (back_x, split_back), (back_x, by1), b], shade(lower, 0.92))
        self.quad([(bx0, by0), (bx1, by0), (bx1, by1), (bx0, by1)], base)
        if lower is None:
            self.wallpaper(base)
        else:
            self.quad([(bx0, split_back), (bx1, split_back), (bx1, by1), (bx0, by1)], lower)
            self.line([(bx0, split_back), (bx1, split_back)], shade(base, 0.5), 2)
        self.edges(base)

    def wallpaper(self, base: RGB) -> None:
        room, random = self.room, self.random
        bx0, by0, bx1, by1 = room.back
        pattern = random.choice(["plain", "stripes", "tiles", "bricks"], p=[0.4, 0.25, 0.2, 0.15])
        tone = shade(base, float(random.uniform(0.84, 0.94)))
        if pattern == "stripes":
            for x in np.linspace(bx0, bx1, int(random.integers(9, 30)))[:-1:2]:
                width = (bx1 - bx0) / 40
                self.quad([(x, by0), (x + width, by0), (x + width, by1), (x, by1)], tone)
        elif pattern != "plain":
            rows = int(random.integers(6, 16))
            ys = np.linspace(by0, by1, rows + 1)
            step = (ys[1] - ys[0]) * (2.2 if pattern == "bricks" else 1.0)
            for y in ys:
                self.line([(bx0, float(y)), (bx1, float(y))], tone)
            for row in range(rows):
                offset = step / 2 if pattern == "bricks" and row % 2 else 0.0
                for x in np.arange(bx0 + offset, bx1, step):
                    self.line([(float(x), float(ys[row])), (float(x), float(ys[row + 1]))], tone)

    def edges(self, base: RGB) -> None:
        room = self.room
        bx0, by0, bx1, by1 = room.back
        nx0, ny0, nx1, ny1 = room.near
        dark = shade(base, 0.66)
        board = shade(base, float(self.random.choice([0.5, 1.3])))
        thick = max(2, room.height // 90)
        for near_x, back_x in ((nx0, bx0), (nx1, bx1)):
            self.line([(back_x, by0), (back_x, by1)], dark)
            self.line([room.at(near_x, ny0, -0.3), (back_x, by0)], dark)
            self.line([room.at(near_x, ny1, -0.3), (back_x, by1)], board, thick + 1)
        self.line([(bx0, by0), (bx1, by0)], dark)
        self.line([(bx0, by1), (bx1, by1)], board, thick)


def paint_room(picture: Picture, room: Room, random: np.random.Generator) -> None:
    """Paint the floor, ceiling and walls over the whole RGB picture (h, w, 3)."""
    shell = _Shell(picture, room, random)
    shell.floor()
    shell.ceiling()
    shell.walls()
