"""The arithmetic of a measurement, and the marks that keep its runs apart."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from vlmc.bench.engines import BATCH, EagerEngine
from vlmc.bench.stages import Bar, device_bars, stage_seconds
from vlmc.bench.summary import percentile
from vlmc.bench.workload import Workload
from vlmc.errors import UsageError
from vlmc.image.decode import read_picture
from vlmc.models.flops import RowWork
from vlmc.runtime.engines.lent import Lent
from vlmc.runtime.requests.timeline import Span

Name = Literal["request", "prepare", "copy", "vision", "language"]


def span(name: Name, start: float, end: float, rows: tuple[RowWork, ...] = ()) -> Span:
    """Launched at once, and run by the device from `start` to `end`."""
    return Span(name, "vlmc-loop", 0.0, 0.1, start, end, 0, rows)


def test_a_mixed_step_is_divided_by_its_tokens() -> None:
    rows = (RowWork(50, 1, True, True), RowWork(0, 3, False, True))
    (prefill, decode) = device_bars([span("language", 1.0, 2.0, rows)])
    assert prefill == Bar("language_prefill", 1.0, 1.75)
    assert decode == Bar("language_decode", 1.75, 2.0)
    (alone,) = device_bars([span("language", 1.0, 2.0, rows[:1]), span("request", 0.0, 3.0)])
    assert alone == Bar("language_decode", 1.0, 2.0)


def test_stages_and_idle_are_the_whole_time() -> None:
    bars = [
        Bar("vision", 1.0, 4.0),
        Bar("copy", 0.5, 1.5),
        Bar("language_prefill", 3.0, 5.0),
        Bar("language_decode", 6.0, 12.0),
        Bar("language_prefill", 3.5, 4.0),
    ]
    # At 3 to 4 the tower runs beside the language model; what lies after the end does not count.
    assert stage_seconds(bars, 10.0) == {
        "language_prefill": 2.0,
        "language_decode": 4.0,
        "vision": 2.0,
        "copy": 0.5,
        "idle": 1.5,
    }
    assert stage_seconds([], 2.0)["idle"] == 2.0


def test_percentiles_are_nearest_ranks() -> None:
    values = list(range(1, 101))
    assert [percentile(values, p) for p in (50, 95, 99)] == [50, 95, 99]
    assert percentile([7.0], 50) == percentile([7.0], 99) == 7.0
    assert [percentile(range(1, 11), p) for p in (1, 50, 51, 95, 99)] == [1, 5, 6, 10, 10]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_mark_changes_the_bytes_and_no_pixel(form: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    content = file.getvalue()
    workload = Workload([content, content], ("a", "b"))
    asked = [request for run in (1, 2) for request in workload._asked(workload.images, run)]
    assert [question for _, question in asked] == ["a", "b"] * 4
    assert len({image for image, _ in asked}) == 4, "one for each image and run"

    def decoded(image: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        return read_picture(image, exif="ignore", high_bit_depth="original", name="x").pixels

    for image, _ in asked:
        np.testing.assert_array_equal(decoded(image), decoded(content))


def test_no_images_are_refused() -> None:
    with pytest.raises(UsageError, match="no images"):
        Workload([])


def test_an_eager_engine_runs_in_batches_and_a_lent_one_stays_open() -> None:
    sizes = []

    def run(tiles: torch.Tensor) -> torch.Tensor:
        sizes.append(len(tiles))
        return tiles.float().mean((1, 2))

    engine = EagerEngine(run, "fp32", torch.device("cpu"), BATCH)
    tiles = torch.arange(120, dtype=torch.uint8).view(120, 1, 1, 1).expand(120, 2, 2, 3)
    for lent in (Lent(engine), Lent(engine, through_cpu=True)):
        features = lent.infer(tiles)
        assert features[:, 0].tolist() == list(range(120))
        lent.close()
    assert sizes == [104, 16, 104, 16]
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.infer(tiles)
