"""The calibration samples of a recipe, for the steps that calibrate."""

from __future__ import annotations

from pathlib import Path

from vlmc.compile.calibration.dataset import CalibrationSet, read_calibration
from vlmc.recipe.schema import Recipe


def read_samples(recipe: Recipe, *, decode_images: bool = True) -> CalibrationSet | None:
    """The samples that the recipe's steps calibrate on; None where none does.

    Without `decode_images`, as for a plan, headers of images are read alone.

    Raises:
        RecipeError: the dataset cannot be read, is too small, or lacks too many images.
    """
    part = recipe.calibration
    if part.dataset is None or not recipe.calibrated_wings:
        return None
    return read_calibration(
        Path(part.dataset),
        part.samples,
        part.seed,
        modality=part.modality,
        decode_images=decode_images,
    )
