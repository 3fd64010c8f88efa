"""What has to be true of every report, whatever was measured."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest


def check_case(case: dict[str, Any], runs: int = 3) -> None:
    """Rates, shares and counts of a case fit each other."""
    workload, counts = case["workload"], case["counts"]
    assert len(case["runs"]) == runs
    for run in case["runs"]:
        assert run["requests"] == workload["requests"]
        assert run["qpm"] == pytest.approx(60 * run["requests"] / run["seconds"])
    rates = [run["qpm"] for run in case["runs"]]
    qpm = case["qpm"]
    assert (qpm["min"], qpm["max"]) == (min(rates), max(rates))
    assert qpm["median"] == statistics.median(rates)
    wall = sum(run["seconds"] for run in case["runs"])
    stages = case["stages"]
    assert set(stages) == {"vision", "language_prefill", "language_decode", "copy", "idle"}
    assert sum(stage["share"] for stage in stages.values()) == pytest.approx(1)
    assert sum(stage["seconds"] for stage in stages.values()) == pytest.approx(wall)
    assert all(stage["seconds"] >= 0 for stage in stages.values())
    assert stages["vision"]["seconds"] > 0 < stages["language_prefill"]["seconds"]
    latency = case["latency_ms"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] <= 1e3 * wall
    assert 0 < case["image_workers"]["share"] <= 1
    requests = counts["requests"]
    assert requests == runs * workload["requests"]
    tokens = counts["prompt_tokens_computed"] + counts["prompt_tokens_reused"]
    assert tokens == pytest.approx(requests * workload["prompt_tokens_a_request"])
    # Every image is another one in every run, so nothing is reused of an earlier run.
    assert counts["images_decoded"] == runs * workload["images"]
    assert counts["tiles_encoded"] == runs * workload["images"] * workload["tiles_an_image"]
    rate = case["rate"]
    assert rate["whole"]["flops"] == rate["vision"]["flops"] + rate["language"]["flops"] > 0
    assert rate["whole"]["tflops"] == pytest.approx(rate["whole"]["flops"] / 1e12 / wall)
    for half in ("vision", "language"):
        found = rate[half]
        assert found["of_peak"] == pytest.approx(found["tflops"] / found["peak_tflops"])
    assert case["peak_memory_bytes"] > 0


def read_reports(folder: Path) -> dict[str, Any]:
    """The whole report of a folder, after a check of the page and of the cases beside it."""
    values: dict[str, Any] = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
    written = sorted(folder.glob("case-*.json"))
    assert len(written) == len(values["cases"])
    for path, case in zip(written, values["cases"], strict=True):
        assert json.loads(path.read_text(encoding="utf-8")) == {
            "environment": values["environment"],
            **case,
        }
    assert values["environment"]["cores"] >= 1
    assert values["environment"]["vlmc"] and values["environment"]["torch"]
    check_page((folder / "bench.html").read_text(encoding="utf-8"), values)
    return values


def check_page(text: str, values: dict[str, Any]) -> None:
    """The page is well-formed, names every case, draws each, and needs no network."""
    root = ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    svg = "{http://www.w3.org/2000/svg}"
    assert len(list(root.iter(f"{svg}svg"))) == len(values["cases"])
    assert len(list(root.iter(f"{svg}rect"))) > len(values["cases"])
    cells = {cell.text for cell in root.iter("td")}
    assert {case["name"] for case in values["cases"]} <= cells
    for element in root.iter():
        assert not {"src", "href"} & set(element.attrib), "the page refers to other files"
        assert element.tag not in ("script", "link", "img", "iframe")
    assert "url(" not in text and "@import" not in text
