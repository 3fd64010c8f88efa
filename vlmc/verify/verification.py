"""Verify an artifact, or make the reference that one is verified with elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from vlmc.artifact.integrity import REPORTS, Artifact, open_artifact
from vlmc.artifact.manifest import EngineRecord, PromptRules, RuntimeRules
from vlmc.errors import HardwareError, UsageError
from vlmc.machine.support import DTYPE_NAMES
from vlmc.progress.channel import report
from vlmc.progress.events import Progress
from vlmc.recipe.schema import AccuracyPart
from vlmc.runtime.engines.selection import choose, find_device
from vlmc.runtime.load import load
from vlmc.runtime.model import Model
from vlmc.verify.accuracy import check_covered, check_model
from vlmc.verify.accuracy_targets import AccuracyTargets, read_accuracy_targets
from vlmc.verify.build_origin import find_dataset, find_source, read_build_origin
from vlmc.verify.climb import Climber
from vlmc.verify.dataset import read_dataset
from vlmc.verify.explanation import Explainer, Explanation
from vlmc.verify.gate import Checked
from vlmc.verify.ladder import Rung
from vlmc.verify.parts import artifact_parts, source_parts
from vlmc.verify.reference import (
    ImageMaking,
    Reference,
    make_reference,
    read_reference,
    write_reference,
)
from vlmc.verify.report import Verified
from vlmc.verify.source import open_source, open_tower, source_digests
from vlmc.verify.sweep import MeasuredPoint, Setting, sweep

_DTYPES = {"auto": "auto", **DTYPE_NAMES}  # of `accuracy.reference_dtype`


def verify_accuracy(
    folder: Path,
    *,
    source: Path | None = None,
    reference: Path | None = None,
    engine: str | None = None,
    dataset: Path | None = None,
    limit: int | None = None,
    explain: bool = False,
    settings: Sequence[Setting] = (),
    devices: int = 1,
) -> Verified:
    """Measure an artifact's pixels, features and answers against its source.

    Args:
        folder: the artifact.
        source: the checkpoint; without, the one that the build read, if it is still there.
        reference: a file that `verify reference` wrote, in place of a source.
        engine: the engine to check by name; without, the one that `load` takes.
        dataset: JSON lines of image, prompt, label; without, those that the reference or the
            build was given, if they are still there.
        limit: the first so many questions only.
        explain: find the level at which each disagreement arises, and climb the ladder of
            models from the source to the artifact; needs a source.
        settings: tile rules and shares of tokens to ask with too.
        devices: how many devices share the artifact's model; the source runs on one.

    Raises:
        VlmcError: something is missing, damaged, or does not fit into the machine.
    """
    if devices > 1 and (explain or settings):
        raise UsageError("--explain and --sweep run on one device; leave them or --devices out")
    if source is not None and reference is not None:
        raise UsageError("--source and --reference are both given; leave one out")
    if explain and reference is not None:
        raise UsageError(
            "--explain asks again with the source's features, which a reference holds of a few "
            "tiles alone; give --source in place of --reference"
        )
    artifact = open_artifact(folder)
    _check_named(artifact, engine)
    reports = artifact.folder / REPORTS
    if not os.access(reports if reports.is_dir() else artifact.folder, os.W_OK):
        raise UsageError(
            f"{reports} cannot be written to, and the result is kept there. Make it writable, or "
            "copy the artifact to where it is."
        )
    targets, origin = read_accuracy_targets(artifact), read_build_origin(artifact)
    climber, rungs = None, list[Rung]()
    if reference is not None:
        given, path = read_reference(reference), reference
        asked = read_dataset(find_dataset(dataset, Path(given.dataset_path), targets), limit)
    else:
        path = find_source(source, origin)
        asked = read_dataset(find_dataset(dataset, origin.dataset, targets), limit)
        chosen = _choose(artifact, engine)
        dtype = _DTYPES[targets.accuracy.reference_dtype]
        with open_source(path, artifact.manifest.prompt, dtype, reuse=not explain) as opened:
            given = make_reference(opened, _digests(artifact, path), asked, _making(targets))
            if explain:
                climber = Climber(artifact, chosen, asked, given, targets.accuracy.normalize)
                opened.stop()
                rungs += climber.climb_source(opened)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # engines allocate beside torch's pool
    _check_prompt(given, artifact.manifest.prompt, path)
    check_covered(given, asked)
    with _load(artifact, engine, devices) as model:
        checked = check_model(model, targets, given, asked)
        explanations = _explain(model, path, targets, checked) if explain else ()
        engine_used = model.chosen
    if climber is not None:
        served = [pair.answer for pair in checked.answers.pairs]
        rungs += climber.climb_artifact(served)
    points: list[MeasuredPoint] = []
    if settings:
        with artifact_parts(artifact, engine_used) as parts:
            rules, steps = artifact.manifest.runtime, targets.accuracy.normalize
            points = sweep(parts, settings, rules, asked, given, steps)
    return Verified(
        artifact=artifact,
        engine=engine_used,
        reference=given,
        reference_path=path,
        dataset=asked,
        checked=checked,
        explanations=explanations,
        ladder=tuple(rungs),
        sweep=tuple(points),
    )


def make_reference_file(
    checkpoint: Path,
    files: Iterable[Path],
    prompt: PromptRules,
    making: ImageMaking,
    dataset: Path,
    accuracy: AccuracyPart,
    output: Path | None,
    settings: Sequence[Setting] = (),
) -> tuple[Reference, list[MeasuredPoint]]:
    """Run the source model on a dataset, and write the reference to `output` unless that is None.

    `files` of the checkpoint are those whose digests identify the source. The source model is asked
    again with each of the `settings`.

    Raises:
        VlmcError: something is missing, damaged, or does not fit into the machine.
    """
    if output is not None and (output.is_dir() or not os.access(output.parent, os.W_OK)):
        raise UsageError(f"{output} is a folder, or its folder cannot be written to; name a file")
    asked, digests = read_dataset(dataset), source_digests(files)
    with open_source(checkpoint, prompt, _DTYPES[accuracy.reference_dtype]) as source:
        made = make_reference(source, digests, asked, making)
        if output is not None:
            write_reference(made, output)
        source.stop()
        points = sweep(
            source_parts(source), settings, RuntimeRules(), asked, made, accuracy.normalize
        )
    return made, points


def _digests(artifact: Artifact, folder: Path) -> dict[str, str]:
    """Of the files of `folder` that the artifact was built from."""
    return source_digests([folder / name for name in artifact.manifest.source])


def _making(targets: AccuracyTargets) -> ImageMaking:
    return ImageMaking(targets.rule, targets.resampler, targets.exif, targets.high_bit_depth)


def _check_prompt(reference: Reference, prompt: PromptRules, path: Path) -> None:
    if (reference.template, reference.system_message) != (prompt.template, prompt.system_message):
        raise UsageError(
            f"{path} was asked with the template {reference.template} and the system message "
            f"{reference.system_message!r}, the artifact with {prompt.template} and "
            f"{prompt.system_message!r}. Rerun `vlmc verify reference` with the artifact's recipe."
        )


def _check_named(artifact: Artifact, engine: str | None) -> None:
    """Refuse an unknown engine before the source is run, which may take long."""
    held = [entry.engine for entry in artifact.manifest.engines]
    if engine is not None and engine not in (*held, "onnxruntime"):
        raise UsageError(
            f"{artifact.folder} holds no engine {engine!r}; it holds {', '.join(held) or 'none'}. "
            "Name one of these with --engine, or onnxruntime for the graph that they are made from."
        )


def _load(artifact: Artifact, engine: str | None, devices: int) -> Model:
    with _advising(engine):
        # Verification measures what the self-test would only refuse.
        return load(artifact, engine=engine, devices=devices, self_test=False)


def _choose(artifact: Artifact, engine: str | None) -> EngineRecord:
    """The engine that `_load` takes; refuses early, since the source may take long."""
    with _advising(engine):
        return choose(artifact.manifest, artifact.folder, find_device("auto"), engine)


@contextmanager
def _advising(engine: str | None) -> Iterator[None]:
    try:
        yield
    except HardwareError as error:
        if engine is not None:
            raise
        raise HardwareError(
            f"{error} To check the graph that the engines are made from, verify with "
            "--engine onnxruntime."
        ) from error


def _explain(
    model: Model, source: Path, targets: AccuracyTargets, checked: Checked
) -> tuple[Explanation, ...]:
    disagreements = checked.answers.disagreements
    if not disagreements:
        return ()
    tower, published = open_tower(source)
    explainer = Explainer(model, tower, published, targets.accuracy.normalize)
    explained = []
    # By image, whose features are then computed once.
    for pair in sorted(disagreements, key=lambda pair: pair.question.digests):
        explained.append(explainer.explain(pair))
        report(Progress("disagreements explained", len(explained), len(disagreements)))
    return tuple(sorted(explained, key=lambda found: disagreements.index(found.pair)))
