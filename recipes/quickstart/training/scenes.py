"""Scenes for the quickstart model: drawn rooms with safety equipment, and questions about them.

`draw` is a pure function of its seed. OpenCV draws; a caller that draws in several processes
should call `cv2.setNumThreads(1)` in each.
"""

import numpy as np

from recipes.quickstart.training import clutter, equipment, label
from recipes.quickstart.training.arrange import TOP, Arrangement, covered_share, touches
from recipes.quickstart.training.camera import choose_size, expose, light
from recipes.quickstart.training.equipment import CEILING, FLOOR, FORMS, WALL
from recipes.quickstart.training.parts import Question, Scene, Thing
from recipes.quickstart.training.questions import ask
from recipes.quickstart.training.rooms import choose_room, paint_room
from recipes.quickstart.training.sprite import Box, Picture, Pose, put
from recipes.quickstart.training.words import (
    COLOURS,
    EQUIPMENT,
    KINDS,
    LABEL,
    MOST_COUNTED,
    WORDS,
    texts,
)

__all__ = ["COLOURS", "KINDS", "WORDS", "Question", "Scene", "Thing", "draw", "texts"]

# Longer sides in pixels of the equipment, smallest and largest, in small and in large pictures.
SMALL_PIXELS = (36.0, 170.0)
LARGE_PIXELS = (34.0, 72.0)
CLOSE_LARGE_PIXELS = (42.0, 150.0)
# The shorter side may not be less, or a thin thing would vanish.
_LEAST_WIDTH = 22.0
# Heights in pixels of a capital on the label.
SMALL_LETTERS = (14.0, 32.0)
LARGE_LETTERS = (12.0, 16.0)
# Things tried in a crowded scene, three quarters of them labels.
MOST_CROWDED = 48
_CLOSE_SHARE = 0.2
_LABEL_SHARE = 0.75
_OCCLUDED_SHARE = 0.25
_MOST_COVERED = 0.2


def draw(seed: int, *, questions: int = 8, crowded: bool = False) -> Scene:
    """Draw the scene of a seed with at most that many questions; same seed, same bytes.

    A crowded scene has many labels and things in places where none would be, and no questions: a
    picture to learn reading from, since an ordinary one has a single label.
    """
    random = np.random.default_rng(seed)
    (width, height), large = choose_size(random)
    picture: Picture = np.zeros((height, width, 3), np.uint8)
    room = choose_room(width, height, random)
    paint_room(picture, room, random)
    arrangement = Arrangement(picture, room, random)
    arrangement.furnish()
    close = bool(random.random() < _CLOSE_SHARE)
    base = _base_size(min(width, height), large, close, random)
    limits = (CLOSE_LARGE_PIXELS if close else LARGE_PIXELS) if large else SMALL_PIXELS
    things = _add_label(arrangement, large)
    things += _add_equipment(arrangement, base, limits)
    _add_clutter(arrangement, base, 2 if large else 1)
    _occlude(arrangement, things)
    if crowded:
        things += _crowd(arrangement, base, limits, large)
    glows = [
        ((t.box[0] + t.box[2]) / 2, (t.box[1] + t.box[3]) / 2, 0.9 * (t.box[2] - t.box[0]))
        for t in things
        if t.kind == "sign" and t.in_order
    ]
    light(picture, glows, random)
    jpeg = expose(picture, large, random)
    asked = () if crowded else ask(things, arrangement.resembled, questions, random)
    return Scene(jpeg, width, height, tuple(things), asked, large)


def _base_size(shorter: int, large: bool, close: bool, random: np.random.Generator) -> float:
    if not large:
        return float(shorter * random.uniform(0.12, 0.22))
    return float(random.uniform(60, 100) if close else random.uniform(34, 58))


def _add_label(arrangement: Arrangement, large: bool) -> list[Thing]:
    random = arrangement.random
    if random.random() >= _LABEL_SHARE:
        return []
    text = label.choose_text(random)
    low, high = LARGE_LETTERS if large else SMALL_LETTERS
    letters = low + (high - low) * float(random.beta(1, 1) if large else random.beta(1, 1.8))
    sprite = label.plate(text, letters, random)
    height, width = sprite.shape[0] / 3, sprite.shape[1] / 3
    pose = arrangement.place(WALL, width, height, (-6.0, 6.0))
    if pose is None:
        return []
    # A plate is never foreshortened: its letters keep the height that was chosen.
    pose = Pose(pose.x, pose.y, width, height, pose.turn)
    if touches(pose.box(), arrangement.furniture, 0) or not _inside(pose.box(), arrangement):
        return []
    box = put(arrangement.picture, sprite, pose, arrangement.shadow(WALL, height))
    arrangement.kept.append(box)
    return [Thing(LABEL, None, box, None, text)]


def _inside(box: Box, arrangement: Arrangement) -> bool:
    room = arrangement.room
    return box[0] >= 1 and box[1] >= 1 and box[2] <= room.width - 1 and box[3] <= room.height - 1


def _add_equipment(
    arrangement: Arrangement, base: float, limits: tuple[float, float]
) -> list[Thing]:
    random = arrangement.random
    kinds = [list(EQUIPMENT)[int(i)] for i in random.permutation(len(EQUIPMENT))]
    numbers = [1] * int(random.choice([1, 2, 3, 4], p=[0.15, 0.35, 0.35, 0.15]))
    numbers[0] = int(random.choice(range(1, MOST_COUNTED + 1), p=[0.4, 0.25, 0.2, 0.15]))
    things: list[Thing] = []
    for kind, number in zip(kinds, numbers, strict=False):
        for _ in range(number):
            thing = _add_thing(arrangement, kind, base, limits)
            if thing is not None:
                things.append(thing)
    return things


