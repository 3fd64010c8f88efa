"""`--sweep`: recall against image tokens and speed, of an artifact and of the source alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.artifacts import write_recipe
from tests.command import call
from vlmc.artifact.manifest import ImageRules
from vlmc.errors import UsageError
from vlmc.image.tiles import TileRule
from vlmc.verify.sweep import Setting, parse_sweeps

PUBLISHED = TileRule("original")


def check_points(points: list[dict[str, Any]], keeps: bool) -> None:
    """A picture of one tile and one of seven, three questions on each."""
    tokens = {point["label"]: point["tokens_per_image"] for point in points}
    assert tokens["tiles=1"] == 256
    assert tokens["tiles=12"] == 256 * (1 + 7) / 2
    assert [point["n"] for point in points] == [6] * len(points)
    agreement = {point["label"]: point["agreement"] for point in points}
    assert agreement["tiles=12"] == 1, "the published rule itself"
    assert 0.5 <= agreement["tiles=1"] < 1, "the picture of one tile is the same"
    assert all(point["qpm"] > 0 and point["recall"] == 0 for point in points)
    if keeps:
        assert tokens["keep=1"] == tokens["tiles=12"] and agreement["keep=1"] == 1
        assert tokens["keep=0.5"] == tokens["keep=1"] / 2


def test_an_artifact_is_swept(copied: Path, questions: Path) -> None:
    sweeps = ("--sweep", "tiles=1,12", "--sweep", "keep=1,0.5")
    command = ("verify", "accuracy", copied, "--dataset", questions, *sweeps)
    found = call(*command, "--json")
    assert found.exit_code == 0, found.stderr
    told = json.loads(found.stdout)
    (engine,) = told["engines"]
    assert [one["label"] for one in engine["sweep"]] == [
        "tiles=1",
        "tiles=12",
        "keep=1",
        "keep=0.5",
    ]
    check_points(engine["sweep"], keeps=True)
    stored = json.loads(Path(told["report"]).read_text())
    assert stored["engines"][0]["sweep"] == engine["sweep"]


def test_the_source_is_swept_alone(miniature: Path, questions: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", miniature)
    with recipe.open("a") as file:
        file.write(f"accuracy: {{dataset: {questions}}}\n")
    swept = call("verify", "reference", recipe, "--sweep", "tiles=1,12", "--json")
    assert swept.exit_code == 0, swept.stderr
    told = json.loads(swept.stdout)
    assert told["reference"] is None
    check_points(told["sweep"], keeps=False)
    out = tmp_path / "reference"
    shown = call("verify", "reference", recipe, "--sweep", "keep=0.5", "-o", out)
    assert shown.exit_code == 0 and out.is_file()
    assert "tokens an image" in shown.stdout and "keep=0.5" in shown.stdout
    refused = call("verify", "reference", recipe)
    assert refused.exit_code == 2 and "name a file with -o, or what to --sweep" in refused.stderr


@pytest.mark.parametrize(
    "text", ["", "tiles", "tiles=", "tiles=0", "tiles=1.5", "tiles=2,x", "keep=0", "keep=2", "a=1"]
)
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be read; write tiles="):
        parse_sweeps([text])


def test_a_setting_changes_what_it_names() -> None:
    native = ImageRules("opencv", "apply", TileRule("native", max=4, tolerance=0.1), PUBLISHED)
    two, half = (setting.of(native) for setting in parse_sweeps(["tiles=2", "keep=0.5"]))
    assert two == ImageRules("opencv", "apply", TileRule("native", max=2, tolerance=0.1), PUBLISHED)
    assert (half.tiles, half.keep) == (native.tiles, 0.5)
    least = ImageRules("pillow", "ignore", TileRule("original", min=4), PUBLISHED)
    assert Setting("tiles", 2).of(least).tiles == TileRule("original", min=2, max=2)
    single = ImageRules("pillow", "ignore", TileRule("single"), PUBLISHED)
    assert Setting("tiles", 6).of(single).tiles == TileRule("original", max=6)
    only = ImageRules("pillow", "ignore", TileRule("single"), TileRule("single"))
    with pytest.raises(UsageError, match="--sweep tiles has nothing to vary"):
        Setting("tiles", 6).of(only)
