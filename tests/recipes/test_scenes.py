"""The quickstart scenes: repeatable, true to their questions, small enough to ship."""

import io
import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recipes.quickstart.training import label, make_data, words
from recipes.quickstart.training.camera import LARGE_SHARE, LARGE_SIZES, SMALL_SIZES
from recipes.quickstart.training.scenes import (
    COLOURS,
    KINDS,
    LARGE_LETTERS,
    SMALL_LETTERS,
    WORDS,
    Scene,
    Thing,
    draw,
    texts,
)

SHIPPED_IMAGES = 464
MOST_SHIPPED_BYTES = 24_000_000


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw(seed) for seed in range(160)]


def published_tiles(width: int, height: int, most: int = 12) -> int:
    """Tiles of the published rule with the thumbnail, written out plainly."""
    grids = [(i, j) for i in range(1, most + 1) for j in range(1, most + 1) if i * j <= most]
    best, nearest = (1, 1), float("inf")
    for i, j in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        distance = abs(width / height - i / j)
        if distance < nearest:
            best, nearest = (i, j), distance
        elif distance == nearest and width * height > 0.5 * 448 * 448 * i * j:
            best = (i, j)
    tiles = best[0] * best[1]
    return tiles + (tiles > 1)


def of_kind(scene: Scene, kind: str) -> list[Thing]:
    return [thing for thing in scene.things if thing.kind == kind]


def kind_in(prompt: str) -> str:
    """The kind that a prompt names."""
    for kind, names in words.EQUIPMENT.items():
        if names.english in prompt or names.plural in prompt or names.chinese in prompt:
            return kind
    raise AssertionError(f"no kind of equipment is named in {prompt!r}")


def colour_in(prompt: str) -> str | None:
    for colour in COLOURS:
        if f" {colour} " in prompt or words.CHINESE_COLOURS[colour] in prompt:
            return colour
    return None


def test_same_seed_same_scene() -> None:
    assert draw(7) == draw(7)
    assert draw(7).jpeg != draw(8).jpeg


def test_fewer_questions_leave_the_picture_alone() -> None:
    assert draw(11, questions=3).jpeg == draw(11).jpeg
    assert len(draw(11, questions=3).questions) == 3


def test_jpeg_has_the_size_it_says(scenes: list[Scene]) -> None:
    for scene in scenes[:20]:
        with Image.open(io.BytesIO(scene.jpeg)) as image:
            assert (image.format, image.size) == ("JPEG", (scene.width, scene.height))


