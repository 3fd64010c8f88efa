"""`vlmc bench` on a GPU: stages from CUDA events, within the run and consistent."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tests.bench.consistency import check_case, read_reports
from tests.command import call
from vlmc.runtime.requests import timeline

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_a_small_model_without_compilation(tmp_path: Path) -> None:
    output = tmp_path / "report"
    done = call(
        *("bench", "--synthetic", "internvl2-1b", "--engine", "eager", "--cases", "2,1"),
        *("--requests", 24, "--language", "bf16,fp8", "-o", output),
    )
    assert done.exit_code == 0, done.stderr
    values = read_reports(output)
    assert values["environment"]["gpu"]["name"] == torch.cuda.get_device_name()
    for case in values["cases"]:
        check_case(case)
        assert case["subject"]["cuda_graphs"]
        assert case["stages"]["language_decode"]["seconds"] > 0
        assert 0 < case["rate"]["whole"]["of_peak"] < 1
    peaks = values["peaks_tflops"]
    assert peaks["float8"] > peaks["bfloat16"]


def test_spans_have_the_devices_times() -> None:
    device = torch.device("cuda", 0)
    matrix = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    with timeline.recording(device) as recorder:
        for _ in range(3):
            with timeline.span("vision", device, tiles=1):
                for _ in range(20):
                    torch.mm(matrix, matrix)
    spans = recorder.spans()
    assert len(spans) == 3
    for before, span in pairwise(spans):
        # The host launches them at once, the device runs one after another.
        assert span.start < before.device_end <= span.device_start < span.device_end
    assert spans[-1].device_end > spans[-1].end
