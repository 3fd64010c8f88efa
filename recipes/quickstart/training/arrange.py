"""Where things go in a room so that each is seen whole, and furnishing it with clutter."""

from collections.abc import Sequence

import numpy as np

from recipes.quickstart.training import clutter
from recipes.quickstart.training.equipment import CEILING, FLOOR, WALL
from recipes.quickstart.training.rooms import Room
from recipes.quickstart.training.sprite import Box, Picture, Pose, Shadow, put

TOP = "top"
_SIDE_WALL_WIDTH = 0.72


def covered_share(box: Box, by: Box) -> float:
    """The share of a box's area that another box covers."""
    width = min(box[2], by[2]) - max(box[0], by[0])
    height = min(box[3], by[3]) - max(box[1], by[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / ((box[2] - box[0]) * (box[3] - box[1]))


def touches(box: Box, others: Sequence[Box], gap: float) -> bool:
    """Whether a box comes nearer than `gap` pixels to any of the others."""
    grown = (box[0] - gap, box[1] - gap, box[2] + gap, box[3] + gap)
    return any(covered_share(other, grown) > 0 for other in others if other[2] > other[0])


class Arrangement:
    """One room's furniture and things: finds free places, puts sprites there, keeps their boxes."""

    def __init__(self, picture: Picture, room: Room, random: np.random.Generator) -> None:
        self.picture, self.room, self.random = picture, room, random
        self.furniture: list[Box] = []
        self.tops: list[tuple[float, float, float]] = []
        self.clutter: list[Box] = []
        self.kept: list[Box] = []
        self.resembled: list[str] = []

    def place(
        self,
        where: str,
        width: float,
        height: float,
        turns: tuple[float, float],
        band: tuple[float, float] = (0.0, 1.0),
    ) -> Pose | None:
        """A free pose for something of the given upright size in pixels, or None if none is found.

        It keeps clear of everything kept so far and of the clutter, and lies wholly in the picture.
        `band` is the part of a wall's height, from the top, that it may hang in.
        """
        turn = float(self.random.uniform(*turns))
        if abs(turn) > 45 and self.random.random() < 0.5:
            turn = -turn
        for _ in range(24):
            pose = self._try(where, width, height, turn, band)
            if pose is not None and self._free(pose, where):
                return pose
        return None

    def _try(
        self, where: str, width: float, height: float, turn: float, band: tuple[float, float]
    ) -> Pose | None:
        room, random = self.room, self.random
        _, y0, _, y1 = Pose(0, 0, width, height, turn).box()
        tall = y1 - y0
        margin = 0.5 * max(width, height) + 3
        if margin * 2 >= room.width:
            return None
        x = float(random.uniform(margin, room.width - margin))
        lean = 0.0
        if where == TOP:
            if not self.tops:
                return None
            left, right, top = self.tops[int(random.integers(len(self.tops)))]
            if right - left < width:
                return None
            x, y = float(random.uniform(left + width / 2, right - width / 2)), top - tall / 2
        else:
            upper, lower = room.wall_span(x)
            if where == CEILING:
                low, high = 3 + tall / 2, max(upper - 2, 6 + tall)
                y = float(random.uniform(low, max(low, high - tall / 2)))
            elif where == WALL:
                upper, lower = max(upper, 2.0), min(lower, room.height - 2.0)
                if lower - upper < tall * 1.15:
                    return None
                high, low = upper + tall * 0.56, lower - tall * 0.56
                y = high + (low - high) * float(random.uniform(*band))
                side = room.side(x)
                lean = -side * float(random.uniform(0.04, 0.1))
                width *= _SIDE_WALL_WIDTH if side else 1.0
            else:
                low = max(lower + 0.02 * room.height, tall + 3)
                if low > room.height - 4:
                    return None
                y = float(random.uniform(low, room.height - 4)) - tall / 2
        centre = room.turn(np.array([[x, y]]))[0]
        return Pose(float(centre[0]), float(centre[1]), width, height, turn - room.roll_deg, lean)

    def _free(self, pose: Pose, where: str) -> bool:
        box = pose.box()
        if (
            box[0] < 2
            or box[1] < 2
            or box[2] > self.room.width - 2
            or box[3] > self.room.height - 2
        ):
            return False
        gap = max(3.0, 0.08 * (box[3] - box[1]))
        if touches(box, self.kept, gap) or touches(box, self.clutter, 2):
            return False
        # Something on the floor may stand before furniture, never half behind it.
        blocking = [b for b in self.furniture if where == WALL or b[3] > box[3] - 2]
        return where == TOP or not touches(box, blocking, 2)

    def shadow(self, where: str, size: float) -> Shadow:
        """A shadow that suits the place: beside things on a wall, under things on the floor."""
        reach = max(1.0, 0.04 * size)
        if where in (WALL, CEILING):
            return Shadow(reach * float(self.random.uniform(-1, 1)), reach, 0.35)
        return Shadow(reach * float(self.random.uniform(-1.5, 1.5)), reach * 0.6, 0.5)

    def add_clutter(self, item: clutter.Item, where: str, longest: float) -> None:
        """Put one small piece of clutter where it is free, or leave it out."""
        width, height = longest * min(1, item.aspect), longest / max(1, item.aspect)
        turns = (-4.0, 4.0) if where == FLOOR else (-2.0, 2.0)
        pose = self.place(where, width, height, turns)
        if pose is None:
            return
        sprite = clutter.sketch(item, longest, self.random)
        self.clutter.append(put(self.picture, sprite, pose, self.shadow(where, longest)))
        if item.resembles is not None:
            self.resembled.append(item.resembles)

    def furnish(self) -> None:
        """Put windows, perhaps a door, and up to two pieces of furniture along the far wall."""
        room, random = self.room, self.random
        shorter = min(room.width, room.height)
        if random.random() < 0.35:
            self._against_wall(clutter.DOORS[0], shorter, at_floor=True)
        for _ in range(int(random.choice([0, 1, 2], p=[0.35, 0.5, 0.15]))):
            window = clutter.OPENINGS[int(random.integers(len(clutter.OPENINGS)))]
            self._against_wall(window, shorter, at_floor=False)
        for _ in range(int(random.choice([0, 1, 2], p=[0.25, 0.5, 0.25]))):
            piece = clutter.FURNITURE[int(random.integers(len(clutter.FURNITURE)))]
            self._against_wall(piece, shorter, at_floor=True)

    def _against_wall(self, item: clutter.Item, shorter: float, at_floor: bool) -> None:
        room, random = self.room, self.random
        bx0, by0, bx1, by1 = room.back
        longest = item.size * shorter * float(random.uniform(0.75, 1.05))
        width, height = longest * min(1, item.aspect), longest / max(1, item.aspect)
        fit = min(1.0, 0.95 * (bx1 - bx0) / width, 0.92 * (by1 - max(by0, 0)) / height)
        width, height = width * fit, height * fit
        x = float(random.uniform(bx0 + width / 2, bx1 - width / 2))
        if at_floor:
            y = by1 + 0.012 * room.height - height / 2
        else:
            y = by0 + float(random.uniform(0.12, 0.3)) * (by1 - by0) + height / 2
        centre = room.turn(np.array([[x, y]]))[0]
        pose = Pose(float(centre[0]), float(centre[1]), width, height, -room.roll_deg)
        if touches(pose.box(), self.furniture, 0):
            return
        sprite = clutter.sketch(item, max(width, height), random)
        box = put(self.picture, sprite, pose, self.shadow(FLOOR, 0.5 * height))
        self.furniture.append(box)
        if item.draw in clutter.WITH_TOPS:
            self.tops.append((x - 0.46 * width, x + 0.46 * width, y - height / 2 + 0.03 * height))
        if item.resembles is not None:
            self.resembled.append(item.resembles)
