"""Every worked recipe is read, fits its model, and says true figures of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recipes.publish import PUBLISHED, ROOT
from tests.recipes.released import RELEASED
from vlmc.recipe.fit import check_fit
from vlmc.recipe.read import read_recipe

QUICKSTART = ROOT / "recipes" / "quickstart" / "recipe.yaml"
WORKED = sorted((ROOT / "recipes").glob("*.yaml"))
FIGURE = re.compile(r"^#   (\w+) +([\d.]+) GB", re.MULTILINE)


def test_the_sizes_that_are_asked_for_are_there() -> None:
    models = {Path(read_recipe(path).model.checkpoint).name for path in WORKED}
    assert models == RELEASED.keys()


@pytest.mark.parametrize("path", WORKED, ids=lambda path: path.stem)
def test_recipe_is_read_and_fits_its_model(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    check_fit(recipe, RELEASED[Path(recipe.model.checkpoint).name].config)


@pytest.mark.parametrize("path", WORKED, ids=lambda path: path.stem)
def test_figures_are_those_of_the_shapes(path: Path) -> None:
    recipe = read_recipe(path)
    expected = RELEASED[Path(recipe.model.checkpoint).name].gigabytes(recipe)
    text = path.read_text(encoding="utf-8")
    figures = {name: float(figure) for name, figure in FIGURE.findall(text)}
    assert figures == {name: pytest.approx(count, abs=0.006) for name, count in expected.items()}
    (card,) = re.findall(r"of (\d+) GB; the engines' workspaces", text)
    assert figures["sum"] < 0.8 * int(card)


@pytest.mark.parametrize("path", [*WORKED, QUICKSTART], ids=lambda path: path.stem)
def test_editors_find_the_schema(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    place = first.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / place).resolve() == ROOT / "recipes" / "schema.json"


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_file_is_current(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == PUBLISHED[name](), (
        "stale; run python -m recipes.publish"
    )
