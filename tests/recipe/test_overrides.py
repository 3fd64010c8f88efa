"""`--set a.b=c`, the only override."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recipe.texts import MINIMAL, refused
from vlmc.recipe.read import read_recipe


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL)
    return path


def test_values_are_read_as_yaml(path: Path) -> None:
    recipe = read_recipe(
        path,
        [
            "name=first",
            "name=second",
            "image.tiles.max=4",
            "image.tiles.thumbnail=false",
            "image.exif = apply",
            "model.system_message=a=b c",
            "vision.engines=[{engine: onnxruntime}]",
            "model.checkpoint=other",
        ],
    )
    assert recipe.name == "second"
    assert recipe.model.system_message == "a=b c"
    assert recipe.image.tiles.max == 4
    assert recipe.image.tiles.thumbnail is False
    assert recipe.image.exif == "apply"
    assert recipe.model.checkpoint == str(path.parent / "other")
    assert recipe.image.resampler == "opencv"


def test_a_colon_in_a_value_needs_quotes(path: Path) -> None:
    assert read_recipe(path, ["model.system_message='a: b'"]).model.system_message == "a: b"
    assert "--set model.system_message=a: b: model.system_message is {'a': 'b'}" in refused(
        path, MINIMAL, "model.system_message=a: b"
    )


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("name", "--set name: expected KEY.KEY=VALUE"),
        ("=x", "--set =x: expected KEY.KEY=VALUE"),
        ("image..exif=apply", "--set image..exif=apply: expected KEY.KEY=VALUE"),
        (
            "vision.engines.targets=[sm90]",
            "--set vision.engines.targets=[sm90]: vision.engines is {'targets': ['sm90']}; it must",
        ),
        ("name.first=x", "name is not a mapping in recipe.yaml"),
        ("vision.engines=x", "--set vision.engines=x: vision.engines is 'x'; it must be a list"),
        ("nam=x", "--set nam=x: unknown key nam; did you mean name?"),
        ("name=", "--set name=: name is empty: it must be a text"),
        ("name={a", "--set name={a: not valid YAML"),
        ("name=../x", "--set name=../x: name is '../x'"),
        ("image.tiles.max=0", "--set image.tiles.max=0: image.tiles.max is 0"),
        ("image={tiles: {rule: nativ}}", "--set image={tiles: {rule: nativ}}: image.tiles.rule"),
        ("image.resampler=*a", "anchors and aliases are not used"),
        ("image.resampler=[", "not valid YAML"),
        ("name=\x01", "holds the character '\\x01'"),
        ("name=" + "[" * 5000, "nested too deeply"),
        ("vision.precision=bf16", "--set vision.precision=bf16: vision.precision is bf16, which"),
        ("runtime.prefix_cache=on", "runtime.prefix_cache is True, allowed: off, text, content"),
    ],
)
def test_problem_names_the_override(override: str, said: str, path: Path) -> None:
    assert said in refused(path, MINIMAL, override)


def test_item_of_a_list_is_not_set(path: Path) -> None:
    text = MINIMAL.replace("fp32}", "fp32, engines: [{engine: inductor}]}")
    assert refused(path, text, "vision.engines.targets=[sm90]").endswith(
        "vision.engines is not a mapping in recipe.yaml; set it whole: --set 'vision.engines=[…]'"
    )


def test_problem_beside_an_override_names_the_file(path: Path) -> None:
    message = refused(path, MINIMAL + "image: {exif: 3}\n", "image.resampler=pillow")
    assert message.startswith("recipe.yaml:5: image.exif is 3")
