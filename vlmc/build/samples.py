"""The calibration samples of a recipe, for the steps that calibrate."""

from __future__ import annotations

from pathlib import Path

from vlmc.compile.calibration_set import CalibrationSet, read_calibration
from vlmc.recipe.schema import Recipe


def calibrated_wings(recipe: Recipe) -> tuple[str, ...]:
    """The wings that look at samples: `vision`, `language`."""
    images = recipe.calibration.dataset is not None and recipe.calibration.modality == "image_text"
    precision = recipe.vision.precision
    # fp16 looks for what would overflow, if it is given images to look at.
    vision = precision in ("int8", "fp8") or (precision == "fp16" and images)
    language = recipe.language.scheme == "w4a16" and recipe.calibration.dataset is not None
    return ("vision",) * vision + ("language",) * language


def read_samples(recipe: Recipe) -> CalibrationSet | None:
    """The samples that the recipe's steps calibrate on; None where none does.

    Raises:
        RecipeError: the dataset cannot be read, is too small, or lacks too many images.
    """
    part = recipe.calibration
    if part.dataset is None or not calibrated_wings(recipe):
        return None
    return read_calibration(Path(part.dataset), part.samples, part.seed, modality=part.modality)
