"""Every value that a recipe may hold changes what is built."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel
from safetensors import safe_open

from vlmc.artifact.manifest import read_manifest
from vlmc.errors import RecipeError, TokenizerError
from vlmc.recipe.schema import Recipe
from vlmc.text.template import TEMPLATES

Build = Callable[..., Path]

# Key → an override other than the default, where it must arrive in the manifest, as what.
EFFECTS: dict[str, tuple[str, str, Any]] = {
    "name": ("name=other", "name", "other"),
    "model.dtype": ("model.dtype=fp16", "language_dtype", "float16"),
    "model.system_message": (
        "model.system_message=Be brief.",
        "prompt.system_message",
        "Be brief.",
    ),
    "image.resampler": ("image.resampler=pillow", "image.resampler", "pillow"),
    "image.exif": ("image.exif=apply", "image.exif", "apply"),
    "image.high_bit_depth": ("image.high_bit_depth=scale", "image.high_bit_depth", "scale"),
    "image.tiles.rule": ("image.tiles.rule=single", "image.tiles.name", "single"),
    "image.tiles.min": ("image.tiles.min=2", "image.tiles.min", 2),
    "image.tiles.max": ("image.tiles.max=3", "image.tiles.max", 3),
    "image.tiles.thumbnail": ("image.tiles.thumbnail=false", "image.tiles.thumbnail", False),
    "vision.engines.engine": (
        "vision.engines=[{engine: tensorrt-rtx, targets: [sm89]}, {engine: onnxruntime}]",
        "engines.0.engine",
        "tensorrt-rtx",
    ),
    "vision.engines.targets": (
        "vision.engines=[{engine: tensorrt-rtx, targets: [sm86, sm89]}]",
        "engines.0.target",
        "sm86",
    ),
    "vision.profiles.min": (
        "vision.profiles=[{min: 2, opt: 4, max: 13}]",
        "engines.0.profiles.0.min",
        2,
    ),
    "vision.profiles.opt": (
        "vision.profiles=[{min: 1, opt: 13, max: 13}]",
        "engines.0.profiles.0.opt",
        13,
    ),
    "vision.profiles.max": (
        "vision.profiles=[{min: 1, opt: 4, max: 26}]",
        "engines.0.profiles.0.max",
        26,
    ),
    "language.scheme": ("language.scheme=fp8", "language_scheme", "fp8"),
    "image.tiles.tolerance": (
        "image.tiles={rule: native, tolerance: 0.2}",
        "image.tiles.tolerance",
        0.2,
    ),
    "image.prune.keep": ("image.prune.keep=0.75", "image.keep", 0.75),
    "runtime.cuda_graphs": ("runtime.cuda_graphs=false", "runtime.cuda_graphs", False),
    "runtime.prefix_cache": ("runtime.prefix_cache=text", "runtime.prefix_cache", "text"),
    "runtime.max_batch_tokens": (
        "runtime.max_batch_tokens=512",
        "runtime.max_batch_tokens",
        512,
    ),
    "vision.precision": ("vision.precision=fp16", "engines.0.precision", "fp16"),
    "accuracy.min_feature_cosine": (
        "accuracy.min_feature_cosine=0.5",
        "engines.0.min_feature_cosine",
        0.5,
    ),
}
# Keys with one value that is built, which the manifest records, and those with tests of their own.
SINGLE = {
    "version": "schema",
}
ELSEWHERE = {
    "model.checkpoint",
    "model.template",
    # They make other weights, which tests/builder/test_quantized.py shows.
    "language.method",
    "language.group_size",
    "language.symmetric",
    "language.keep",
    # They decide what ranges are measured on, which tests/compile shows.
    "calibration.dataset",
    "calibration.modality",
    "calibration.samples",
    "calibration.seed",
    # They act when the artifact is verified, which tests/verify shows.
    "accuracy.dataset",
    "accuracy.reference_dtype",
    "accuracy.normalize",
    "accuracy.min_answer_agreement",
    "accuracy.max_recall_drop",
}


def acting() -> dict[str, Any]:
    """Every key of a recipe."""
    return dict(leaves(Recipe))


def leaves(part: type[BaseModel], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in part.model_fields.items():
        annotation: Any = field.annotation
        if get_origin(annotation) is tuple:
            annotation = get_args(annotation)[0]
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from leaves(annotation, f"{above}{name}.")
        else:
            yield f"{above}{name}", annotation


def at(values: Any, place: str) -> Any:
    """The value at a place, None where a mapping leaves the key out."""
    for part in place.split("."):
        if values is None:
            break
        values = values.get(part) if isinstance(values, dict) else values[int(part)]
    return values


def manifest_of(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return values


def test_no_key_is_forgotten_here() -> None:
    assert {*acting()} == {*EFFECTS, *SINGLE, *ELSEWHERE}


@pytest.mark.parametrize("key", EFFECTS)
def test_value_arrives(key: str, quick_build: Build) -> None:
    override, place, expected = EFFECTS[key]
    default = quick_build()
    changed = quick_build([override])
    assert at(manifest_of(default), place) != expected
    assert at(manifest_of(changed), place) == expected
    assert changed != default


@pytest.mark.parametrize("key", SINGLE)
def test_single_value_is_recorded(key: str, quick_build: Build) -> None:
    assert get_args(acting()[key]) == (at(manifest_of(quick_build()), SINGLE[key]),)
    assert get_origin(acting()[key]) is Literal


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("auto", "BF16"), ("fp32", "F32"), ("bf16", "BF16"), ("fp16", "F16")],
)
def test_dtype_is_that_of_the_weights(dtype: str, expected: str, quick_build: Build) -> None:
    folder = quick_build([f"model.dtype={dtype}"])
    with safe_open(folder / "language" / "model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {expected}  # noqa: SIM118


def test_dtype_is_tried_in_full() -> None:
    assert get_args(dict(leaves(Recipe))["model.dtype"]) == ("auto", "fp32", "bf16", "fp16")


@pytest.mark.parametrize(
    "template",
    [name for name in get_args(dict(leaves(Recipe))["model.template"]) if name != "auto"],
)
def test_template_is_used_or_does_not_fit(template: str, quick_build: Build) -> None:
    """The InternLM2 miniature has every template's stop token but Phi-3's."""
    if template == "phi3-chat":
        with pytest.raises(TokenizerError, match=r"<\|end\|>"):
            quick_build([f"model.template={template}"])
        return
    prompt = read_manifest(quick_build([f"model.template={template}"])).prompt
    assert prompt.template == template
    assert prompt.system_message == TEMPLATES[template].system_message


def test_checkpoint_decides_what_is_left_out(
    quick_build: Build, miniatures: Callable[[str], Path]
) -> None:
    one = read_manifest(quick_build())
    other = read_manifest(quick_build(checkpoint=miniatures("phi3-300m")))
    assert one.prompt.template == "internlm2-chat"
    assert other.prompt.template == "phi3-chat"
    assert one.source != other.source
    assert one.image.published == one.image.tiles
    assert (one.image.tiles.min, one.image.tiles.max, one.image.tiles.thumbnail) == (1, 12, True)


def test_impossible_combination_with_the_checkpoint(quick_build: Build) -> None:
    """The maximum that is left out is 12."""
    with pytest.raises(RecipeError, match=r"image\.tiles\.min is 13 and tiles\.max is 12"):
        quick_build(["image.tiles.min=13"])
