"""What an artifact's own recipe asks of its images and its accuracy."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from vlmc.artifact.integrity import Artifact
from vlmc.errors import UsageError
from vlmc.image.decode import ExifMode
from vlmc.image.high_bit_depth import HighBitDepth
from vlmc.image.resize import Resampler
from vlmc.image.tiles import TileRule
from vlmc.recipe.document import read_document
from vlmc.recipe.schema import AccuracyPart, ImagePart


@dataclass(frozen=True, slots=True)
class AccuracyTargets:
    """What the artifact's recipe says of its images and its accuracy."""

    rule: TileRule
    resampler: Resampler
    exif: ExifMode
    high_bit_depth: HighBitDepth
    accuracy: AccuracyPart


def read_accuracy_targets(artifact: Artifact) -> AccuracyTargets:
    """Read the artifact's own recipe.

    Raises:
        UsageError: another version of vlmc wrote it, and this one cannot read it.
    """
    path = artifact.path("recipe.yaml")
    values = read_document(path).values
    try:
        image = ImagePart.model_validate(values.get("image", {}))
        accuracy = AccuracyPart.model_validate(values.get("accuracy", {}))
        tiles = image.tiles
        rule = TileRule(tiles.rule, tiles.min, tiles.max, tiles.thumbnail, tiles.tolerance)
    except ValidationError as error:
        raise UsageError(
            f"{path} cannot be read by this version of vlmc ({error}). Verify the artifact with "
            "the version that built it."
        ) from error
    return AccuracyTargets(rule, image.resampler, image.exif, image.high_bit_depth, accuracy)
