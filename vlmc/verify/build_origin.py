"""Where the source and the questions lie that an artifact is verified with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlmc.artifact.integrity import REPORTS, Artifact
from vlmc.errors import UsageError
from vlmc.files.strict_json import read_json
from vlmc.verify.accuracy_targets import AccuracyTargets

BUILD_REPORT = "build.json"


@dataclass(frozen=True, slots=True)
class BuildOrigin:
    """Where the build found the checkpoint and the evaluation data, None where it does not say.

    The payload holds no paths; these are from the report of the machine that built it.
    """

    checkpoint: Path | None
    dataset: Path | None


def read_build_origin(artifact: Artifact) -> BuildOrigin:
    """The machine that built the artifact, as `reports/build.json` describes it, if it does."""
    try:
        values = read_json(artifact.folder / REPORTS / BUILD_REPORT, follow_links=False)
        if values["identity"] != artifact.identity:
            return BuildOrigin(None, None)
        dataset = values["accuracy_dataset"]
        return BuildOrigin(Path(values["checkpoint"]), None if dataset is None else Path(dataset))
    except (OSError, ValueError, KeyError, TypeError):
        return BuildOrigin(None, None)


def find_source(given: Path | None, origin: BuildOrigin) -> Path:
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


def find_dataset(given: Path | None, recorded: Path | None, targets: AccuracyTargets) -> Path:
    """The dataset given, or the one recorded where the reference was made or the artifact built.

    Raises:
        UsageError: neither is there.
    """
    if given is not None:
        return given
    if recorded is not None and recorded.is_file():
        return recorded
    name = recorded or targets.accuracy.dataset
    why = (
        f"the recipe's accuracy.dataset, {name}, is not on this machine"
        if name
        else "the artifact's recipe names no accuracy.dataset"
    )
    raise UsageError(
        f'{why}. Give it with --dataset: a file of JSON lines {{"image", "prompt", "label"}}.'
    )
