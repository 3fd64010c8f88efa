"""The confidence of generated answers as columns."""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs.fake import FakeAnswer, FakeModel, write_images
from tests.jobs.input.write import write_jsonl
from tests.jobs.small_job import PROMPTS, run
from vlmc.errors import UsageError, VlmcError
from vlmc.jobs.output.columns import CONFIDENCE_COLUMNS, OUTPUT_COLUMNS
from vlmc.jobs.question_runner import Work
from vlmc.runtime.requests.request import Request


class Sure(FakeModel):
    """Answers by tokens of probability 0.9 and 0.5, and in the end by none."""

    def try_each(self, requests: Iterable[tuple[Request, Work]]) -> Generator[Any, None, None]:
        for number, _ in enumerate(requests):
            logprobs = (math.log(0.9), math.log(0.5)) if number < 2 else ()
            yield VlmcError("cut") if number == 1 else FakeAnswer("x", token_logprobs=logprobs)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_mean_and_least_probability(suffix: str, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 3)
    out = tmp_path / f"answers{suffix}"
    run(tmp_path / "images", out, PROMPTS[:1], Sure(), confidence=True)
    if suffix == ".parquet":
        schema = pq.read_schema(out)
        assert all(schema.field(name).type == pa.float64() for name in CONFIDENCE_COLUMNS)
        lines = pq.read_table(out).to_pylist()
    else:
        lines = [json.loads(line) for line in out.open()]
    assert tuple(lines[0]) == (*OUTPUT_COLUMNS, *CONFIDENCE_COLUMNS)
    assert lines[0]["mean_probability"] == pytest.approx(0.7)
    assert lines[0]["least_probability"] == pytest.approx(0.5)
    for line in lines[1:]:
        assert line["mean_probability"] is line["least_probability"] is None
    # The other lines stay through a retry, with their columns.
    again = run(tmp_path / "images", out, PROMPTS[:1], Sure(), confidence=True, retry_errors=True)
    assert again.errors == 0


def test_without_it_the_columns_are_free(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 1)
    source = write_jsonl(
        tmp_path / "rows.jsonl", {"image": "images/000.jpg", "mean_probability": 1}
    )
    out = tmp_path / "answers.jsonl"
    run(source, out)
    assert json.loads(out.read_text().splitlines()[0])["mean_probability"] == 1
    with pytest.raises(UsageError, match="column 'mean_probability'"):
        run(source, tmp_path / "other.jsonl", confidence=True)
    with pytest.raises(UsageError, match="confidence: was false, is true"):
        run(write_jsonl(source, {"image": "images/000.jpg"}), out, confidence=True)
