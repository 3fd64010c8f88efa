"""Inputs: folders, globs, tables, prompts, and what is refused in them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs.fake import write_images
from tests.jobs.input.write import jpeg, write_jsonl
from vlmc.errors import UsageError
from vlmc.jobs.input.open import open_input
from vlmc.jobs.input.prompts import Prompt, prompts_from_file, prompts_from_texts
from vlmc.jobs.input.rows import InputRow


def test_a_folder_is_read_at_every_depth_in_order(tmp_path: Path) -> None:
    for name in (
        "b/2.JPG",
        "b/1.png",
        "a.jpeg",
        "c.webp",
        "notes.txt",
        ".hidden.jpg",
        ".git/x.jpg",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    elsewhere = write_images(tmp_path.parent / f"{tmp_path.name}-elsewhere", 1)[0].parent
    (tmp_path / "linked").symlink_to(elsewhere)
    (tmp_path / "b" / "round").symlink_to(tmp_path)
    rows = open_input(str(tmp_path))
    names = [Path(str(row.name)).relative_to(tmp_path).as_posix() for row in rows.read()]
    assert names == ["a.jpeg", "b/1.png", "b/2.JPG", "c.webp", "linked/000.jpg"]
    assert len(rows) == 5 and not rows.prompted and rows.columns == ()
    assert [row.number for row in rows.read(3)] == [3, 4]


def test_globs_and_single_images(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "deep" / "er", 3)
    (tmp_path / "deep" / "er" / "Thumbs.db").write_bytes(b"x")
    for pattern_text in (f"{tmp_path}/**/*", f"{tmp_path}/deep/*/00?.jpg"):
        assert [row.image for row in open_input(pattern_text).read()] == paths
    assert [row.image for row in open_input(str(paths[1])).read()] == [paths[1]]
    # A name with brackets is a name first.
    odd = tmp_path / "room[1].jpg"
    odd.write_bytes(jpeg())
    assert [row.image for row in open_input(str(odd)).read()] == [odd]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("absent.jpg", "no such file or folder"),
        ("absent.jsonl", "no such file"),
        ("absent.parquet", "no such file"),
        ("*.jpg", "none of the 0 matches"),
        ("empty", "has no image file"),
        ("notes.txt", "neither a table"),
        ("empty.jsonl", "has no row"),
        ("broken.parquet", "cannot be read as Parquet"),
    ],
)
def test_inputs_without_anything_to_read_are_refused(name: str, part: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=part):
        open_input(str(tmp_path / name))


def test_jsonl_rows(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "rows.jsonl",
        "\ufeff" + json.dumps({"image": "a.jpg", "prompt": "fire?", "label": "是", "n": 1}),
        "",
        {"image": ["b.jpg", "/c.jpg"], "prompt": "door?", "question": 7},
        {"image": None, "prompt": "x"},
    )
    rows = open_input(str(path))
    assert len(rows) == 3 and rows.prompted and rows.columns == ("label", "n")
    assert list(rows.read()) == [
        InputRow(0, tmp_path / "a.jpg", "a.jpg", "fire?", "fire?", {"label": "是", "n": 1}),
        InputRow(1, [tmp_path / "b.jpg", Path("/c.jpg")], ["b.jpg", "/c.jpg"], "door?", "7", {}),
        InputRow(2, None, None, "x", "x", {}, missing=True),
    ]
    assert [row.number for row in rows.read(2)] == [2]


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        (['{"image": "a.jpg"', "{}"], r"rows\.jsonl:1: is not a JSON object"),
        ([{"image": "a"}, "[1]"], r"rows\.jsonl:2: is list"),
        ([{"image": "a"}, '{"image": "a", "x": NaN}'], "NaN is not JSON"),
        ([{"image": "a"}, {"img": "b"}], r"""rows\.jsonl:2: has no "image" \(it has 'img'\)"""),
        ([{"image": 3}], '"image" is 3'),
        ([{"image": ["a", 3]}], '"image" is'),
        ([{"image": "a", "prompt": "x"}, {"image": "a"}], "in every line or in none"),
        ([{"image": "a", "prompt": " "}], "not empty"),
        ([{"image": "a", "prompt": "x", "question": [1]}], "question id"),
        (["[" * 100_000], "is not a JSON object"),
    ],
)
def test_jsonl_lines_that_cannot_be_read_are_named(
    lines: list[Any], part: str, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", *lines)
    with pytest.raises(UsageError, match=part):
        open_input(str(path))


def test_parquet_rows_of_every_kind_of_image(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    content = jpeg()

    def read(images: Any) -> list[tuple[Any, Any]]:
        pq.write_table(pa.table({"image": images}), path)
        return [(row.image, row.name) for row in open_input(str(path)).read()]

    named = f"<{len(content)} bytes>"
    assert read(["a.jpg", None]) == [(tmp_path / "a.jpg", "a.jpg"), (None, None)]
    assert read([content]) == [(content, named)]
    assert read([["a.jpg", "b.jpg"]]) == [
        ([tmp_path / "a.jpg", tmp_path / "b.jpg"], ["a.jpg", "b.jpg"])
    ]
    assert read([{"bytes": content, "path": "a.jpg"}]) == [(content, "a.jpg")]
    assert read([{"bytes": content, "path": None}]) == [(content, named)]
    assert read(pa.array(["a.jpg"]).dictionary_encode()) == [(tmp_path / "a.jpg", "a.jpg")]
    with pytest.raises(UsageError, match="'image' is int64"):
        read([1])
    pq.write_table(pa.table({"picture": ["a"]}), path)
    with pytest.raises(UsageError, match=r"no column 'image' \(it has picture\)"):
        open_input(str(path))
    pq.write_table(pa.table({"image": ["a", "b"], "prompt": ["x", None]}), path)
    with pytest.raises(UsageError, match="row 1: the prompt is None"):
        open_input(str(path))


def test_parquet_is_read_from_any_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pa.table({"image": [f"{i}.jpg" for i in range(500)], "n": range(500)})
    pq.write_table(table, path, row_group_size=90)
    rows = open_input(str(path))
    for start in (0, 1, 63, 64, 89, 90, 91, 333, 499, 500):
        found = [(row.number, row.name, row.columns) for row in rows.read(start)]
        assert found == [(i, f"{i}.jpg", {"n": i}) for i in range(start, 500)]


def test_parquet_without_pyarrow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install .*\[parquet\]"):
        open_input(str(tmp_path / "rows.parquet"))


def test_prompts(tmp_path: Path) -> None:
    assert prompts_from_texts(["a", "b"]) == [Prompt("a", "a"), Prompt("b", "b")]
    text = tmp_path / "prompts.txt"
    text.write_bytes("\ufeffIs there a door?\r\n\n 有门吗？ \n".encode())
    questions = ["Is there a door?", "有门吗？"]
    assert prompts_from_file(text) == [Prompt(question, question) for question in questions]
    table = write_jsonl(
        tmp_path / "prompts.jsonl", {"question": "fire", "prompt": "fire?"}, {"prompt": "door?"}
    )
    assert prompts_from_file(table) == [Prompt("fire", "fire?"), Prompt("door?", "door?")]


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("p.txt", b" \n", "has no prompt"),
        ("p.txt", b"\xff\xfe", "not UTF-8"),
        ("p.jsonl", b'{"question": "a", "text": "b"}', "unknown key 'text'"),
        ("p.jsonl", b'{"question": "a"}', "the prompt is None"),
        (
            "p.jsonl",
            b'\n{"question": "a", "prompt": "x"}\n\n{"question": "a", "prompt": "y"}',
            r"p\.jsonl:4: the question id 'a' is given twice",
        ),
        ("p.jsonl", b'{"prompt": "x"}\n{"prompt": ""}\n[]', r"2 rows have errors:\n.*:2:.*\n.*:3:"),
        ("p.txt", b"fire?\n\ndoor?\nfire? \n", r"p\.txt:4: the prompt 'fire\?' is given twice"),
        ("p.jsonl", b"fire?", r"p\.jsonl:1: is not a JSON object"),
    ],
)
def test_prompts_that_cannot_be_read_are_refused(
    name: str, content: bytes, part: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=part):
        prompts_from_file(tmp_path / name)
    with pytest.raises(UsageError, match="no such file"):
        prompts_from_file(tmp_path / "absent")
    with pytest.raises(UsageError, match="not empty"):
        prompts_from_texts([""])
    with pytest.raises(UsageError, match="'a' is given twice"):
        prompts_from_texts(["a", "b", "a"])


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may list every folder")
def test_a_folder_that_cannot_be_listed_is_not_skipped(tmp_path: Path) -> None:
    write_images(tmp_path, 1)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    with pytest.raises(UsageError, match="cannot be listed"):
        open_input(str(tmp_path))
