"""Which answers are audited, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.jobs.fake import FakeAnswer, FakeModel, write_images
from tests.jobs.input.write import write_jsonl
from tests.jobs.small_job import run
from vlmc.errors import NotFiniteError
from vlmc.jobs.audit import Audit, AuditResult


class AuditedModel(FakeModel):
    """Its reference path gives `found` in turn; an exception is raised."""

    def __init__(self, *found: Any) -> None:
        super().__init__()
        self._found = list(found)
        self.audited: list[str] = []

    def reference_answer(self, request: Any, work: Any) -> Any:
        self.audited.append(request[1])
        found = self._found.pop(0) if self._found else None
        if isinstance(found, Exception):
            raise found
        return FakeAnswer(found or next(iter(super().try_each([(request, work)]))).text)


def test_the_sample_follows_from_the_lines(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 40, damaged=[3])
    samples = []
    for name in ("a", "b"):
        model = AuditedModel()
        summary = run(
            tmp_path / "images", tmp_path / f"{name}.jsonl", model=model, audit=Audit(model, 0.2)
        )
        assert summary.audit is not None
        assert summary.audit.checked == summary.audit.agreed == len(model.audited)
        samples.append(model.audited)
    assert samples[0] == samples[1] and 10 < len(samples[0]) < 40


def test_errors_of_the_reference_path(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 2)
    model = AuditedModel(
        "another",
        torch.OutOfMemoryError("CUDA out of memory."),
        NotFiniteError("NaN"),
        MemoryError(),
    )
    summary = run(tmp_path / "images", tmp_path / "o.jsonl", model=model, audit=Audit(model, 1))
    assert isinstance(summary.audit, AuditResult) and summary.errors == 0
    assert (summary.audit.checked, summary.audit.agreed, summary.audit.failed) == (4, 2, 2)
    first, second = summary.audit.disagreements
    assert (first["row"], first["question"], first["reference"]) == (0, "fire", "another")
    assert second["reference"] == "error: NaN"
    broken = AuditedModel(RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        run(tmp_path / "images", tmp_path / "p.jsonl", model=broken, audit=Audit(broken, 1))


def test_drawn_answers_are_left_out(tmp_path: Path) -> None:
    def body(**options: Any) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": "?"}], **options}

    batch = write_jsonl(
        tmp_path / "batch.jsonl",
        {"custom_id": "a", "body": body()},
        {"custom_id": "b", "body": body(temperature=1)},
    )
    model = AuditedModel()
    summary = run(batch, tmp_path / "o.jsonl", [], model, audit=Audit(model, 1))
    assert summary.audit is not None and summary.audit.checked == 1
