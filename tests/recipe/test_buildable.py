"""What this version can read and plan, and refuses to build."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recipe.texts import FULL, MINIMAL
from vlmc.builder.build import build
from vlmc.errors import RecipeError
from vlmc.recipe.buildable import check_buildable
from vlmc.recipe.read import read_recipe


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


def refused(path: Path, text: str, *overrides: str) -> list[str]:
    """The lines that `vlmc build` says of a recipe that is read, its folder left out."""
    path.write_text(text)
    recipe = read_recipe(path, overrides)
    with pytest.raises(RecipeError) as caught:
        build(recipe, path.parent / "artifact")
    assert caught.value.exit_code == 2
    assert [file.name for file in path.parent.iterdir()] == ["recipe.yaml"], "before any work"
    return str(caught.value).replace(f"{path.parent}/", "").splitlines()


LATER_KEYS = [
    "runtime: {cuda_graphs: true}",
    "runtime: {prefix_cache: off}",
    "runtime: {max_batch_tokens: 16384}",
]


@pytest.mark.parametrize("key", LATER_KEYS)
def test_key_without_effect_is_refused_where_it_is_written(key: str, path: Path) -> None:
    """With the default's value too: who writes it expects it to act."""
    (message,) = refused(path, f"{MINIMAL}{key}\n")
    name = key.replace(": {", ".").split(":")[0].rstrip(".}")
    assert message.startswith(f"recipe.yaml:5: {name} is not supported by this version; ")
    assert message.endswith(". Remove the key.")


def test_override_is_told_as_such(path: Path) -> None:
    assert refused(
        path,
        MINIMAL,
        "runtime.prefix_cache=off",
    ) == [
        "--set runtime.prefix_cache=off: runtime.prefix_cache is not supported by this version; "
        "the runtime's settings are fixed in it. Remove the key.",
    ]


def test_every_key_is_told_once(path: Path) -> None:
    messages = refused(path, FULL)
    keys = [message.split(" ")[1].rstrip(":") for message in messages]
    assert len(keys) == len(set(keys)) == 3
    assert all("is not supported by this version" in message for message in messages)


def test_what_acts_is_built(path: Path) -> None:
    path.write_text(
        MINIMAL.replace("fp32}", "fp32, engines: [{engine: onnxruntime}, {engine: inductor}]}")
        + "language: {scheme: w4a16, group_size: 32}\ncalibration: {dataset: x.jsonl}\n"
    )
    check_buildable(read_recipe(path))


def test_an_artifacts_recipe_has_no_key_without_effect(path: Path) -> None:
    path.write_text(MINIMAL)
    plain = read_recipe(path).to_json()
    assert plain["vision"] == {
        "precision": "fp32",
        "engines": [{"engine": "onnxruntime"}],
        "profiles": [{"min": 1, "opt": 4, "max": 13}],
    }
    assert plain["language"] == {"scheme": "none"}
    assert list(plain) == [
        "version",
        "name",
        "model",
        "image",
        "vision",
        "language",
        "accuracy",
    ]
    path.write_text(f"{MINIMAL}language: {{scheme: fp8}}\n")
    assert read_recipe(path).to_json()["language"] == {"scheme": "fp8", "keep": []}
    path.write_text(f"{MINIMAL}language: {{scheme: w4a16}}\ncalibration: {{dataset: x.jsonl}}\n")
    plain = read_recipe(path).to_json()
    assert plain["language"].keys() == {"scheme", "method", "group_size", "symmetric", "keep"}
    assert plain["calibration"].keys() == {"dataset", "modality", "samples", "seed"}