def test_things_lie_in_the_picture(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.things or not any(q.positive for q in scene.questions)
        for thing in scene.things:
            x0, y0, x1, y1 = thing.box
            assert thing.kind in KINDS
            assert 0 <= x0 < x1 <= scene.width
            assert 0 <= y0 < y1 <= scene.height
            assert (thing.text is not None) == (thing.kind == words.LABEL)
            assert (thing.in_order is None) == (thing.kind == words.LABEL)
            if thing.kind != words.LABEL:
                assert min(x1 - x0, y1 - y0) >= 12
                assert max(x1 - x0, y1 - y0) >= 24


def test_things_do_not_hide_each_other(scenes: list[Scene]) -> None:
    for scene in scenes:
        for index, first in enumerate(scene.things):
            for second in scene.things[index + 1 :]:
                apart_x = first.box[2] <= second.box[0] or second.box[2] <= first.box[0]
                apart_y = first.box[3] <= second.box[1] or second.box[3] <= first.box[1]
                assert apart_x or apart_y


def test_at_most_one_label(scenes: list[Scene]) -> None:
    for scene in scenes:
        found = of_kind(scene, words.LABEL)
        assert len(found) <= 1
        assert all(thing.text in (*WORDS, *words.NUMBERS) for thing in found)


@pytest.mark.parametrize("height", [*SMALL_LETTERS, *LARGE_LETTERS])
def test_letters_have_the_height_asked_for(height: float) -> None:
    # Away from the plate's ends, only rows with letters hold both paints.
    for seed in range(30):
        plate = label.plate("HHHH", height, np.random.default_rng(seed))
        inner = plate[:, plate.shape[1] // 4 : -plate.shape[1] // 4, :3]
        rows = np.flatnonzero(np.ptp(inner.astype(int), axis=1).max(axis=1) > 90)
        assert (rows[-1] - rows[0] + 1) / 3 == pytest.approx(height, rel=0.15)


def test_answers_are_true(scenes: list[Scene]) -> None:
    for scene in scenes:
        for question in scene.questions:
            if question.kind == "label":
                assert question.answer == of_kind(scene, words.LABEL)[0].text
                continue
            found = of_kind(scene, kind_in(question.prompt))
            if question.kind == "presence":
                colour = colour_in(question.prompt)
                there = bool([t for t in found if colour is None or t.colour == colour])
                expected = (words.THERE if there else words.NOT_THERE)[question.language]
                assert (question.answer, question.positive) == (expected, there)
            elif question.kind == "count":
                assert question.answer == str(len(found))
            elif question.kind == "colour":
                (only,) = found
                assert only.colour is not None
                assert question.answer == words.colour_word(only.colour, question.language)
            else:
                (only,) = found
                expected = (words.YES if only.in_order else words.NO)[question.language]
                assert (question.kind, question.answer) == ("order", expected)


def test_every_askable_kind_is_asked_and_no_prompt_twice(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert len(scene.questions) == 8
        assert len({question.prompt for question in scene.questions}) == 8
        asked = {question.kind for question in scene.questions}
        assert {"presence", "count"} <= asked
        assert ("label" in asked) == bool(of_kind(scene, words.LABEL))
        counts = Counter(thing.kind for thing in scene.things)
        single = [t for t in scene.things if counts[t.kind] == 1 and t.kind != words.LABEL]
        assert ("order" in asked) == bool(single)
        assert ("colour" in asked) == any(thing.colour for thing in single)


def test_positives_are_a_minority_and_states_are_balanced(scenes: list[Scene]) -> None:
    questions = [question for scene in scenes for question in scene.questions]
    presence = [question.positive for question in questions if question.kind == "presence"]
    assert 0.26 <= np.mean(presence) <= 0.4
    order = [question.answer in ("yes", "是") for question in questions if question.kind == "order"]
    assert 0.35 <= np.mean(order) <= 0.65
    assert {question.language for question in questions} == {"en", "zh"}


def test_vocabulary_covers_every_question(scenes: list[Scene]) -> None:
    known = set(texts())
    assert len(WORDS) == len(set(WORDS)) == 24
    assert len(set("".join(known))) < 160
    for scene in scenes:
        for question in scene.questions:
            assert {question.prompt, question.answer} <= known


def test_mean_tile_count_of_the_published_rule_is_below_nine() -> None:
    def mean(sizes: dict[tuple[int, int], float]) -> float:
        total = sum(share * published_tiles(*size) for size, share in sizes.items())
        return total / sum(sizes.values())

    expected = (1 - LARGE_SHARE) * mean(SMALL_SIZES) + LARGE_SHARE * mean(LARGE_SIZES)
    assert 6.5 < expected <= 9.0


def test_shipped_images_fit_the_budget(scenes: list[Scene]) -> None:
    mean = float(np.mean([len(scene.jpeg) for scene in scenes]))
    assert mean * SHIPPED_IMAGES < MOST_SHIPPED_BYTES


def test_large_scenes_are_common_and_their_things_small(scenes: list[Scene]) -> None:
    large = [scene for scene in scenes if scene.large]
    assert 0.2 <= len(large) / len(scenes) <= 0.46
    sides = [
        max(thing.box[2] - thing.box[0], thing.box[3] - thing.box[1])
        for scene in large
        for thing in scene.things
        if thing.kind != words.LABEL
    ]
    assert np.mean(np.array(sides) <= 64) > 0.5


def test_data_sets_are_disjoint_and_lines_have_their_pictures(tmp_path: Path) -> None:
    sets = [
        make_data.TRAINING_SEEDS,
        make_data.CALIBRATION_SEEDS,
        make_data.EVALUATION_SEEDS,
        make_data.FINAL_SEEDS,
    ]
    assert all(first.stop <= second.start for first, second in itertools.pairwise(sets))
    make_data.write_calibration(tmp_path, range(2))
    written, positives = make_data.write_evaluation(tmp_path, "eval", range(100, 104))
    lines = [json.loads(line) for line in (tmp_path / "eval.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == written
    found = [
        line for line in lines if line["question"] == "presence" and line["label"] in ("yes", "有")
    ]
    assert len(found) == positives
    assert all((tmp_path / line["image"]).is_file() for line in lines)
    assert all("positive" in line for line in lines if line["question"] == "presence")
    calibration = (tmp_path / "calibration.jsonl").read_text("utf-8").splitlines()
    assert {key for line in calibration for key in json.loads(line)} == {
        "image",
        "prompt",
        "answer",
    }
