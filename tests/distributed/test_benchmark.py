"""The benchmark of large decoders, on a miniature and two processes on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.tensor_parallel_gpu import main


def test_it_measures_one_device_and_two(tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    shape = ["--device", "cpu", "--shape", "miniature", "--tokens", "40", "--repeats", "1"]
    main([str(output), *shape, "--cases", "fp32:2,fp32:65"])
    report = json.loads(output.read_text())
    (case,) = report["cases"]
    assert report["left_out"] == ["fp32:65: 64 devices are there"]
    assert case["several"]["logits_are_finite"]
    ratio = case["several"]["prefill_tflops"] / case["one_device"]["prefill_tflops"]
    assert case["prefill_ratio_to_one"] == pytest.approx(ratio)
    assert case["fraction_of_peak"] == pytest.approx(
        case["several"]["prefill_tflops"] / (2 * case["peak_tflops_of_one"])
    )
    prefill, *decode = case["several"]["all_reduce"]
    assert prefill["bytes"] == 40 * 64 * 4
    assert [step["bytes"] for step in decode] == [64 * 4, 32 * 64 * 4]
    assert all(step["share_of_step"] > 0 for step in (prefill, *decode))
