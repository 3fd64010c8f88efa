"""Recipes that are read, and what is said of those that are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.recipe.texts import FULL, MINIMAL, refused
from vlmc.errors import RecipeError
from vlmc.recipe.document import MAX_BYTES
from vlmc.recipe.read import read_recipe


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


def test_minimal_recipe_takes_the_defaults(path: Path) -> None:
    path.write_text(MINIMAL.replace("vision: {precision: fp32}\n", ""))
    assert read_recipe(path).model_dump(mode="json") == {
        "version": 1,
        "name": "small",
        "model": {
            "checkpoint": str(path.parent / "weights"),
            "dtype": "auto",
            "template": "auto",
            "system_message": "auto",
        },
        "image": {
            "resampler": "opencv",
            "exif": "ignore",
            "high_bit_depth": "original",
            "tiles": {
                "rule": "original",
                "min": None,
                "max": None,
                "thumbnail": None,
                "tolerance": None,
            },
            "prune": {"keep": 1.0},
        },
        "vision": {
            "precision": "fp16",
            "engines": [{"engine": "onnxruntime", "targets": []}],
            "profiles": [{"min": 1, "opt": 4, "max": 13}],
        },
        "language": {
            "scheme": "none",
            "method": "awq",
            "group_size": 128,
            "symmetric": False,
            "keep": [],
        },
        "calibration": {"dataset": None, "modality": "image_text", "samples": 128, "seed": 0},
        "runtime": {"cuda_graphs": True, "prefix_cache": "content", "max_batch_tokens": 16384},
        "accuracy": {
            "dataset": None,
            "reference_dtype": "auto",
            "normalize": ["nfkc", "casefold", "strip_punctuation"],
            "min_feature_cosine": "auto",
            "min_answer_agreement": 0.95,
            "max_recall_drop": 0.01,
        },
    }


def test_full_recipe_is_taken_as_written(path: Path) -> None:
    path.write_text(FULL)
    recipe = read_recipe(path)
    values = recipe.model_dump(mode="json")
    assert values["model"] == {
        "checkpoint": str(path.parent / "../weights"),
        "dtype": "bf16",
        "template": "Hermes-2",
        "system_message": "Answer in one word.",
    }
    assert values["image"] == {
        "resampler": "pillow",
        "exif": "apply",
        "high_bit_depth": "scale",
        "tiles": {"rule": "native", "min": None, "max": 4, "thumbnail": True, "tolerance": 0.1},
        "prune": {"keep": 0.75},
    }
    assert values["vision"] == {
        "precision": "int8",
        "engines": [
            {"engine": "tensorrt-rtx", "targets": ["sm86", "sm89"]},
            {"engine": "onnxruntime", "targets": []},
        ],
        "profiles": [{"min": 1, "opt": 2, "max": 4}, {"min": 5, "opt": 13, "max": 26}],
    }
    assert values["language"] == {
        "scheme": "w4a16",
        "method": "gptq",
        "group_size": 64,
        "symmetric": True,
        "keep": ["*.down_proj"],
    }
    assert values["calibration"] == {
        "dataset": str(path.parent / "calibration.jsonl"),
        "modality": "image_text",
        "samples": 32,
        "seed": 7,
    }
    assert values["runtime"] == {
        "cuda_graphs": False,
        "prefix_cache": "off",
        "max_batch_tokens": 4096,
    }
    assert values["accuracy"] == {
        "dataset": str(path.parent / "../eval.jsonl"),
        "reference_dtype": "fp32",
        "normalize": ["nfkc"],
        "min_feature_cosine": 0.99,
        "min_answer_agreement": 1,
        "max_recall_drop": 0,
    }


@pytest.mark.parametrize("checkpoint", ["/models/x", "~/x", "x", "./x", "../x"])
def test_checkpoint_is_relative_to_the_recipe(
    checkpoint: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    path.write_text(MINIMAL.replace("weights", checkpoint))
    expected = {
        "/models/x": "/models/x",
        "~/x": "/home/someone/x",
        "x": f"{path.parent}/x",
        "./x": f"{path.parent}/x",
        "../x": f"{path.parent}/../x",
    }
    monkeypatch.chdir("/")
    assert read_recipe(path).model.checkpoint == expected[checkpoint]


@pytest.mark.parametrize(
    ("addition", "said"),
    [
        ("imag: {}", ["recipe.yaml:5: unknown key imag; did you mean image?", "language"]),
        ("image:\n  resampeler: x", [":6: unknown key image.resampeler; did you mean resampler?"]),
        ("zzz: 1", [":5: unknown key zzz. Allowed here: version, name,"]),
        ("<<: {name: x}", [":5: unknown key <<."]),
        ("image: {tiles: {rule: nativ}}", ["image.tiles.rule is 'nativ'", "did you mean native?"]),
        ("image: {resampler: lanczos}", ["image.resampler is 'lanczos', allowed: opencv, pillow"]),
        ("language: {scheme: awq}", ["allowed: none, w4a16, fp8; awq is a value of language.meth"]),
        ("image: {exif: yes}", ["image.exif is True, allowed: ignore, apply"]),
        ("image: {high_bit_depth: 8}", ["high_bit_depth is 8, allowed: original, scale"]),
        (
            "image:",
            ["image is empty; it must be a mapping of resampler, exif, high_bit_depth, tiles"],
        ),
        ("image: [a]", ["image is ['a']; it must be a mapping"]),
        ("image: {tiles: {max: 2.0}}", ["image.tiles.max is 2.0", "a whole number"]),
        ("image: {tiles: {max: '2'}}", ["image.tiles.max is '2'", "a whole number"]),
        ("image: {tiles: {max: true}}", ["image.tiles.max is True"]),
        ("image: {tiles: {max: 0}}", ["image.tiles.max is 0", "between 1 and"]),
        ("image: {tiles: {max: 9999}}", ["image.tiles.max is 9999", "between 1 and"]),
        ("image: {tiles: {min: 3, max: 2}}", ["min is 3", "max is 2"]),
        ("image: {tiles: {thumbnail: 1}}", ["image.tiles.thumbnail is 1"]),
        ("image: {tiles: {rule: native, tolerance: .nan}}", ["tolerance is nan"]),
        ("image: {tiles: {rule: native, tolerance: -0.1}}", ["tolerance is -0.1"]),
        # Values that the rule does not act on.
        ("image: {tiles: {tolerance: 0.1}}", ["tolerance", "'original' does not use it"]),
        ("image: {tiles: {rule: native, min: 2}}", ["min", "'native' does not use it"]),
        ("image: {tiles: {rule: single, max: 2}}", ["max", "'single' does not use it"]),
        ("image: {tiles: {rule: single, thumbnail: true}}", ["'single' does not use it"]),
        ("name: again", [":5: name is given twice"]),
        ("image: {exif: apply, exif: ignore}", [":5: image.exif is given twice"]),
        ("language:\n  scheme: int4", [":6: language.scheme is 'int4', allowed: none"]),
    ],
)
def test_problem_names_line_key_and_way_out(addition: str, said: list[str], path: Path) -> None:
    message = refused(path, f"{MINIMAL}{addition}\n")
    for part in said:
        assert part in message, message
    assert message.startswith("recipe.yaml:")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version: 1", "version: 2", "recipe.yaml:1: version is 2, allowed: 1"),
        ("version: 1", "version: true", "recipe.yaml:1: version is True"),
        ("version: 1", "version: 1.0", "recipe.yaml:1: version is 1.0"),
        ("version: 1", "version: '1'", "recipe.yaml:1: version is '1'"),
        ("version: 1\n", "", "recipe.yaml:1: version is required and missing"),
        ("name: small\n", "", "name is required and missing"),
        ("model: {checkpoint: weights}\n", "", "model is required and missing"),
        ("{checkpoint: weights}", "{}", "recipe.yaml:3: model.checkpoint is required and missing"),
        ("weights", "''", "model.checkpoint is ''"),
        ("weights", "7", "model.checkpoint is 7"),
        ("weights", "x, dtype: float16", "is 'float16', allowed: auto, fp32, bf16, fp16; did you"),
        ("fp32", "FP8", "precision is 'FP8', allowed: fp32, fp16, bf16, int8, fp8; did you mean f"),
        ("weights", "~nobody-of-this-name/x", "recipe.yaml:3: model.checkpoint is '~nobody"),
        ("fp32}", "fp32, engines: []}", "vision.engines is empty"),
        ("fp32}", "fp32, engines: {engine: onnxruntime}}", "it must be a list"),
        ("fp32}", "fp32, engines: [onnxruntime]}", "vision.engines[0] is 'onnxruntime'; it must"),
        (
            "fp32}",
            "fp32, engines: [{}, {}]}",
            "engines[1]: onnxruntime is given already by vision.engines[0]",
        ),
        ("fp32}", "fp32, engines: [{engine: ort}]}", "engines[0].engine is 'ort', allowed: onnx"),
    ],
)
def test_required_keys_and_engines(old: str, new: str, said: str, path: Path) -> None:
    assert old in MINIMAL
    assert said in refused(path, MINIMAL.replace(old, new))


@pytest.mark.parametrize(
    "name",
    ["../x", "/x", "a/b", "-x", ".x", '""', '"x\\n"', "a b", "a" * 101, "ä", "7", "on", "null"],
)
def test_name_cannot_lead_out_of_the_folder(name: str, path: Path) -> None:
    message = refused(path, MINIMAL.replace("small", name))
    assert message.startswith("recipe.yaml:2: name is")


def test_tile_problem_names_its_own_line(path: Path) -> None:
    message = refused(path, MINIMAL + "image:\n  tiles:\n    rule: original\n    max: 0\n")
    assert message.startswith("recipe.yaml:8: image.tiles.max is 0")


def test_every_problem_is_told(path: Path) -> None:
    message = refused(path, MINIMAL + "imag: 1\nimage: {exif: 3, tiles: {max: x}}\n")
    assert [line.split(" ")[0] for line in message.splitlines()] == [
        "recipe.yaml:5:",
        "recipe.yaml:6:",
        "recipe.yaml:6:",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a recipe is a mapping"),
        ("- version: 1\n", "a recipe is a mapping"),
        ("version: [1\n", "not valid YAML"),
        ("version: 1\n\tname: x\n", "recipe.yaml:2: not valid YAML"),
        ("version: 1\na:\n\tb: x\n", "token; YAML indents with spaces"),
        (MINIMAL + "a: &x 1\n", "recipe.yaml:5: not valid YAML for a recipe: anchors"),
        (MINIMAL + "a: *x\n", "recipe.yaml:5: not valid YAML for a recipe: anchors"),
        (MINIMAL + "a: !!python/object/apply:os.system [id]\n", "recipe.yaml:5:"),
        (MINIMAL + "a: !!str 1\n", "the tag tag:yaml.org,2002:str is not used"),
        (MINIMAL + "? [a]\n: b\n", "recipe.yaml:5: a key must be a plain word"),
        (MINIMAL + "---\nversion: 1\n", "another document"),
        (MINIMAL + "a: =\n", "recipe.yaml:5: a cannot be read"),
        (MINIMAL + "a: 2024-13-01\n", "recipe.yaml:5: a cannot be read"),
        (MINIMAL + f"a: {'1' * 5000}\n", "recipe.yaml:5: a cannot be read"),
        (MINIMAL + "a: '\x01'\n", "recipe.yaml:5: holds the character '\\x01'"),
        (MINIMAL.encode() + b"a: \xff\n", "is not UTF-8 text"),
        (MINIMAL.encode("utf-16"), "is not UTF-8 text"),
        ("[" * 100_000, "nested too deeply"),
        (MINIMAL + "a: " + "{a: " * 500 + "1" + "}" * 500, "nested too deeply"),
        ("#" * (MAX_BYTES + 1), "is larger than"),
    ],
)
def test_yaml_that_no_recipe_needs(text: str | bytes, said: str, path: Path) -> None:
    assert said in refused(path, text)


def test_alias_bomb_is_refused_before_it_grows(path: Path) -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
    )
    assert "recipe.yaml:1: not valid YAML for a recipe: anchors" in refused(path, bomb)


def test_file_that_cannot_be_read(path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read: No such file"):
        read_recipe(path)
    with pytest.raises(RecipeError, match="cannot be read: Is a directory"):
        read_recipe(path.parent)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(
        st.text(max_size=60),
        st.lists(
            st.sampled_from([*FULL.splitlines(True), *MINIMAL.splitlines(True), "  - x\n", "? "]),
            max_size=12,
        ).map("".join),
    )
)
def test_any_text_is_read_or_refused(path: Path, text: str) -> None:
    """No text ends in another error than RecipeError."""
    path.write_text(text, encoding="utf-8")
    try:
        recipe = read_recipe(path)
    except RecipeError as error:
        assert str(path) in str(error)
    else:
        assert recipe.version == 1


def test_worked_recipes_are_read() -> None:
    worked = sorted((Path(__file__).parents[2] / "recipes").glob("*/recipe.yaml"))
    assert worked
    for recipe in worked:
        assert read_recipe(recipe).name == recipe.parent.name
