"""Recipes made to run code, to grow, or to ask for more than a machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.artifacts import write_recipe
from tests.attacks.attempt import attempt

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
)
TEXTS = {
    "apply": ("a: !!python/object/apply:os.system ['touch owned']\n", "the tag "),
    "new": ("a: !!python/object/new:os.system ['touch owned']\n", "the tag "),
    "name": ("a: !!python/name:os.system\n", "the tag "),
    "own-tag": ("a: !vlmc {}\n", "the tag "),
    "tag-directive": ("%TAG ! tag:yaml.org,2002:python/\n---\na: !name:os.system\n", "the tag "),
    "aliases": (BOMB, "anchors and aliases are not used"),
    "own-alias": ("a: &a [*a]\n", "anchors and aliases are not used"),
    "merge": ("a: {<<: *b}\n", "anchors and aliases are not used"),
    "nested-flow": ("a: " + "[" * 200_000, "nested too deeply"),
    "nested-blocks": ("".join(" " * i + "a:\n" for i in range(600)), "nested too deeply"),
    "nested-lists": ("- " * 100_000, "nested too deeply"),
    "long-number": ("version: " + "9" * 200_000, "cannot be read"),
    "sexagesimal": ("version: " + "1" + ":59" * 80_000, "cannot be read"),
    "long-key": ("x" * 200_000 + ": 1\n", "recipe.yaml:1: "),
    "many-keys": ("".join(f"k{i}: 1\n" for i in range(20_000)), "more"),
    "large": ("#" * 2_000_000, "larger than"),
}
OVERRIDES = {
    "tag": ("name=!!python/object/apply:os.system ['touch owned']", "the tag "),
    "alias": ("vision.profiles=[&a {min: 1}, *a]", "anchors and aliases are not used"),
    "nested": ("name=" + "[" * 50_000, "nested too deeply"),
    "long-path": (".".join("a" * 20_000) + "=1", "expected KEY.KEY=VALUE"),
    "tiles": ("image.tiles={rule: original, max: 1000000000}", "between 1 and 1024"),
    "tolerance": ("image.tiles={rule: native, tolerance: .inf}", "tolerance is inf"),
    "outside": ("name=../../outside", "a name becomes a folder's name"),
}


def refused(folder: Path, said: str, *arguments: object) -> None:
    ended = attempt(folder, "build", *arguments, "-o", "artifact")
    assert ended.exit_code == 2, ended
    assert "Traceback" not in ended.stderr and ended.stdout == ""
    assert said in ended.stderr and len(ended.stderr) < 5000, ended.stderr[:2000]
    assert not (folder / "artifact").exists() and not (folder / "owned").exists()


@pytest.mark.parametrize("name", TEXTS)
def test_a_made_recipe(name: str, tmp_path: Path) -> None:
    text, said = TEXTS[name]
    (tmp_path / "recipe.yaml").write_text(text)
    refused(tmp_path, said, "recipe.yaml")


@pytest.mark.parametrize("name", OVERRIDES)
def test_a_made_override(name: str, miniature: Path, tmp_path: Path) -> None:
    assignment, said = OVERRIDES[name]
    recipe = write_recipe(tmp_path / "recipe.yaml", miniature)
    refused(tmp_path, said, recipe, "--set", assignment)
