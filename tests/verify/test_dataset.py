"""Evaluation questions: read, known by content, and refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from vlmc.errors import UsageError
from vlmc.verify.dataset import read_dataset


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return path


@pytest.fixture
def folder(images: Path, tmp_path: Path) -> Path:
    for name in ("480x320.jpg", "448x448.jpg"):
        shutil.copy(images / name, tmp_path / name)
    return tmp_path


A = {"image": "480x320.jpg", "prompt": "A room?", "label": "yes", "positive": ["yes"]}
B = {"image": "448x448.jpg", "prompt": "A room?", "label": "no", "question": 7}


def test_reads(folder: Path) -> None:
    pair = {"image": ["480x320.jpg", "448x448.jpg"], "prompt": "有吗？"}
    path = write(folder / "eval.jsonl", A, B, pair, {**A, "prompt": "Which?"})
    read = read_dataset(path)
    # Those on one image follow each other; the line tells where each stands.
    assert [question.line for question in read.questions] == [1, 4, 2, 3]
    first, _, other, both = read.questions
    assert (first.label, first.question, first.positive) == ("yes", "", ("yes",))
    assert (other.label, other.question, other.positive) == ("no", "7", ())
    assert (both.label, both.prompt) == (None, "有吗？")
    assert both.digests == (first.digests[0], other.digests[0])
    assert len(read.images) == 2 and read.limit is None
    assert first.request == ([folder / "480x320.jpg"], "A room?")


def test_is_known_by_content(folder: Path) -> None:
    read = read_dataset(write(folder / "eval.jsonl", A, B))
    (folder / "moved").mkdir()
    shutil.copy(folder / "480x320.jpg", folder / "moved" / "x.jpg")
    shutil.copy(folder / "448x448.jpg", folder / "moved" / "y.jpg")
    lines = ({**A, "image": "x.jpg"}, {**B, "image": "y.jpg"})
    moved = read_dataset(write(folder / "moved" / "other.jsonl", *lines))
    assert moved.digest == read.digest
    assert [q.key for q in moved.questions] == [q.key for q in read.questions]
    (folder / "moved" / "y.jpg").write_bytes((folder / "480x320.jpg").read_bytes())
    assert read_dataset(folder / "moved" / "other.jsonl").digest != read.digest
    assert read_dataset(write(folder / "label.jsonl", A, {**B, "label": "yes"})).digest != (
        read.digest
    )


def test_limit_is_another_dataset(folder: Path) -> None:
    path = write(folder / "eval.jsonl", A, B)
    first = read_dataset(path, 1)
    assert [question.line for question in first.questions] == [1]
    assert first.limit == 1
    assert first.digest not in (read_dataset(path).digest, read_dataset(path, 2).digest)


@pytest.mark.parametrize("limit", [2, 3])
def test_limit_that_leaves_nothing_out_is_none(limit: int, folder: Path) -> None:
    """Its report takes the place of the whole dataset's, and counts as that."""
    path = write(folder / "eval.jsonl", A, B)
    assert read_dataset(path, limit) == read_dataset(path)


BAD = [
    ({**A, "lable": "x"}, "unknown key 'lable'"),
    ({"prompt": "x"}, '"image" is None'),
    ({**A, "image": []}, r'"image" is \[\]'),
    ({**A, "image": "none.jpg"}, r"none\.jpg cannot be read"),
    ({**A, "prompt": " "}, '"prompt" is'),
    ({**A, "label": 3}, '"label" is 3'),
    ({**A, "question": True}, '"question" is True'),
    ({**A, "positive": "yes"}, '"positive" is'),
    ({"image": "480x320.jpg", "prompt": "x", "positive": ["yes"]}, 'no "label"'),
    ([1], "is list, not an object"),
]


@pytest.mark.parametrize(("line", "said"), BAD)
def test_bad_line_is_named(line: object, said: str, folder: Path) -> None:
    with pytest.raises(UsageError, match=rf"eval\.jsonl:2: .*{said}"):
        read_dataset(write(folder / "eval.jsonl", A, line))


def test_bad_files(folder: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_dataset(folder / "none.jsonl")
    (folder / "empty.jsonl").write_text("\n\n")
    with pytest.raises(UsageError, match="holds no question"):
        read_dataset(folder / "empty.jsonl")
    (folder / "cut.jsonl").write_text('{"image": ')
    with pytest.raises(UsageError, match=r"cut\.jsonl:1: is not a JSON object"):
        read_dataset(folder / "cut.jsonl")
    (folder / "latin.jsonl").write_bytes(b'{"image": "\xe9"}')
    with pytest.raises(UsageError, match="not UTF-8"):
        read_dataset(folder / "latin.jsonl")
