"""What the checkpoint settles of a recipe, and what the recipe settles itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.recipe.texts import HEAD
from tests.recipes.released import RELEASED
from vlmc.image.tiles import TileRule
from vlmc.recipe.read import read_recipe
from vlmc.recipe.resolve import Resolved, resolve
from vlmc.text.template import TEMPLATES

CONFIG = replace(
    RELEASED["InternVL2-1B"].config, template="Hermes-2", min_tiles=2, max_tiles=6, thumbnail=False
)


def resolved(tmp_path: Path, *overrides: str, **changes: Any) -> Resolved:
    path = tmp_path / "recipe.yaml"
    path.write_text(HEAD)
    return resolve(read_recipe(path, overrides), replace(CONFIG, **changes))


@pytest.mark.parametrize(
    ("own", "overrides", "expected"),
    [
        (None, (), TEMPLATES["Hermes-2"].system_message),
        ("Look closely.", (), "Look closely."),
        ("", (), ""),
        ("Look closely.", ("model.system_message=Be brief.",), "Be brief."),
    ],
)
def test_the_nearest_system_message_is_taken(
    own: str | None, overrides: tuple[str, ...], expected: str, tmp_path: Path
) -> None:
    found = resolved(tmp_path, *overrides, system_message=own)
    assert found.system_message == found.recipe.model.system_message == expected


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("image.tiles={rule: original}", TileRule("original", 2, 6, False)),
        ("image.tiles={rule: original, max: 4}", TileRule("original", 2, 4, False)),
        ("image.tiles={rule: original, thumbnail: true}", TileRule("original", 2, 6, True)),
        ("image.tiles={rule: native}", TileRule("native")),
    ],
)
def test_original_takes_from_the_checkpoint_what_the_recipe_leaves_out(
    override: str, expected: TileRule, tmp_path: Path
) -> None:
    found = resolved(tmp_path, override)
    assert found.tiles == found.image_rules.tiles == expected
    assert found.published_tiles == TileRule("original", 2, 6, False)


def test_the_recipe_that_an_artifact_holds_has_no_folder(tmp_path: Path) -> None:
    found = resolved(
        tmp_path, "model.checkpoint=/models/InternVL2-1B", "accuracy.dataset=/data/eval.jsonl"
    )
    assert found.recipe.model.checkpoint == "InternVL2-1B"
    assert found.recipe.accuracy.dataset == "eval.jsonl"
