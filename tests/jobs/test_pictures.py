"""Jobs whose rows have no picture, many, or pictures of other kinds than paths."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.image.files import encoded, turned
from tests.image.patterns import pattern
from tests.jobs.fake import FakeModel
from vlmc.errors import UsageError
from vlmc.jobs.input.open import open_input
from vlmc.jobs.input.prompts import prompts_from_texts
from vlmc.jobs.job import run_job
from vlmc.jobs.summary import JobSummary

PHOTO = Image.fromarray(pattern(61, 43))
PNG = encoded(PHOTO, "PNG")
DATA_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(
    source: Path, questions: list[str], model: FakeModel | None = None
) -> tuple[JobSummary, list[dict[str, Any]]]:
    out = source.with_name(f"{source.name}-answers.jsonl")
    prompts = prompts_from_texts(questions)
    rows = open_input(str(source))
    summary = run_job(model or FakeModel(), rows, prompts, out, artifact="f00d", tiles="original")
    return summary, [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_an_empty_image_is_an_error_however_it_is_written(suffix: str, tmp_path: Path) -> None:
    rows = [{"image": ["a.png", "a.png"]}, {"image": []}, {"image": None}]
    (tmp_path / "a.png").write_bytes(PNG)
    model = FakeModel()
    summary, lines = run(write(tmp_path / f"rows{suffix}", rows), ["A room?"], model)
    assert (summary.answers, summary.errors, len(model.asked)) == (1, 2, 1)
    errors = [line["error"].replace(f"row {line['row']}", "row N") for line in lines[1:]]
    assert errors[0] == errors[1]
    assert "names no image; fill in its column image" in errors[0]
    assert [line["image"] for line in lines[1:]] == [None, None]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_table_without_the_column_is_text_alone(suffix: str, tmp_path: Path) -> None:
    source = write(
        tmp_path / f"rows{suffix}",
        [{"prompt": "One?", "question": "a", "n": 1}, {"prompt": "Two?", "question": "b", "n": 2}],
    )
    assert open_input(str(source)).text_only
    model = FakeModel()
    summary, lines = run(source, [], model)
    assert (summary.answers, summary.errors) == (2, 0)
    assert model.asked == [(None, "One?"), (None, "Two?")]
    assert [(line["image"], line["question"], line["n"]) for line in lines] == [
        (None, "a", 1),
        (None, "b", 2),
    ]
    out = tmp_path / "answers.parquet"
    run_job(model, open_input(str(source)), [], out, artifact="f00d", tiles="original")
    assert [row["image"] for row in pq.read_table(out).to_pylist()] == [None, None]


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        ([{"picture": "a.png"}], "has no .*image"),
        (
            [{"image": "a.png", "prompt": "x"}, {"prompt": "y"}],
            r"jsonl:2: \"image\" and \"prompt\"",
        ),
        (
            [{"prompt": "x"}, {"image": "a.png", "prompt": "y"}],
            r"jsonl:2: \"image\" and \"prompt\"",
        ),
    ],
)
def test_a_forgotten_image_is_not_taken_for_text_alone(
    rows: list[dict[str, Any]], part: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=part):
        open_input(str(write(tmp_path / "rows.jsonl", rows)))


def test_data_urls_and_urls_in_tables(tmp_path: Path) -> None:
    rows = [{"image": DATA_URL}, {"image": "https://example.com/a.jpg"}, {"image": [DATA_URL] * 2}]
    _, lines = run(write(tmp_path / "rows.jsonl", rows), ["A room?"])
    assert [line["error"] is None for line in lines] == [True, False, True]
    assert "https://example.com/a.jpg: is a URL" in lines[1]["error"]
    name = f"<data: URL of {len(DATA_URL)} characters>"
    assert lines[0]["image"] == name and lines[2]["image"] == [name, name]
    table = write(tmp_path / "rows.parquet", [{"image": DATA_URL}])
    assert run(table, ["A room?"])[0].answers == 1


def test_structs_of_hugging_face_datasets(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(PNG)
    one, two = {"bytes": PNG, "path": "a.png"}, {"bytes": None, "path": "b.png"}
    rows = [{"image": [one, two]}, {"image": [{"bytes": PNG, "path": None}]}, {"image": []}]
    summary, lines = run(write(tmp_path / "rows.parquet", rows), ["The same?"])
    assert (summary.answers, summary.errors) == (2, 1)
    assert [line["image"] for line in lines] == [["a.png", "b.png"], [f"<{len(PNG)} bytes>"], None]
    nested = pa.array([[[b"a"]]])
    pq.write_table(pa.table({"image": nested}), tmp_path / "nested.parquet")
    with pytest.raises(UsageError, match="structs of bytes and path, or lists of these"):
        open_input(str(tmp_path / "nested.parquet"))


def test_error_lines_are_short(tmp_path: Path) -> None:
    rows = [{"image": "x" * 20_000}, {"image": "https://" + "y" * 20_000}, {"image": ["z" * 9_000]}]
    _, lines = run(write(tmp_path / "rows.jsonl", rows), ["A room?"])
    assert all(20 < len(line["error"]) < 600 for line in lines)
    with pytest.raises(UsageError) as caught:
        open_input(str(write(tmp_path / "bad.jsonl", [{"image": {"a": "x" * 20_000}}])))
    assert len(str(caught.value)) < 600


def test_every_picture_is_counted_once(tmp_path: Path) -> None:
    (tmp_path / "phone.jpg").write_bytes(turned(PHOTO))
    (tmp_path / "plain.png").write_bytes(PNG)
    (tmp_path / "other.jpg").write_bytes(turned(PHOTO, orientation=3))
    rows: list[dict[str, Any]] = [
        {"image": "phone.jpg", "prompt": "x"},
        {"image": "phone.jpg", "prompt": "y"},
        {"image": ["plain.png", "phone.jpg", "other.jpg"], "prompt": "z"},
        {"image": "absent.jpg", "prompt": "z"},
    ]
    summary, _ = run(write(tmp_path / "rows.jsonl", rows), [])
    assert (summary.rotation_ignored, summary.clipped_to_8_bits) == (2, 0)
    contents = [{"image": turned(PHOTO)}, {"image": turned(PHOTO)}, {"image": PNG}]
    summary, _ = run(write(tmp_path / "rows.parquet", contents), ["x", "y"])
    assert summary.rotation_ignored == 2