def _add_thing(
    arrangement: Arrangement, kind: str, base: float, limits: tuple[float, float]
) -> Thing | None:
    random = arrangement.random
    in_order = bool(random.random() < 0.5)
    form = FORMS[kind][in_order]
    colour = COLOURS[int(random.integers(len(COLOURS)))] if EQUIPMENT[kind].coloured else None
    longest = float(np.clip(base * form.size * random.uniform(0.85, 1.2), *limits))
    longest = max(longest, _LEAST_WIDTH * max(form.aspect, 1 / form.aspect))
    width, height = longest * min(1, form.aspect), longest / max(1, form.aspect)
    where = form.place
    if kind in ("helmet", "kit") and random.random() < 0.5:
        where = TOP if arrangement.tops else FLOOR
    pose = arrangement.place(where, width, height, form.turns, form.band)
    if pose is None:
        return None
    sprite = equipment.sketch(form, equipment.paint(colour, random), longest, random)
    if random.random() < 0.3 and form.turns[1] < 20:
        sprite = np.ascontiguousarray(sprite[:, ::-1])
    box = put(arrangement.picture, sprite, pose, arrangement.shadow(where, longest))
    arrangement.kept.append(box)
    return Thing(kind, colour, box, in_order, None)


def _crowd(
    arrangement: Arrangement, base: float, limits: tuple[float, float], large: bool
) -> list[Thing]:
    """Labels and equipment anywhere, as many as go beside each other."""
    random, room, picture = arrangement.random, arrangement.room, arrangement.picture
    low, high = LARGE_LETTERS if large else SMALL_LETTERS
    things: list[Thing] = []
    for number in range(MOST_CROWDED):
        colour = COLOURS[int(random.integers(len(COLOURS)))]
        if number % 4:
            text = label.choose_text(random)
            letters = low + (high - low) * float(
                random.beta(1, 1) if large else random.beta(1, 1.8)
            )
            sprite = label.plate(text, letters, random)
            width, height, turn = sprite.shape[1] / 3, sprite.shape[0] / 3, random.uniform(-6, 6)
            thing = Thing(LABEL, None, (0, 0, 0, 0), None, text)
        else:
            kind = list(EQUIPMENT)[int(random.integers(len(EQUIPMENT)))]
            in_order = bool(random.random() < 0.5)
            form = FORMS[kind][in_order]
            chosen = colour if EQUIPMENT[kind].coloured else None
            longest = float(np.clip(base * form.size * random.uniform(0.85, 1.2), *limits))
            longest = max(longest, _LEAST_WIDTH * max(form.aspect, 1 / form.aspect))
            width, height = longest * min(1, form.aspect), longest / max(1, form.aspect)
            sprite = equipment.sketch(form, equipment.paint(chosen, random), longest, random)
            turn = random.uniform(*form.turns)
            thing = Thing(kind, chosen, (0, 0, 0, 0), in_order, None)
        for _ in range(6):
            x, y = random.uniform(0, room.width), random.uniform(0, room.height)
            pose = Pose(float(x), float(y), width, height, float(turn))
            box = pose.box()
            if _inside(box, arrangement) and not touches(box, arrangement.kept, 2):
                box = put(picture, sprite, pose, arrangement.shadow(WALL, height))
                arrangement.kept.append(box)
                things.append(Thing(thing.kind, thing.colour, box, thing.in_order, thing.text))
                break
    return things


def _add_clutter(arrangement: Arrangement, base: float, rounds: int) -> None:
    random = arrangement.random
    plan = (
        (clutter.WALL_CLUTTER, WALL, 4),
        (clutter.CEILING_CLUTTER, CEILING, 2),
        (clutter.FLOOR_CLUTTER, FLOOR, 5),
    )
    for items, where, most in plan:
        for _ in range(rounds * int(random.integers(0, most))):
            item = items[int(random.integers(len(items)))]
            longest = base * item.size * float(random.uniform(0.8, 1.4 * rounds**0.5))
            arrangement.add_clutter(item, where, longest)


def _occlude(arrangement: Arrangement, things: list[Thing]) -> None:
    """Perhaps hide a little of one thing on the floor behind a box or plant."""
    random = arrangement.random
    room = arrangement.room
    standing = [t for t in things if t.kind != LABEL and t.box[3] > room.wall_span(t.box[0])[1]]
    if not standing or random.random() >= _OCCLUDED_SHARE:
        return
    thing = standing[int(random.integers(len(standing)))]
    x0, y0, x1, y1 = thing.box
    item = clutter.SCREENS[int(random.integers(len(clutter.SCREENS)))]
    longest = float(max(x1 - x0, y1 - y0) * random.uniform(0.5, 0.9))
    width, height = longest * min(1, item.aspect), longest / max(1, item.aspect)
    side = -1 if random.random() < 0.5 else 1
    reach = float(random.uniform(0.12, 0.22)) * (x1 - x0)
    x = (x0 - width / 2 + reach) if side < 0 else (x1 + width / 2 - reach)
    pose = Pose(x, y1 + 0.04 * (y1 - y0) - height / 2, width, height)
    box = pose.box()
    others = [kept for kept in arrangement.kept if kept != thing.box]
    if covered_share(thing.box, box) > _MOST_COVERED or touches(box, others, 1):
        return
    sprite = clutter.sketch(item, longest, random)
    arrangement.clutter.append(put(arrangement.picture, sprite, pose))
