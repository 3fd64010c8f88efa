"""What a model reports of its work while it is recorded, and that nothing is kept otherwise."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future

import numpy as np
import numpy.typing as npt
import pytest
import torch

from vlmc import Model
from vlmc.errors import UsageError
from vlmc.runtime.requests import timeline

CPU = torch.device("cpu")


def test_every_stage_of_every_request(model: Model, pictures: list[npt.NDArray[np.uint8]]) -> None:
    asked = [(picture, "What is this?") for picture in pictures[:3]]
    before = model.statistics
    with timeline.recording(CPU) as recorder:
        answers = model.generate(asked, max_new_tokens=2)
    after, spans = model.statistics, recorder.spans()
    assert [span.start for span in spans] == sorted(span.start for span in spans)
    counts = Counter(span.name for span in spans)
    assert counts["request"] == counts["prepare"] == 3
    threads = {span.thread.rstrip("_0123456789") for span in spans if span.name == "prepare"}
    assert threads == {"vlmc-prepare"}
    vision = [span for span in spans if span.name == "vision"]
    assert sum(span.tiles for span in vision) == after.tiles_encoded - before.tiles_encoded == 3
    assert counts["copy"] == counts["vision"]
    rows = [row for span in spans if span.name == "language" for row in span.rows]
    computed = after.prompt_tokens_computed - before.prompt_tokens_computed
    assert sum(row.count for row in rows if not row.is_decode) == computed
    assert sum(row.ends_prompt for row in rows) >= sum(len(a.token_ids) for a in answers)
    for span in spans:
        assert 0 <= span.start <= span.end
        assert (span.device_start, span.device_end) == (span.start, span.end)
    last = max(span.end for span in spans if span.name == "request")
    assert all(span.start < last for span in spans)


def test_nothing_is_kept_outside(model: Model, pictures: list[npt.NDArray[np.uint8]]) -> None:
    with timeline.recording(CPU) as recorder:
        pass
    model.generate([(pictures[4], "What is this?")], max_new_tokens=1)
    timeline.follow(Future())
    assert recorder.spans() == []
    assert timeline.span("vision") is timeline.span("copy"), "no object of its own, no clock"
    with timeline.span("language", rows=lambda: pytest.fail("rows are asked for")):
        pass


def test_one_recording_at_a_time() -> None:
    with (
        timeline.recording(CPU),
        pytest.raises(UsageError, match="under way"),
        timeline.recording(CPU),
    ):
        pass
    with timeline.recording(CPU) as recorder, timeline.span("copy"):
        pass
    assert [span.name for span in recorder.spans()] == ["copy"]
