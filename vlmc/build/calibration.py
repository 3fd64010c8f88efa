"""How long calibration takes, counted in floating-point operations before anyone starts it."""

from __future__ import annotations

from vlmc.build.estimate import Work
from vlmc.build.footprint import quantized_parameters
from vlmc.checkpoint.config import ModelConfig
from vlmc.image.tiles import TileRule, choose_grid
from vlmc.recipe.schema import Recipe

# Passes of every sample through the layers. awq runs each layer for its inputs, for the twenty
# scales that it tries, and once more for the next layer; gptq for its Hessian and once more.
_PASSES = {"awq": 22, "gptq": 2, "rtn": 0}
_USUAL_SIZE = (640, 480)
_TEXT_TOKENS = 64
_TEXT_ONLY_TOKENS = 512


def calibration_steps(
    recipe: Recipe, rule: TileRule, config: ModelConfig
) -> list[tuple[str, str, Work]]:
    """Name, reason and work of the steps that calibrate, for images of 640 · 480 pixels."""
    samples = recipe.calibration.samples
    grid = choose_grid(*_USUAL_SIZE, rule)
    steps = []
    method = recipe.language.method
    if recipe.language.scheme == "w4a16" and _PASSES[method]:
        pictures = recipe.calibration.modality == "image_text"
        tokens = samples * (grid.tokens + _TEXT_TOKENS if pictures else _TEXT_ONLY_TOKENS)
        weights = quantized_parameters(config.language)
        operations = 2 * weights * tokens * _PASSES[method]
        reason = f"{samples} samples of {tokens // samples} tokens, {_PASSES[method]} passes"
        steps.append(("language.calibration", reason, Work(0, operations)))
    return steps
