"""Text tables: CSV, NDJSON, stdin, and all errors of the first pass."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs.input.write import write_jsonl
from vlmc.errors import UsageError
from vlmc.jobs.input.open import open_input
from vlmc.jobs.input.rows import InputRow
from vlmc.jobs.input.table_errors import SHOWN


def test_csv_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.CSV"
    path.write_bytes(
        "\ufeffimage,prompt,question,label\r\n"
        'a.jpg,"Fire, or\nsmoke?",fire,是\r\n'
        "\r\n"
        '"b,1.jpg","say ""yes""",,\r\n'
        ",x,7,1.5\r\n".encode()
    )
    rows = open_input(str(path))
    assert len(rows) == 3 and rows.prompted and rows.columns == ("label",)
    assert list(rows.read()) == [
        InputRow(0, tmp_path / "a.jpg", "a.jpg", "Fire, or\nsmoke?", "fire", {"label": "是"}),
        InputRow(1, tmp_path / "b,1.jpg", "b,1.jpg", 'say "yes"', 'say "yes"', {"label": ""}),
        InputRow(2, None, None, "x", "7", {"label": "1.5"}, missing=True),
    ]
    assert [row.number for row in rows.read(2)] == [2]
    before = rows.identity
    path.write_text("image\na.jpg\n")
    assert not open_input(str(path)).prompted and open_input(str(path)).identity != before


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"image,n\na.jpg,1\nb.jpg\n\nc.jpg,1,2\n", r"2 rows have errors:\n.*:3: has 1 values"),
        (b"image;prompt\na;b\n", "separate columns by commas"),
        (b"image,image\na,b\n", r"rows\.csv:1: .* give each its own"),
        (b"picture\na\n", """:2: has no "image" .it has 'picture'"""),
        (b'image\n"a\n', "is not valid CSV"),
        (b"image\n\xff\n", "not UTF-8"),
        (b"", "has no row"),
        (b"image\n", "has no row"),
    ],
)
def test_csv_that_cannot_be_read_is_refused(content: bytes, part: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(UsageError, match=part):
        open_input(str(tmp_path / "rows.csv"))


def test_ndjson_and_stdin_are_as_jsonl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"image": "a.jpg", "n": 1}, {"image": ["/b.jpg"], "n": 2}]
    expected = list(open_input(str(write_jsonl(tmp_path / "rows.jsonl", *lines))).read())
    named = open_input(str(write_jsonl(tmp_path / "rows.ndjson", *lines)))
    assert list(named.read()) == expected
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    rows = open_input("-")
    assert [row.image for row in rows.read()] == [Path("a.jpg"), [Path("/b.jpg")]]
    assert [row.number for row in rows.read(1)] == [1]
    assert rows.identity == named.identity
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"image": "a"}\n{"i')))
    with pytest.raises(UsageError, match="stdin:2: is not a JSON object"):
        open_input("-")


def test_all_errors_are_listed_up_to_a_limit(tmp_path: Path) -> None:
    bad = [{"image": number} for number in range(SHOWN + 5)]
    path = write_jsonl(tmp_path / "rows.jsonl", {"image": "a"}, *bad, {"image": "a"}, "{")
    with pytest.raises(UsageError) as caught:
        open_input(str(path))
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path}: {SHOWN + 6} rows have errors:" and len(lines) == SHOWN + 2
    assert f"{path}:2:" in lines[1] and lines[-1].strip() == "… and 6 more"
    table = {"image": ["a"] * 3, "prompt": ["x", None, ""]}
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    with pytest.raises(UsageError, match=r"2 rows have errors:\n.*row 1: .*\n.*row 2: "):
        open_input(str(tmp_path / "rows.parquet"))


def test_how_many_images_rows_have(tmp_path: Path) -> None:
    rows = [{"image": ["a", "b"]}, {"image": None}, {"image": ["a"]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    for path in (write_jsonl(tmp_path / "rows.jsonl", *rows), tmp_path / "rows.parquet"):
        assert open_input(str(path)).image_counts() == {1, 2}
    pq.write_table(pa.table({"prompt": ["a"]}), tmp_path / "text.parquet")
    for path in (write_jsonl(tmp_path / "t.jsonl", {"prompt": "a"}), tmp_path / "text.parquet"):
        assert open_input(str(path)).image_counts() == {0}
