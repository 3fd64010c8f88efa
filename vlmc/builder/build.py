"""Build an artifact from a recipe."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from vlmc.artifact.integrity import REPORTS
from vlmc.artifact.manifest import MANIFEST, Manifest
from vlmc.artifact.write import check_link, point_link, publish, seal
from vlmc.builder.executor import Outcome, place, run_step
from vlmc.builder.steps.context import BuildContext
from vlmc.builder.steps.engines import engine_targets, manifest_engine
from vlmc.builder.steps.recipe_steps import make_steps, select, source_files, wing, with_needs
from vlmc.builder.steps.samples import read_samples
from vlmc.builder.steps.step import Step
from vlmc.builder.steps.step_key import tool_versions
from vlmc.builder.store.disk_errors import check_writable, explain_disk_errors
from vlmc.builder.store.file_digests import FileDigests
from vlmc.builder.store.step_cache import CachedStep, StepCache
from vlmc.checkpoint.source import Checkpoint, open_checkpoint
from vlmc.compile.calibration.dataset import CalibrationSet
from vlmc.errors import BuildError, UsageError
from vlmc.files.staging import staging_folder
from vlmc.progress.channel import report
from vlmc.progress.events import Note, StepsPlanned
from vlmc.recipe.resolve import resolve
from vlmc.recipe.schema import Recipe
from vlmc.version import __version__

ARTIFACTS = Path("artifacts")
_TOOLS = ("numpy", "onnx", "onnxscript", "safetensors", "torch")
_ADVICE = "free some, or name a folder on another disk with -o. Finished steps are cached."


def build(
    recipe: Recipe,
    output: Path | None,
    *,
    force: Collection[str] = (),
    cache: StepCache | None = None,
) -> Path:
    """Build the artifact and return its folder.

    Without `output` it becomes `artifacts/<name>-<id8>/`, and the link `artifacts/<name>` is moved
    to it last. The folder appears whole or not at all. Steps come from the cache where it has
    them; `force` names steps, or wings, that rerun even if cached.

    Raises:
        VlmcError: the checkpoint or the recipe cannot be built, or the place not be written to;
            nothing is left behind but finished steps in the cache.
    """
    cache = StepCache() if cache is None else cache
    parent = ARTIFACTS if output is None else output.parent
    # What would be refused at the end is refused before the work.
    if output is None:
        check_link(parent / recipe.name)
    elif os.path.lexists(output) and not (output / MANIFEST).is_file():
        raise UsageError(f"{output} exists and is not an artifact; name another folder with -o")
    check_writable(parent)
    place_name = output or parent
    with explain_disk_errors(f"{place_name} cannot be built", parent, _ADVICE):
        with open_checkpoint(Path(recipe.model.checkpoint)) as checkpoint:
            context, steps = _prepare(recipe, checkpoint, cache)
            parent.mkdir(parents=True, exist_ok=True)
            outcomes = _run(steps, force, cache)
            name = recipe.name if output is None else output.name
            with staging_folder(parent, name) as partial:
                reports = partial / REPORTS
                outcomes = [
                    place(outcome, partial / wing(outcome.step), cache, reports=reports)
                    for outcome in outcomes
                ]
                identity = _finish(partial, recipe, context, outcomes)
                target = parent / f"{recipe.name}-{identity[:8]}" if output is None else output
                publish(partial, target)
        cache.remember_build(recipe.name, {step.name: step.key for step in with_needs(steps)})
        if output is None:
            point_link(parent / recipe.name, target)
    report(Note(f"built {target}"))
    return target


def build_steps(
    recipe: Recipe,
    names: Collection[str],
    *,
    force: Collection[str] = (),
    cache: StepCache | None = None,
) -> list[Outcome]:
    """Bring some steps, or all of some wings, into the cache, for a build elsewhere to take.

    Raises:
        VlmcError: as `build`.
    """
    cache = StepCache() if cache is None else cache
    with open_checkpoint(Path(recipe.model.checkpoint)) as checkpoint:
        _, steps = _prepare(recipe, checkpoint, cache)
        return _run(select(steps, names, "--steps"), force, cache)


def _samples(recipe: Recipe) -> CalibrationSet | None:
    samples = read_samples(recipe)
    if samples is not None and samples.skipped:
        report(
            Note(
                f"calibration: {len(samples.skipped)} images cannot be read, and others were "
                f"drawn for them: {'; '.join(samples.skipped)}"
            )
        )
    return samples


def _prepare(
    recipe: Recipe, checkpoint: Checkpoint, cache: StepCache
) -> tuple[BuildContext, list[Step]]:
    """What the build is made from, and all steps, which fail if the source changes meanwhile."""
    resolved, samples = resolve(recipe, checkpoint.config), _samples(recipe)
    files, known = source_files(checkpoint.folder), FileDigests(cache.folder)
    unread = sum(known.known(file) is None for file in files)
    if unread:
        report(Note(f"source: hashing {unread} files"))
    try:
        digests = known.digests(files)
    except OSError as error:
        raise BuildError(f"{checkpoint.folder} cannot be read: {error}") from error

    def guarded(step: Step) -> Step:
        def work(folder: Path, *needed: Path) -> None:
            step.work(folder, *needed)
            for file in files:
                if known.known(file) != digests[file.name]:
                    raise BuildError(f"{file} was changed during the build; build again")

        return replace(step, work=work, needs=tuple(map(guarded, step.needs)))

    context = BuildContext(resolved, checkpoint, digests, samples)
    return context, [guarded(step) for step in make_steps(context)]


def _run(steps: Sequence[Step], force: Collection[str], cache: StepCache) -> list[Outcome]:
    forced = {step.name for step in select(steps, force, "--force")}
    report(StepsPlanned(tuple(step.name for step in steps)))
    # Before the first is made, which may take an hour.
    for step in steps:
        if step.name in forced or not isinstance(cache.check(step.key), CachedStep):
            step.check()
    return [run_step(step, cache, force=step.name in forced) for step in steps]


def _finish(
    folder: Path,
    recipe: Recipe,
    context: BuildContext,
    outcomes: Sequence[Outcome],
) -> str:
    """Write recipe, manifest and report; returns the identity."""
    text = yaml.safe_dump(context.recipe.to_json(), sort_keys=False, allow_unicode=True)
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    report(Note("manifest: hashing the payload"))
    reports = folder / REPORTS
    reports.mkdir(exist_ok=True)
    manifest = seal(folder, _manifest(context, reports))
    values = {
        "identity": manifest.identity,
        # Here and not in the payload, whose bytes no path may change: what verifies on this
        # machine finds the source and the questions by them.
        "checkpoint": str(context.checkpoint.folder),
        "accuracy_dataset": recipe.accuracy.dataset,
        "steps": [outcome.to_json() for outcome in outcomes],
    }
    (reports / "build.json").write_text(json.dumps(values, indent=1) + "\n")
    return manifest.identity


def _manifest(context: BuildContext, reports: Path) -> Manifest:
    resolved, recipe, samples = context.resolved, context.recipe, context.samples
    return Manifest(
        name=recipe.name,
        vlmc=__version__,
        tools=tool_versions(*_TOOLS),
        source=context.digests,
        hidden_size=context.checkpoint.config.language.hidden_size,
        image=resolved.image_rules,
        prompt=resolved.prompt_rules,
        language_scheme=resolved.language_scheme,
        language_dtype=resolved.language_dtype,
        calibration={}
        if samples is None
        else dict.fromkeys(recipe.calibrated_wings, samples.digest),
        engines=tuple(
            manifest_engine(
                engine_target,
                resolved.profiles,
                precision=recipe.vision.precision,
                min_feature_cosine=resolved.min_feature_cosine,
                reports=reports,
            )
            for engine_target in engine_targets(recipe.vision.engines)
        ),
        payload={},
        runtime=resolved.runtime_rules,
    )
