"""`vlmc verify accuracy --against`: two artifacts, question by question."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.artifacts import copy_with
from tests.command import call


@pytest.fixture
def other(artifact: Path, tmp_path: Path) -> Path:
    """The same weights with one tile, which knows neither its source nor its dataset."""
    tiles = {"name": "native", "min": 1, "max": 1, "thumbnail": False, "tolerance": 0.05}
    folder = copy_with(artifact, tmp_path / "other", image__tiles=tiles)
    shutil.rmtree(folder / "reports")
    return folder


def test_two_artifacts_are_compared(copied: Path, other: Path, questions: Path) -> None:
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    said = call("verify", "accuracy", copied, "--against", copied, "--dataset", questions, "--json")
    assert said.exit_code == 0
    same = json.loads(said.stdout)
    assert same["answers"]["agreement"]["value"] == 1 and same["disagreements"] == []
    assert same["artifact"]["identity"] == same["against"]["identity"]

    options = ("--dataset", questions, "--against", copied)
    found = json.loads(call("verify", "accuracy", other, *options, "--json").stdout)
    # A picture of a tile's own size is the same to both.
    changed = {pair["line"] for pair in found["disagreements"]}
    assert changed and changed <= {4, 5, 6}
    assert found["answers"]["agreement"]["value"] == pytest.approx(1 - len(changed) / 6, abs=1e-6)
    assert found["artifact"]["tiles"] != found["against"]["tiles"]
    for pair in found["disagreements"]:
        assert pair["against"] != pair["answer"] and pair["against_first_logprob"] < 0
        assert pair["prompt"] == rows[pair["line"] - 1]["prompt"]
    assert found["answers"]["against"]["recall"]["n"] == 6
    assert found["answers"]["recall_drop"]["mcnemar_p"] == 1
    assert found["answers"]["questions"]["presence"]["against"]["recall"]["n"] == 2

    shown = call("verify", "accuracy", other, *options)
    assert shown.exit_code == 0
    for part in ("answers     agreement", "            against: exact match", "McNemar p 1.0000"):
        assert part in shown.stdout
    assert shown.stdout.count(" became ") == len(changed)
    for folder in (copied, other):
        assert not list(folder.glob("reports/accuracy-*")), "it is not a status"


def test_options_without_an_effect_are_refused(copied: Path, questions: Path) -> None:
    for options in (("--source", "a"), ("--reference", "a"), ("--strict",), ("--explain",)):
        refused = call("verify", "accuracy", copied, "--against", copied, *options)
        assert refused.exit_code == 2
        assert f"{options[0]} has no effect beside --against" in refused.stderr
