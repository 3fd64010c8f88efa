"""What of a recipe a checkpoint rules out."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from vlmc.checkpoint.config import LanguageConfig, ModelConfig
from vlmc.checkpoint.quantization import Quantization
from vlmc.errors import RecipeError
from vlmc.recipe.combinations import targets_without
from vlmc.recipe.document import Problem
from vlmc.recipe.schema import Recipe


def check_fit(recipe: Recipe, config: ModelConfig) -> None:
    """Refuse a recipe that the checkpoint of `config` cannot be built by.

    Raises:
        RecipeError: a scheme for weights that are quantized already, a group size that does not
            divide a layer, a pattern that keeps nothing, or cards without the checkpoint's own
            bf16 or fp8; a line each, with its place.
    """
    problems = [*_quantized_already(recipe, config.quantization)]
    if config.quantization is None:
        problems += [*_groups(recipe, config.language), *_keep(recipe, config.language)]
    if recipe.model.dtype == "auto" and config.dtype == "bfloat16":
        problems += (
            (
                key,
                f"{reason}, the checkpoint's dtype: set model.dtype to fp16, or remove the target",
            )
            for key, reason in targets_without(recipe, "bf16")
        )
    if problems:
        raise RecipeError(recipe.describe(problems))


def _quantized_already(recipe: Recipe, found: Quantization | None) -> Iterator[Problem]:
    """Such weights pass through a build; a scheme would have nothing to act on."""
    if found is None:
        return
    if recipe.language.scheme != "none":
        size = "" if found.group_size is None else f", groups of {found.group_size}"
        yield (
            ("language", "scheme"),
            f"language.scheme is {recipe.language.scheme}, but the checkpoint's weights are "
            f"quantized already ({found.layout}{size}). Set language.scheme to none, which keeps "
            "them as they are, or give model.checkpoint the original 16-bit model",
        )
    elif found.scheme == "fp8":
        for key, reason in targets_without(recipe, "fp8"):
            yield key, f"{reason}, and the checkpoint's weights are in fp8: remove the target"


def linear_layers(config: LanguageConfig) -> dict[str, int]:
    """Names, in Hugging Face's layout, of the layers that a scheme quantizes → their inputs. The
    embeddings and the head keep 16 bits."""
    heads = config.heads * config.head_dim
    if config.architecture == "Phi3ForCausalLM":
        inputs = {"self_attn.qkv_proj": config.hidden_size, "self_attn.o_proj": heads}
        inputs |= {"mlp.gate_up_proj": config.hidden_size}
    else:
        inputs = {f"self_attn.{name}_proj": config.hidden_size for name in "qkv"}
        inputs |= {"self_attn.o_proj": heads}
        inputs |= {f"mlp.{name}_proj": config.hidden_size for name in ("gate", "up")}
    inputs |= {"mlp.down_proj": config.intermediate_size}
    return {
        f"model.layers.{layer}.{name}": count
        for layer in range(config.layers)
        for name, count in inputs.items()
    }


def _groups(recipe: Recipe, config: LanguageConfig) -> Iterator[Problem]:
    if recipe.language.scheme != "w4a16":
        return
    size = recipe.language.group_size
    uneven = {
        name: inputs
        for name, inputs in linear_layers(config).items()
        if inputs % size and not any(fnmatchcase(name, kept) for kept in recipe.language.keep)
    }
    if uneven:
        name, inputs = next(iter(uneven.items()))
        more = f" and {len(uneven) - 1} more" if len(uneven) > 1 else ""
        fitting = [str(size) for size in (256, 128, 64, 32, 16, 8) if not inputs % size]
        yield (
            ("language", "group_size"),
            f"language.group_size is {size}, which does not divide the {inputs} inputs of {name}"
            f"{more}. Use {' or '.join(fitting) or 'scheme none'}, or leave such layers in 16 "
            "bits with language.keep",
        )


def _keep(recipe: Recipe, config: LanguageConfig) -> Iterator[Problem]:
    names = linear_layers(config)
    for index, pattern in enumerate(recipe.language.keep):
        if not any(fnmatchcase(name, pattern) for name in names):
            yield (
                ("language", "keep", index),
                f"language.keep[{index}] is {pattern!r}, which matches no layer. Layers are named "
                f"like {next(iter(names))}; * matches any text",
            )
