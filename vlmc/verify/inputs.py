"""Where the source and the questions lie that an artifact is verified with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from vlmc.artifact.integrity import REPORTS, Artifact
from vlmc.errors import UsageError
from vlmc.image.decode import ExifMode
from vlmc.image.resize import Resampler
from vlmc.image.tiles import TileRule
from vlmc.input_file import read_json
from vlmc.recipe.document import read_document
from vlmc.recipe.schema import AccuracyPart, ImagePart

BUILD_REPORT = "build.json"


@dataclass(frozen=True, slots=True)
class Promise:
    """What the artifact's recipe says of its images and its accuracy."""

    rule: TileRule
    resampler: Resampler
    exif: ExifMode
    accuracy: AccuracyPart


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the build found the checkpoint and the evaluation data, None where it does not say.

    The payload holds no paths; these are from the report of the machine that built it.
    """

    checkpoint: Path | None
    dataset: Path | None


def read_promise(artifact: Artifact) -> Promise:
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
    return Promise(rule, image.resampler, image.exif, accuracy)


def read_origin(artifact: Artifact) -> Origin:
    """What `reports/build.json` tells of the machine that built the artifact, if it does."""
    try:
        values = read_json(artifact.folder / REPORTS / BUILD_REPORT, follow_links=False)
        if values["identity"] != artifact.identity:
            return Origin(None, None)
        dataset = values["accuracy_dataset"]
        return Origin(Path(values["checkpoint"]), None if dataset is None else Path(dataset))
    except (OSError, ValueError, KeyError, TypeError):
        return Origin(None, None)


def find_source(given: Path | None, origin: Origin) -> Path:
    """The checkpoint given, or the one that the build read.

    Raises:
        UsageError: neither is there.
    """
    if given is not None:
        return given
    if origin.checkpoint is not None and origin.checkpoint.is_dir():
        return origin.checkpoint
    where = f" ({origin.checkpoint} was read by the build)" if origin.checkpoint else ""
    raise UsageError(
        f"the source checkpoint is not on this machine{where}. Name its folder with --source, or "
        "give --reference: a file that `vlmc verify reference RECIPE -o REF` wrote elsewhere."
    )


def find_dataset(given: Path | None, recorded: Path | None, promise: Promise) -> Path:
    """The dataset given, or the one recorded where the reference was made or the artifact built.

    Raises:
        UsageError: neither is there.
    """
    if given is not None:
        return given
    if recorded is not None and recorded.is_file():
        return recorded
    name = recorded or promise.accuracy.dataset
    why = (
        f"the recipe's accuracy.dataset, {name}, is not on this machine"
        if name
        else "the artifact's recipe names no accuracy.dataset"
    )
    raise UsageError(
        f'{why}. Give it with --dataset: a file of JSON lines {{"image", "prompt", "label"}}.'
    )
