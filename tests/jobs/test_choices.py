"""Questions with choices of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.jobs.fake import FakeModel, write_images
from tests.jobs.input.write import write_jsonl
from tests.jobs.small_job import run
from vlmc.errors import UsageError
from vlmc.jobs.input.prompts import Prompt, prompts_from_file
from vlmc.jobs.output.columns import OUTPUT_COLUMNS

MIXED = [
    Prompt("fire", "fire?", ("yes", "no")),
    Prompt("door", "door?"),
    Prompt("colour", "colour?", ("red", "green", "blue")),
]


def test_choices_are_read_from_a_prompts_file(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "prompts.jsonl",
        {"prompt": "fire?", "question": "fire", "choices": ["yes", "no"]},
        {"prompt": "door?", "choices": None},
    )
    assert prompts_from_file(path) == [MIXED[0], Prompt("door?", "door?")]
    for choices in ("yes", ["yes"], ["yes", "yes"], ["yes", ""], ["yes", 1], {"a": 1}):
        write_jsonl(path, {"prompt": "fire?", "choices": choices})
        with pytest.raises(UsageError, match=r"prompts\.jsonl:1: the choices are .* at least two"):
            prompts_from_file(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_one_pass_scores_some_questions_and_generates_others(suffix: str, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 2)
    out = tmp_path / f"answers{suffix}"
    model = FakeModel()
    assert run(tmp_path / "images", out, MIXED, model, confidence=True).answers == 6
    assert [prompt for _, prompt in model.asked] == ["fire?", "door?", "colour?"] * 2
    lines = (
        pq.read_table(out).to_pylist(maps_as_pydicts="strict")
        if suffix == ".parquet"
        else [json.loads(line) for line in out.open()]
    )
    assert tuple(lines[0])[: len(OUTPUT_COLUMNS)] == OUTPUT_COLUMNS
    for line in lines:
        own = {prompt.question: prompt.choices for prompt in MIXED}[line["question"]]
        assert list(line["scores"] or ()) == list(own or ())
        assert own is None or line["answer"] in own
        assert (line["mean_probability"] is None) == (own is not None)


def test_the_jobs_choices_are_for_questions_without_their_own(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 1)
    out = tmp_path / "answers.jsonl"
    run(tmp_path / "images", out, MIXED, choices=["a", "b"], measure="probability")
    scores = [json.loads(line)["scores"] for line in out.open()]
    assert [list(found) for found in scores] == [["yes", "no"], ["a", "b"], [*MIXED[2].choices]]  # type: ignore[misc]
    assert all(sum(found.values()) == pytest.approx(1) for found in scores)


def test_other_choices_are_another_job(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 1)
    out = tmp_path / "answers.jsonl"
    run(tmp_path / "images", out, MIXED)
    changed = [Prompt("fire", "fire?", ("yes", "maybe")), *MIXED[1:]]
    with pytest.raises(UsageError, match=r'prompts: was .*"no".*"maybe"'):
        run(tmp_path / "images", out, changed)
    with pytest.raises(UsageError, match="works for generated answers only"):
        run(tmp_path / "images", tmp_path / "b.jsonl", MIXED[::2], confidence=True)
