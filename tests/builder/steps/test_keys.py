"""Every value that a step reads changes its key: nothing else reaches the step's work."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests.artifacts import write_recipe
from tests.miniature import write_miniature
from vlmc.artifact.manifest import Profile
from vlmc.builder.steps import recipe_steps
from vlmc.builder.steps.context import BuildContext
from vlmc.builder.steps.keyed import TOWER, keyed
from vlmc.builder.steps.recipe_steps import make_steps, with_needs
from vlmc.builder.steps.step import Step
from vlmc.checkpoint.config import ModelConfig
from vlmc.checkpoint.source import Checkpoint, open_checkpoint
from vlmc.compile.calibration.dataset import CalibrationSet, Sample
from vlmc.files.hashing import file_sha256
from vlmc.recipe.read import read_recipe
from vlmc.recipe.resolve import resolve
from vlmc.recipe.schema import Recipe
from vlmc.text.prompt import PromptBuilder

CALIBRATED = (
    "calibration={dataset: calibration.jsonl, samples: 1, seed: 3}",
    "vision.precision=int8",
    "language={scheme: w4a16, method: awq, group_size: 16}",
    # Which fp8 has, too.
    "vision.engines=[{engine: tensorrt-rtx, targets: [sm89]}]",
)
# Recipes that together hold every step.
RECIPES: dict[str, tuple[str, ...]] = {
    "plain": (),
    "fp16": ("vision.precision=fp16",),
    "calibrated": CALIBRATED,
    "text": (*CALIBRATED, "calibration.modality=text", "vision.precision=fp32"),
    "fp8": ("language={scheme: fp8, keep: ['*.0.mlp.down_proj']}",),
    "rtn": ("language={scheme: w4a16, method: rtn, group_size: 32}",),
    "engines": (
        "vision.precision=fp16",
        "vision.engines=[{engine: inductor, targets: [sm90]}, {engine: tensorrt, targets: [sm90]},"
        " {engine: tensorrt-rtx, targets: [sm89]}]",
    ),
}


def samples_of(recipe: Recipe) -> CalibrationSet | None:
    """One sample, whose digest stands for dataset, seed, number and modality, as drawing does."""
    part = recipe.calibration
    if not recipe.calibrated_wings or part.dataset is None:
        return None
    image = None if part.modality == "text" else Path("a.jpg")
    digest = f"{part.dataset} {part.samples} {part.seed} {part.modality}"
    return CalibrationSet((Sample(image, "What?", None),), digest, ())


def steps_of(checkpoint: Checkpoint, recipe: Path, overrides: tuple[str, ...]) -> dict[str, Step]:
    """All steps by name, those that only others read among them."""
    read = read_recipe(write_recipe(recipe, checkpoint.folder), overrides)
    digests = {
        path.name: file_sha256(path) for path in recipe_steps.source_files(checkpoint.folder)
    }
    resolved = resolve(read, checkpoint.config)
    made = make_steps(BuildContext(resolved, checkpoint, digests, samples_of(read)))
    return {step.name: step for step in with_needs(made)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoint]:
    folder = write_miniature(tmp_path_factory.mktemp("keys") / "internlm2-300m", "internlm2-300m")
    with open_checkpoint(folder) as opened:
        yield opened


def captured(function: Any) -> dict[str, Any]:
    """The values that a function reads beside its arguments and its module, by name."""
    if isinstance(function, partial):
        names = list(inspect.signature(function.func).parameters)
        given = dict(zip(names, function.args, strict=False)) | function.keywords
        return captured(function.func) | given
    found: dict[str, Any] = {}
    for name, value in inspect.getclosurevars(function).nonlocals.items():
        found |= captured(value) if inspect.isfunction(value) else {name: value}
    return found


def unkeyed(name: str, value: Any, step: Step) -> list[str]:
    """The parts of a value that the step's key does not hold."""
    inputs, kept = set(step.inputs.values()), json.loads(json.dumps(step.key_parts["parameters"]))
    match value:
        case None | Path():  # of a path the files are in the inputs
            return []
        case CalibrationSet():
            return [] if value.digest in inputs else [f"{name}.digest"]
        case PromptBuilder():
            return [] if {"template", "system_message"} <= kept.keys() else [name]
        case Checkpoint():
            missing = unkeyed(f"{name}.config", value.config, step)
            return missing if inputs else [*missing, f"{name}.weights"]
        case ModelConfig():
            # Language and vision settings may be of one field alone.
            return [
                part
                for key, one in set_fields(value).items()
                for part in (
                    [f"{name}.{key}.{k}" for k in set_fields(one) if k not in kept]
                    if key == "language"
                    else []
                    if key in kept
                    else [f"{name}.{key}"]
                )
            ]
        case _ if is_dataclass(value) and not isinstance(value, type):
            values = json.loads(json.dumps(asdict(value)))
            missing = [key for key in values if key not in kept or kept[key] != values[key]]
            # The samples' folder is a step's, whose key is an input.
            return [f"{name}.{key}" for key in missing if key != "samples"]
        case Mapping():
            held = kept if all(key in kept for key in value) else kept.get(name)
            return [] if held and plain(value).items() <= held.items() else [name]
        case _:
            return [] if plain(value) in kept.values() else [name]


