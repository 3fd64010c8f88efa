"""The job: lines, errors, other columns, Parquet, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs.fake import FakeAnswer, FakeModel, Notes, write_images
from tests.jobs.input.write import jpeg, write_jsonl
from tests.jobs.small_job import PROMPTS, output_files, run
from vlmc.errors import IntegrityError, UsageError, VlmcError
from vlmc.jobs.input.prompts import prompts_from_texts
from vlmc.jobs.ledger import locked_ledger
from vlmc.jobs.output.columns import OUTPUT_COLUMNS
from vlmc.jobs.question_runner import Outcome, Work
from vlmc.progress.channel import receiving
from vlmc.progress.events import Event, Progress
from vlmc.runtime.requests.request import Request
from vlmc.runtime.requests.scores import MEASURES, Choose, Scored, Scores


def lines_of(out: Path) -> list[dict[str, Any]]:
    if out.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(out).to_pylist(maps_as_pydicts="strict")
        return rows
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_what_a_kill_left_half_written_is_removed(tmp_path: Path, suffix: str) -> None:
    write_images(tmp_path / "images", 1)
    out = tmp_path / f"answers{suffix}"
    for name in (out.name, "answers.parquet.partial.jsonl"):
        (tmp_path / f".{name}.0123abcd.tmp").write_bytes(b"half")
    run(tmp_path / "images", out)
    left = {".answers.parquet.partial.jsonl.0123abcd.tmp"} if suffix == ".jsonl" else set()
    assert files_in(tmp_path) == {"images", *output_files(out)} | left


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_every_question_of_every_image_has_a_line(suffix: str, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 9, damaged=[0, 4, 8])
    out = tmp_path / "out" / f"answers{suffix}"
    model = FakeModel()
    seen: list[Event] = []
    with receiving(seen.append):
        summary = run(tmp_path / "images", out, model=model)
    assert (summary.rows, summary.answers, summary.errors, summary.resumed) == (9, 18, 9, 0)
    lines = lines_of(out)
    assert [(line["row"], line["question"]) for line in lines] == [
        (row, prompt.question) for row in range(9) for prompt in PROMPTS
    ]
    # All questions of an image follow each other.
    assert model.asked == [(image, prompt.text) for image in images for prompt in PROMPTS]
    for line in lines:
        assert tuple(line) == OUTPUT_COLUMNS
        damaged = line["row"] in (0, 4, 8)
        assert (line["error"] is not None) == (line["answer"] is None) == damaged
        assert line["image_tokens"] == (None if damaged else 256)
        assert line["scores"] is None
        assert damaged == (str(line["error"]).startswith(line["image"]))
    assert files_in(out.parent) == output_files(out)
    assert (seen[0], seen[-1]) == (Progress("answers", 0, 27), Progress("answers", 27, 27, 9))
    again = FakeModel()
    content = out.read_bytes()
    summary = run(tmp_path / "images", out, model=again)
    assert (summary.answers, summary.errors, summary.resumed) == (18, 9, 27)
    assert not again.asked and out.read_bytes() == content
    assert files_in(out.parent) == output_files(out)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_choices_are_scored(suffix: str, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 3, damaged=[1])
    out = tmp_path / f"answers{suffix}"
    run(tmp_path / "images", out, choices=["yes", "no"])
    for line in lines_of(out):
        if line["row"] == 1:
            assert line["scores"] is None and line["answer"] is None
        else:
            assert set(line["scores"]) == {"yes", "no"}
            assert line["answer"] == max(line["scores"], key=line["scores"].get)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_scores_and_best_choice_are_by_the_measure(suffix: str, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 6)
    lines = {}
    for measure in MEASURES:
        out = tmp_path / f"{measure}{suffix}"
        run(tmp_path / "images", out, choices=["yes", "no, not at all"], measure=measure)
        lines[measure] = lines_of(out)
    for sums, means, shares in zip(*lines.values(), strict=True):
        # The fake model counts a token a character.
        assert means["scores"] == {c: v / len(c) for c, v in sums["scores"].items()}
        odds = math.exp(sums["scores"]["yes"] - sums["scores"]["no, not at all"])
        assert shares["scores"]["yes"] == pytest.approx(odds / (1 + odds))
        assert means["answer"] == max(means["scores"], key=means["scores"].get)
        assert shares["answer"] == sums["answer"]
    assert any(a["answer"] != b["answer"] for a, b in zip(*list(lines.values())[:2], strict=True))


def test_another_measure_is_another_job(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 1)
    out = tmp_path / "answers.jsonl"
    run(tmp_path / "images", out, choices=["yes", "no"])
    with pytest.raises(UsageError, match='score: was "logprob", is "mean"'):
        run(tmp_path / "images", out, choices=["yes", "no"], measure="mean")


def test_parquet_has_one_schema_with_and_without_choices(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 2, damaged=[1])
    generated, scored = tmp_path / "generated.parquet", tmp_path / "scored.parquet"
    run(tmp_path / "images", generated)
    run(tmp_path / "images", scored, choices=["yes", "no"])
    assert pq.read_schema(generated).equals(pq.read_schema(scored))
    assert pq.read_schema(scored).field("scores").type == pa.map_(pa.string(), pa.float64())
    assert pa.concat_tables(map(pq.read_table, (generated, scored))).num_rows == 12
    # Read again for a retry, the scores stay what they are.
    write_images(tmp_path / "images", 2)
    before = lines_of(scored)
    run(tmp_path / "images", scored, choices=["yes", "no"], retry_errors=True)
    assert lines_of(scored)[:3] == before[:3]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_jsonl_columns_and_prompts_are_passed_on(suffix: str, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 3)
    source = write_jsonl(
        tmp_path / "rows.jsonl",
        {"image": "images/000.jpg", "prompt": "fire?", "question": "fire", "label": "是", "n": 1},
        {"image": "images/000.jpg", "prompt": "door?", "question": 2, "n": 2.5},
        {"image": ["images/001.jpg", "images/002.jpg"], "prompt": "same?", "meta": {"a": [1]}},
        {"image": None, "prompt": "fire?"},
        {"image": "images/absent.jpg", "prompt": "fire?"},
        {"image": None, "prompt": "door?"},
    )
    out = tmp_path / f"answers{suffix}"
    model = FakeModel()
    summary = run(source, out, [], model)
    assert (summary.rows, summary.answers, summary.errors) == (6, 3, 3)
    lines = lines_of(out)
    assert [line["question"] for line in lines] == ["fire", "2", "same?", "fire?", "fire?", "door?"]
    assert [line.get("label") for line in lines[:2]] == ["是", None]
    assert [line.get("n") for line in lines[:3]] == [1, 2.5, None]
    assert lines[2]["meta"] == {"a": [1]}
    assert "row 3 names no image" in lines[3]["error"]
    assert "no such file" in lines[4]["error"]
    assert len(model.asked) == 4
    if suffix == ".jsonl":
        assert lines[2]["image"] == ["images/001.jpg", "images/002.jpg"]
        assert "label" not in lines[1] and lines[0]["image"] == "images/000.jpg"
    else:
        assert lines[0]["image"] == ["images/000.jpg"]


def test_parquet_columns_keep_their_types(tmp_path: Path) -> None:
    source = tmp_path / "rows.parquet"
    table = pa.table(
        {
            "when": pa.array([datetime(2025, 1, day) for day in range(1, 11)], pa.timestamp("us")),
            "image": [jpeg(width) for width in range(5, 15)],
            "embedding": pa.array([[float(i)] * 3 for i in range(10)], pa.list_(pa.float32(), 3)),
        }
    )
    pq.write_table(table, source, row_group_size=4)
    out = tmp_path / "answers.parquet"
    run(source, out, PROMPTS[:2])
    result = pq.read_table(out)
    assert result.column_names == [*OUTPUT_COLUMNS, "when", "embedding"]
    for name in ("when", "embedding"):
        expected = table.column(name).combine_chunks().take(pa.array([i // 2 for i in range(20)]))
        assert result.column(name).combine_chunks().equals(expected)
    assert result.num_rows == 20 and result.column("error").null_count == 20
    assert pq.ParquetFile(out).num_row_groups == 1
    with pytest.raises(UsageError, match="'when' is timestamp"):
        run(source, tmp_path / "answers.jsonl")


def test_parquet_input_gives_jsonl_output(tmp_path: Path) -> None:
    source = tmp_path / "rows.parquet"
    columns = {"image": [jpeg()] * 3, "prompt": ["a", "b", "c"], "weight": [0.5, math.nan, None]}
    pq.write_table(pa.table(columns), source)
    out = tmp_path / "answers.jsonl"
    run(source, out, [])
    lines = lines_of(out)
    assert [line["weight"] for line in lines] == [0.5, None, None]
    assert [line["prompt"] for line in lines] == ["a", "b", "c"]
    assert lines[0]["image"] == f"<{len(jpeg())} bytes>"


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_file_names_that_are_not_unicode(suffix: str, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    path = write_images(folder, 1)[0]
    path.rename(folder / "r\udce4um.jpg")
    out = tmp_path / f"answers{suffix}"
    assert run(folder, out).answers == 3
    assert lines_of(out)[0]["image"].endswith(
        "r\udce4um.jpg" if suffix == ".jsonl" else "r\\udce4um.jpg"
    )
    assert run(folder, out).resumed == 3


def test_jobs_that_cannot_run_are_refused_before_the_model_is_asked(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 1)
    plain = write_jsonl(tmp_path / "plain.jsonl", {"image": "images/000.jpg"})
    prompted = write_jsonl(tmp_path / "own.jsonl", {"image": "images/000.jpg", "prompt": "x"})
    clash = write_jsonl(tmp_path / "clash.jsonl", {"image": "images/000.jpg", "answer": "x"})
    mixed = write_jsonl(
        tmp_path / "mixed.jsonl", {"image": "a", "tag": "x"}, {"image": "a", "tag": 1}
    )
    cases: list[tuple[Path, str, dict[str, Any], str]] = [
        (prompted, "out.jsonl", {}, "have their own prompts"),
        (plain, "out.jsonl", {"prompts": []}, "has no column prompt"),
        (clash, "out.jsonl", {}, "the column 'answer'"),
        (plain, "out.csv", {}, r"must end in \.jsonl, \.ndjson or \.parquet"),
        (plain, "plain.jsonl", {}, "the input itself"),
        (plain, "images", {}, "must end in"),
        (plain, "out.jsonl", {"choices": ["yes"]}, "at least two"),
        (plain, "out.jsonl", {"choices": ["yes", "yes"]}, "at least two"),
        (plain, "out.jsonl", {"max_new_tokens": 0}, "1 or more"),
        (mixed, "out.parquet", {}, "column 'tag' have no common type"),
        (plain, "plain.jsonl/out.jsonl", {}, "cannot be written"),
    ]
    before = files_in(tmp_path)
    for source, out, options, part in cases:
        model = FakeModel()
        with pytest.raises(UsageError, match=part):
            run(source, tmp_path / out, model=model, **options)
        assert not model.asked and files_in(tmp_path) == before


def test_an_output_is_continued_by_the_same_job_alone(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 2)
    out = tmp_path / "answers.jsonl"
    run(tmp_path / "images", out)
    content = out.read_bytes()
    for options, part in (
        ({"artifact": "beef"}, 'artifact: was "f00d", is "beef"'),
        ({"tiles": "single"}, "tiles: was"),
        ({"choices": ["a", "b"]}, r"choices: was null, is \["),
        ({"max_new_tokens": 3}, "max new tokens: was 5, is 3"),
        ({"prompts": PROMPTS[:2]}, "prompts: was"),
    ):
        with pytest.raises(UsageError, match=part):
            run(tmp_path / "images", out, **options)
    with pytest.raises(UsageError, match=r'input: was ".*images", is ".*00\?\.jpg"'):
        run(tmp_path / "images" / "00?.jpg", out)
    assert out.read_bytes() == content
    out.unlink()
    assert run(tmp_path / "images", out, artifact="beef").resumed == 0


def test_an_output_of_unknown_origin_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 1)
    out = tmp_path / "answers.jsonl"
    out.write_text("precious\n")
    with pytest.raises(UsageError, match="ledger"):
        run(tmp_path / "images", out)
    assert out.read_text() == "precious\n"
    assert files_in(tmp_path) == {"images", "answers.jsonl"}


def test_two_jobs_do_not_write_one_output(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 1)
    out = tmp_path / "answers.jsonl"
    with locked_ledger(out), pytest.raises(UsageError, match="another job is writing"):
        run(tmp_path / "images", out)


def test_changed_and_damaged_outputs_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 3)
    out = tmp_path / "answers.jsonl"
    run(tmp_path / "images", out)
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join([lines[0], lines[2], lines[1], *lines[3:]]))
    with pytest.raises(IntegrityError, match=r"answers\.jsonl:2: is not the line"):
        run(tmp_path / "images", out)
    out.write_bytes(b"".join([lines[0], b'{"row": 0,\n', *lines[2:]]))
    with pytest.raises(IntegrityError, match=r"answers\.jsonl:2: is damaged"):
        run(tmp_path / "images", out)
    out.write_bytes(b"".join([*lines, lines[-1]]))
    with pytest.raises(IntegrityError, match=r"answers\.jsonl:10: is not the line"):
        run(tmp_path / "images", out)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_errors_are_retried_only_when_asked(suffix: str, tmp_path: Path) -> None:
    paths = write_images(tmp_path / "images", 6, damaged=[1, 3])
    out = tmp_path / f"answers{suffix}"
    assert run(tmp_path / "images", out).errors == 6
    write_images(tmp_path / "images", 6, damaged=[3])
    model = FakeModel()
    assert run(tmp_path / "images", out, model=model).errors == 6
    assert not model.asked
    summary = run(tmp_path / "images", out, model=model, retry_errors=True)
    assert (summary.answers, summary.errors, summary.resumed) == (15, 3, 18)
    assert [image for image, _ in model.asked] == [paths[1]] * 3 + [paths[3]] * 3
    fresh = tmp_path / f"fresh{suffix}"
    run(tmp_path / "images", fresh)
    assert lines_of(out) == lines_of(fresh)
    assert files_in(tmp_path) == {"images", *output_files(out), *output_files(fresh)}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_model_that_gives_up_leaves_whole_lines(suffix: str, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 7, damaged=[2])
    out = tmp_path / f"answers{suffix}"
    for fail_after in (8, 5):
        with pytest.raises(VlmcError, match="the device is gone"):
            run(tmp_path / "images", out, model=FakeModel(fail_after=fail_after))
    model = FakeModel()
    summary = run(tmp_path / "images", out, model=model)
    assert summary.resumed == 13 and len(model.asked) == 8
    fresh = tmp_path / f"fresh{suffix}"
    run(tmp_path / "images", fresh)
    assert out.read_bytes() == fresh.read_bytes()


def test_a_retry_that_is_broken_off_goes_on(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 6, damaged=[1, 3])
    out = tmp_path / "answers.jsonl"
    run(tmp_path / "images", out)
    write_images(tmp_path / "images", 6)
    with pytest.raises(VlmcError, match="gone"):
        run(tmp_path / "images", out, model=FakeModel(fail_after=4), retry_errors=True)
    model = FakeModel()
    summary = run(tmp_path / "images", out, model=model, retry_errors=True)
    assert summary.errors == 0 and len(model.asked) == 2
    run(tmp_path / "images", tmp_path / "fresh.jsonl")
    assert out.read_bytes() == (tmp_path / "fresh.jsonl").read_bytes()
    assert not out.with_name("answers.jsonl.retry.jsonl").exists()


class MiscountingModel(FakeModel):
    """Swallows or invents an answer at the end."""

    def __init__(self, change: int) -> None:
        super().__init__()
        self._change = change

    def try_each(self, requests: Iterable[tuple[Request, Work]]) -> Generator[Outcome, None, None]:
        answers = list(super().try_each(requests))
        if self._change < 0:
            del answers[self._change :]
        else:
            answers += answers[: self._change]
        yield from answers


@pytest.mark.parametrize(("change", "part"), [(-2, "2 questions unanswered"), (1, "more answers")])
def test_a_model_that_miscounts_is_found_out(change: int, part: str, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 2)
    with pytest.raises(VlmcError, match=part):
        run(tmp_path / "images", tmp_path / "answers.jsonl", model=MiscountingModel(change))


def test_scores_that_are_no_numbers_are_an_error(tmp_path: Path) -> None:
    class BrokenModel(FakeModel):
        def outcome(self, total: int, prompt: str, notes: Notes, work: Work) -> Any:
            assert isinstance(work, Choose)
            scores = dict.fromkeys(work.choices, math.nan), dict.fromkeys(work.choices, 1)
            return Scored(Scores(*scores), FakeAnswer(""))  # type: ignore[arg-type]

    write_images(tmp_path / "images", 1)
    out = tmp_path / "answers.jsonl"
    prompts = prompts_from_texts(["x"])
    run(tmp_path / "images", out, prompts, BrokenModel(), choices=["yes", "no"])
    assert "not a finite number" in lines_of(out)[0]["error"]
