"""What a checkpoint's shape rules out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.recipe.texts import HEAD, vision
from tests.recipes.released import RELEASED
from vlmc.checkpoint.config import ModelConfig
from vlmc.checkpoint.layout import original_shapes
from vlmc.checkpoint.quantization import Quantization
from vlmc.errors import RecipeError
from vlmc.recipe.fit import check_fit, linear_layers
from vlmc.recipe.read import read_recipe

LARGE = RELEASED["InternVL2-8B"].config
# 896 inputs, and 4864 of the down projection.
SMALL = RELEASED["InternVL2-1B"].config
AWQ = replace(LARGE, quantization=Quantization("awq", 128, False, ("re:.*layers",)))
FP8 = replace(LARGE, quantization=Quantization("fp8", None, True, ("Linear",)))
ODD = replace(SMALL, language=replace(SMALL.language, intermediate_size=4800))


def scheme(**keys: object) -> str:
    """A recipe's line 5."""
    inner = "".join(f", {key}: {value}" for key, value in keys.items())
    return f"language: {{scheme: w4a16, method: rtn{inner}}}\n"


def said(tmp_path: Path, text: str, config: ModelConfig) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(HEAD + text)
    with pytest.raises(RecipeError) as caught:
        check_fit(read_recipe(path), config)
    return str(caught.value).replace(f"{tmp_path}/", "")


@pytest.mark.parametrize(
    ("text", "config", "expected"),
    [
        (
            scheme(group_size=96),
            LARGE,
            "recipe.yaml:5: language.group_size is 96, which does not divide the 4096 inputs of "
            "model.layers.0.self_attn.q_proj and 223 more. Use 256 or 128 or 64 or 32 or 16 or 8, "
            "or leave such layers in 16 bits with language.keep",
        ),
        (
            scheme(),
            ODD,
            "recipe.yaml:5: language.group_size is 128, which does not divide the 4800 inputs of "
            "model.layers.0.mlp.down_proj and 23 more. Use 64 or 32 or 16 or 8, or",
        ),
        (
            scheme(keep="['*.downproj', '*.o_proj']"),
            LARGE,
            "recipe.yaml:5: language.keep[0] is '*.downproj', which matches no layer. Layers are "
            "named like model.layers.0.self_attn.q_proj",
        ),
        (
            vision("fp16", "inductor, targets: [sm80, sm75]"),
            LARGE,
            "recipe.yaml:8: vision.engines[0].targets[1] is sm75, and the tensor cores of sm75 "
            "(Turing) have no bf16, which came with sm80, the checkpoint's dtype: set model.dtype",
        ),
        (
            scheme(),
            AWQ,
            "recipe.yaml:5: language.scheme is w4a16, but the checkpoint's weights are quantized "
            "already (awq, groups of 128). Set language.scheme to none, which keeps them as they",
        ),
        (
            "language: {scheme: w4a16, method: rtn}\n",
            FP8,
            "recipe.yaml:5: language.scheme is w4a16, but the checkpoint's weights are quantized "
            "already (fp8). Set",
        ),
        (
            vision("fp16", "inductor, targets: [sm89, sm86]"),
            FP8,
            "recipe.yaml:8: vision.engines[0].targets[1] is sm86, and fp8 tensor cores came with "
            "sm89 (Ada), and the checkpoint's weights are in fp8: remove the target",
        ),
    ],
)
def test_refused(text: str, config: ModelConfig, expected: str, tmp_path: Path) -> None:
    assert said(tmp_path, text, config).startswith(expected)


@pytest.mark.parametrize(
    ("text", "config"),
    [
        (scheme(), LARGE),
        (scheme(), SMALL),
        (scheme(keep="['*.down_proj']"), ODD),
        (scheme(group_size=64), ODD),
        ("language: {scheme: fp8}\n", ODD),
        ("", ODD),
        ("language: {scheme: none}\n", AWQ),
        (vision("fp16", "inductor, targets: [sm86]"), AWQ),
        (vision("fp16", "inductor, targets: [sm89]"), FP8),
        ("  dtype: fp16\n" + vision("fp16", "inductor, targets: [sm75]"), LARGE),
        (vision("fp16", "inductor, targets: [sm75]"), replace(LARGE, dtype="float16")),
    ],
)
def test_fits(text: str, config: ModelConfig, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(HEAD + text)
    check_fit(read_recipe(path), config)


@pytest.mark.parametrize("architecture", ["Qwen2ForCausalLM", "LlamaForCausalLM"])
def test_layers_are_those_of_the_checkpoint(architecture: str) -> None:
    """Where the original layout has Hugging Face's names."""
    config = replace(LARGE, language=replace(LARGE.language, architecture=architecture))
    shapes = original_shapes(config)
    layers = linear_layers(config.language)
    assert layers == {
        name.removeprefix("language_model.").removesuffix(".weight"): shape[1]
        for name, shape in shapes.items()
        if name.startswith("language_model.model.layers.") and len(shape) == 2
    }


def test_layers_of_phi3_are_fused() -> None:
    config = replace(LARGE, language=replace(LARGE.language, architecture="Phi3ForCausalLM"))
    shapes = original_shapes(config)
    for name, inputs in linear_layers(config.language).items():
        assert shapes[f"language_model.{name}.weight"][1] == inputs
