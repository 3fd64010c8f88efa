"""What quantizing the language model writes and computes, before anyone starts it."""

from __future__ import annotations

from dataclasses import replace

from vlmc.builder.plan.cost import BYTES_PER_SECOND, DTYPE_BYTES, StepCost
from vlmc.builder.plan.memory import quantized_parameters
from vlmc.checkpoint.config import ModelConfig
from vlmc.image.tiles import TileRule, choose_grid
from vlmc.models.flops import tower_flops
from vlmc.recipe.fit import linear_layers
from vlmc.recipe.schema import Recipe

# Passes of every sample through the layers. awq runs each layer for its inputs, for the twenty
# scales that it tries, and for what comes out before and after; gptq and rtn lack the search.
_PASSES = {"awq": 24, "gptq": 4, "rtn": 3}
_USUAL_SIZE = (640, 480)
_TEXT_TOKENS = 64
_IMPORT_SECONDS = 8.0


def quantization_cost(
    recipe: Recipe,
    rule: TileRule,
    config: ModelConfig,
    dtype: str,
    weights: StepCost,
) -> dict[str, StepCost]:
    """StepCost of the steps that quantize the language model, by name, for images of 640 · 480
    pixels; `weights` is what writing it is without that."""
    if recipe.language.scheme != "w4a16":
        return {}
    samples = recipe.calibration.samples if recipe.calibrated_wings else 0
    grid = choose_grid(*_USUAL_SIZE, rule)
    pictures = recipe.calibration.modality == "image_text"
    tokens = samples * (_TEXT_TOKENS + (grid.tokens if pictures else 0))
    tile = tower_flops(config.vision, config.vision_layers, config.hidden_size)
    tower = samples * grid.tiles * tile if pictures else 0
    linears = quantized_parameters(config.language)
    passes = 2 * linears * tokens * _PASSES[recipe.language.method]
    # GPTQ's Hessians, a square of the inputs for every token, and their factors.
    squares = sum(inputs**2 for inputs in linear_layers(config.language).values())
    cubes = sum(inputs**3 for inputs in linear_layers(config.language).values())
    hessians = 2 * squares * tokens + 2 * cubes if recipe.language.method == "gptq" else 0
    embedded = tokens * config.language.hidden_size * DTYPE_BYTES[dtype]
    # The layers are written out once for the process that quantizes them.
    scratch = linears * DTYPE_BYTES[dtype] / BYTES_PER_SECOND
    return {
        "language.calibration": StepCost(embedded, tower),
        "language.weights": replace(
            weights, operations=passes + hessians, extra_seconds=scratch + _IMPORT_SECONDS
        ),
    }
