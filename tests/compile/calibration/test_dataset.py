"""Calibration samples: what is drawn, what is passed over, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlmc.compile.calibration.dataset import read_calibration
from vlmc.errors import RecipeError

Write = Callable[..., Path]


@pytest.fixture
def write(images: Path, tmp_path: Path) -> Write:
    """`write(n, image=…)` writes n lines, each with a copy of one picture or the image named."""
    picture = sorted(images.glob("*.jpg"))[0]

    def written(count: int, **replaced: Any) -> Path:
        lines = []
        for index in range(count):
            name = f"{index}.jpg"
            shutil.copyfile(picture, tmp_path / name)
            lines.append({"image": name, "prompt": f"question {index}"} | replaced)
        path = tmp_path / "calibration.jsonl"
        path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        return path

    return written


def test_draws_by_seed_without_repeating(write: Write, tmp_path: Path) -> None:
    dataset = write(20)
    first = read_calibration(dataset, 5, 0)
    assert first == read_calibration(dataset, 5, 0)
    assert len(set(first.samples)) == 5
    assert set(first.images) == {sample.image for sample in first.samples}
    assert all(image.parent == tmp_path for image in first.images)
    other = read_calibration(dataset, 5, 1)
    assert other.samples != first.samples
    assert other.digest != first.digest
    # More samples go on where fewer ended.
    assert read_calibration(dataset, 8, 0).samples[:5] == first.samples


@pytest.mark.parametrize("change", ["prompt", "answer", "image"])
def test_the_digest_is_of_all_content(write: Write, tmp_path: Path, change: str) -> None:
    before = read_calibration(write(3), 3, 0)
    if change == "image":
        with (tmp_path / "1.jpg").open("ab") as file:
            file.write(b"\0")
        after = read_calibration(tmp_path / "calibration.jsonl", 3, 0)
    else:
        after = read_calibration(write(3, **{change: "other"}), 3, 0)
    assert after.digest != before.digest


def test_a_few_unreadable_images_are_passed_over_and_told(write: Write, tmp_path: Path) -> None:
    dataset = write(40)
    order = [sample.image for sample in read_calibration(dataset, 40, 0).samples]
    first, second, *_ = [image for image in order if image is not None]
    first.unlink()
    second.write_bytes(second.read_bytes()[:300])
    drawn = read_calibration(dataset, 30, 0)
    assert [sample.image for sample in drawn.samples] == order[2:32]
    assert [reason.split(":")[0] for reason in drawn.skipped] == [str(first), str(second)]
    with pytest.raises(RecipeError, match=r"has 38 samples with a readable image.* is 40"):
        read_calibration(dataset, 40, 0)


def test_many_unreadable_images_are_an_error(write: Write, tmp_path: Path) -> None:
    dataset = write(20)
    for index in range(4):
        (tmp_path / f"{index}.jpg").unlink()
    with pytest.raises(RecipeError, match=r"calibration\.jsonl: \d of \d+ images cannot be read"):
        read_calibration(dataset, 16, 0)


def test_text_needs_no_image(write: Write) -> None:
    dataset = write(4, image=None, answer="yes")
    drawn = read_calibration(dataset, 4, 0, modality="text")
    assert drawn.images == ()
    assert {sample.answer for sample in drawn.samples} == {"yes"}
    with pytest.raises(RecipeError, match=r':1: "image" is missing'):
        read_calibration(dataset, 4, 0)


def test_too_few_lines_are_an_error(write: Write) -> None:
    with pytest.raises(RecipeError, match=r"has 3 samples, but calibration\.samples is 4"):
        read_calibration(write(3), 4, 0)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", r":2: not a line of JSON"),
        ("[1]", r":2: not an object"),
        ('{"image": "0.jpg"}', r':2: "prompt" is missing'),
        ('{"image": "0.jpg", "prompt": " "}', r""":2: "prompt" is ' '"""),
        ('{"image": 3, "prompt": "a"}', r':2: "image" is 3'),
        ('{"image": "0.jpg", "prompt": "a", "answer": 1}', r':2: "answer" is 1'),
    ],
)
def test_bad_lines_are_named(write: Write, line: str, said: str) -> None:
    dataset = write(1)
    with dataset.open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(RecipeError, match=said):
        read_calibration(dataset, 1, 0)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"calibration\.dataset .*none\.jsonl cannot be read"):
        read_calibration(tmp_path / "none.jsonl", 1, 0)
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}')
    with pytest.raises(RecipeError, match=r"latin\.jsonl is not UTF-8"):
        read_calibration(tmp_path / "latin.jsonl", 1, 0)