def set_fields(value: Any) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in fields(value) if hasattr(value, f.name)}


def plain(value: Any) -> Any:
    if isinstance(value, tuple | list) and all(isinstance(one, Profile) for one in value):
        value = [asdict(one) for one in value]
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("kind", RECIPES)
def test_a_step_reads_nothing_that_its_key_lacks(
    kind: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    for step in steps_of(checkpoint, tmp_path / "recipe.yaml", RECIPES[kind]).values():
        for name, value in captured(step.work).items():
            if isinstance(value, Callable):  # type: ignore[arg-type]
                continue
            if step.name.startswith("vision.inductor") or "tensorrt" in step.name:
                if name in ("engine", "target"):  # in the step's name
                    assert value in step.name
                    continue
                if name == "precision" and not step.name.startswith("vision.inductor"):
                    continue  # the graph's, whose key is an input
            assert unkeyed(name, value, step) == [], f"{step.name} reads {name} beside its key"


def test_the_check_finds_what_a_key_lacks(checkpoint: Checkpoint) -> None:
    seed, source = 7, keyed(checkpoint, TOWER)[0]

    def work(folder: Path) -> None:
        print(folder, seed, source)

    step = Step("vision.x", 1, {"model": "digest"}, {"select_layer": -1}, {}, work)
    assert {n for k, v in captured(work).items() for n in unkeyed(k, v, step)} == {
        "seed",
        "source.config.vision",
        "source.config.pixel_shuffle",
        "source.config.language.hidden_size",
    }
    assert unkeyed("checkpoint", checkpoint, step)


def test_another_value_of_the_configuration_cannot_be_read(checkpoint: Checkpoint) -> None:
    source, values = keyed(checkpoint, TOWER)
    config = checkpoint.config
    assert source.config.vision == config.vision
    assert source.config.hidden_size == config.language.hidden_size == values["hidden_size"]
    assert source.config.vision_layers == config.vision_layers
    for read in ("template", "dtype", "max_tiles", "quantization"):
        with pytest.raises(AttributeError, match=read):
            getattr(source.config, read)
    with pytest.raises(AttributeError, match="rope_theta"):
        _ = source.config.language.rope_theta


PIXELS = {"vision.ranges", "language.calibration"}
# The engine is made of the graph.
GRAPH, QUANTIZED = (
    {"vision.graph", "vision.tensorrt-rtx-sm89"},
    {"language.weights", "language.settings"},
)
# What a value of a calibrated recipe changes: the steps that read it, and those that read these.
CHANGES: dict[str, tuple[str, set[str]]] = {
    "name": ("other", set()),
    "model.dtype": ("fp16", {"language.calibration"} | QUANTIZED),
    "model.template": ("Hermes-2", {"language.calibration"} | QUANTIZED),
    "model.system_message": ("Be brief.", {"language.calibration"} | QUANTIZED),
    "image.resampler": ("pillow", PIXELS | GRAPH | QUANTIZED),
    "image.exif": ("apply", PIXELS | GRAPH | QUANTIZED),
    "image.high_bit_depth": ("scale", PIXELS | GRAPH | QUANTIZED),
    "image.prune.keep": ("0.5", PIXELS | GRAPH | QUANTIZED),
    "image.tiles.rule": ("single", PIXELS | GRAPH | QUANTIZED),
    "image.tiles.min": ("2", PIXELS | GRAPH | QUANTIZED),
    "image.tiles.max": ("3", PIXELS | GRAPH | QUANTIZED),
    "image.tiles.thumbnail": ("false", PIXELS | GRAPH | QUANTIZED),
    "image.tiles.tolerance": ("0.3", PIXELS | GRAPH | QUANTIZED),
    "vision.precision": ("fp8", {"vision.ranges"} | GRAPH),
    "language.method": ("gptq", QUANTIZED),
    "language.group_size": ("32", QUANTIZED),
    "language.symmetric": ("true", QUANTIZED),
    "language.keep": ("['*.0.mlp.down_proj']", QUANTIZED),
    "calibration.dataset": ("other.jsonl", PIXELS | GRAPH | QUANTIZED),
    "calibration.samples": ("2", PIXELS | GRAPH | QUANTIZED),
    "calibration.seed": ("5", PIXELS | GRAPH | QUANTIZED),
    "runtime.cuda_graphs": ("false", set()),
    "runtime.prefix_cache": ("text", set()),
    "runtime.max_batch_tokens": ("4096", set()),
    "accuracy.dataset": ("eval.jsonl", set()),
    "accuracy.reference_dtype": ("fp32", set()),
    "accuracy.normalize": ("[nfkc]", set()),
    "accuracy.min_feature_cosine": ("0.9", {"vision.ranges"} | GRAPH),
    "accuracy.min_answer_agreement": ("0.5", set()),
    "accuracy.max_recall_drop": ("0.02", set()),
}
# Values that decide which steps there are, or are in their names; recipes above hold each.
OTHERWISE = {
    "version",
    "model.checkpoint",
    "vision.engines",
    "vision.profiles",
    "language.scheme",
    "calibration.modality",
}


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaves(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


KNOWN = set(leaves(Recipe))


def test_every_key_of_a_recipe_is_listed() -> None:
    assert KNOWN - CHANGES.keys() - OTHERWISE == set()


@pytest.mark.parametrize("key", [key for key in CHANGES if key in KNOWN])
def test_a_value_changes_the_steps_that_read_it(
    key: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    # The rule that reads a tolerance is native alone.
    base = (*CALIBRATED, *(["image.tiles.rule=native"] if key.endswith("tolerance") else []))
    value, expected = CHANGES[key]
    before = steps_of(checkpoint, tmp_path / "recipe.yaml", base)
    after = steps_of(checkpoint, tmp_path / "recipe.yaml", (*base, f"{key}={value}"))
    assert {name for name in before if before[name].key != after[name].key} == expected


def test_the_pixel_shuffle_changes_all_that_the_tower_does(tmp_path: Path) -> None:
    folder = write_miniature(tmp_path / "internlm2-300m", "internlm2-300m")
    found = []
    for version in ("v1", "v2"):
        values = json.loads((folder / "config.json").read_text()) | {"ps_version": version}
        (folder / "config.json").write_text(json.dumps(values))
        with open_checkpoint(folder) as opened:
            found.append(steps_of(opened, tmp_path / "recipe.yaml", CALIBRATED))
    before, after = found
    assert {name for name in before if before[name].key == after[name].key} == {
        "language.tokenizer"
    }
