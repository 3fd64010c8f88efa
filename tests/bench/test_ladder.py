"""The ladder: each lever on top of those before, and its gain over the one before."""

from __future__ import annotations

from vlmc.bench.ladder import ladder_values, rungs
from vlmc.image.tiles import TileRule

FIRST, LAST = TileRule("original"), TileRule("native", max=2)


def test_each_lever_stands_on_those_before() -> None:
    found = {rung.lever: rung.setting for rung in rungs(FIRST, LAST, {})}
    baseline, last = found["baseline"], found["quantization"]
    assert (baseline.resampler, baseline.eager, baseline.through_cpu) == ("pillow", True, True)
    assert (baseline.tiles, baseline.cuda_graphs, baseline.quantized) == (FIRST, False, False)
    assert (last.resampler, last.eager, last.through_cpu) == ("opencv", False, False)
    assert (last.tiles, last.cuda_graphs, last.quantized) == (LAST, True, True)
    assert found["features"].tiles == FIRST and not found["features"].cuda_graphs


def test_a_lever_that_cannot_be_shown_changes_nothing_that_follows() -> None:
    found = {rung.lever: rung for rung in rungs(FIRST, LAST, {"graphs": "it runs on a CPU"})}
    assert found["graphs"].missing == "it runs on a CPU"
    assert found["graphs"].setting == found["features"].setting
    assert not found["quantization"].setting.cuda_graphs


def test_gains_are_over_the_lever_before_and_over_the_baseline() -> None:
    ladder = rungs(FIRST, LAST, {"engine": "there is none"})
    cases = {
        lever: {"qpm": {"median": qpm}}
        for lever, qpm in (("baseline", 100.0), ("resampler", 150.0), ("features", 300.0))
    }
    values = {value["lever"]: value for value in ladder_values(ladder, cases)}  # type: ignore[arg-type]
    assert values["baseline"]["of_previous"] is None
    assert values["resampler"]["of_previous"] == values["resampler"]["of_baseline"] == 1.5
    assert values["engine"]["qpm"] is values["engine"]["of_previous"] is None
    assert (values["features"]["of_previous"], values["features"]["of_baseline"]) == (2, 3)
