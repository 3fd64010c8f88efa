"""What a build would do, from a checkpoint's headers and digests that are known already."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from vlmc.builder.plan.cost import (
    BYTES_PER_SECOND,
    StepCost,
    count,
    engine_cost,
    language_cost,
    package_cost,
)
from vlmc.builder.plan.devices import DevicesNeeded, devices_needed
from vlmc.builder.plan.disk import Shortage, shortages
from vlmc.builder.plan.here import Obstacle, calibration_gpu, obstacles
from vlmc.builder.plan.language_cost import quantization_cost
from vlmc.builder.plan.memory import PRECISION_BYTES, Memory, PlannedImage, plan_images, plan_memory
from vlmc.builder.plan.step_diff import changes, nearest
from vlmc.builder.plan.vision_cost import vision_cost
from vlmc.builder.steps.context import BuildContext
from vlmc.builder.steps.engines import engine_targets
from vlmc.builder.steps.recipe_steps import make_steps, source_files, wing, with_needs
from vlmc.builder.steps.samples import read_samples
from vlmc.builder.steps.step import Step
from vlmc.builder.store.file_digests import UNKNOWN, FileDigests
from vlmc.builder.store.step_cache import CachedStep, StepCache
from vlmc.checkpoint.config import ModelConfig
from vlmc.checkpoint.quantization import Quantization
from vlmc.checkpoint.source import open_checkpoint
from vlmc.compile.calibration.dataset import CalibrationSet
from vlmc.errors import RecipeError, UsageError
from vlmc.image.tiles import TileRule
from vlmc.machine.gpu import gpu_is_there, gpus
from vlmc.recipe.resolve import resolve, tile_rule
from vlmc.recipe.schema import Recipe

State = Literal["hit", "miss", "unknown"]
Basis = Literal["earlier build", "estimate"]

USUAL_SIZES = ((448, 448), (480, 320), (640, 480), (1080, 1440), (1920, 1080), (4032, 3024))
_SIZE = re.compile(r"([0-9]{1,9})x([0-9]{1,9})")
# manifest.json and recipe.yaml.
_MANIFEST_BYTES = 4_000
# An earlier step predicts the time of one at most so many times larger or smaller.
_COMPARABLE = 4.0
_LISTED = 3


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step and what is expected of it; a hit takes no time."""

    name: str
    state: State
    reason: str
    key: str | None  # None where a digest that it is made of is unknown
    bytes: int
    seconds: float
    basis: Basis
    peak_memory_bytes: int | None  # of the most similar earlier step, if there is one


@dataclass(frozen=True, slots=True)
class Plan:
    """A build before it is started. Sizes are in bytes."""

    name: str
    checkpoint: Path
    refusals: tuple[str, ...]  # why `vlmc build` would refuse the recipe
    obstacles: tuple[Obstacle, ...]  # steps that this machine cannot run
    unknown: tuple[str, ...]  # what the plan cannot say, and what it assumes
    steps: tuple[PlannedStep, ...]
    images: tuple[PlannedImage, ...]
    memory: Memory | None  # None without the checkpoint, as sizes and times are then 0
    devices: tuple[DevicesNeeded, ...]  # GPUs that the loaded model needs, where they are known
    gpu: str | None  # that calibrates, by name; None is the CPU
    compared_with: Literal["last build", "most similar steps"]
    artifact_bytes: int
    new_cache_bytes: int
    unread_bytes: int  # of source files whose digest is unknown
    shortages: tuple[Shortage, ...]
    source_quantization: str | None  # layout of a language model that is quantized already

    @property
    def seconds(self) -> float:
        """Expected time of the whole build: reading sources of unknown digest, the steps that are
        not cached, and copying all of them into the artifact."""
        moved_bytes = self.unread_bytes + self.artifact_bytes
        return sum(step.seconds for step in self.steps) + moved_bytes / BYTES_PER_SECOND

    @property
    def estimated(self) -> bool:
        """Whether a step's time is from operation counts and not from an earlier build."""
        return any(step.basis == "estimate" for step in self.steps)


def parse_size(text: str) -> tuple[int, int]:
    """`480x320` as width and height in pixels.

    Raises:
        UsageError: the text is not of that form.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"the image size {text!r} is not WIDTHxHEIGHT in pixels, such as 480x320, each of at "
            "most nine digits"
        )
    return int(match[1]), int(match[2])


def make_plan(
    recipe: Recipe, cache: StepCache, sizes: Iterable[tuple[int, int]] = USUAL_SIZES
) -> Plan:
    """Plan the build of a recipe; reads headers and configuration, and writes nothing.

    A recipe whose calibration samples cannot be read is planned as far as it can be, with the
    reasons. If the checkpoint does not exist, the plan holds the images' tiles and tokens.

    Raises:
        VlmcError: the checkpoint is damaged, or an image size is not positive.
    """
    folder = Path(recipe.model.checkpoint)
    if not folder.exists():
        return _without_checkpoint(recipe, folder, sizes)
    with open_checkpoint(folder) as checkpoint:
        config = checkpoint.config
        resolved = resolve(recipe, config)
        keep = recipe.image.prune.keep
        files, memory_of_digests = source_files(checkpoint.folder), FileDigests(cache.folder)
        known = {path: memory_of_digests.known(path) for path in files}
        digests = {path.name: digest or UNKNOWN for path, digest in known.items()}
        counts = count(checkpoint)
        memory = plan_memory(
            counts,
            config.language,
            resolved.language_dtype,
            precision=recipe.vision.precision,
            language=recipe.language,
            batch_tokens=recipe.runtime.max_batch_tokens,
        )
        samples, refused = _samples(recipe)
        made = make_steps(BuildContext(resolved, checkpoint, digests, samples))
    placed = {step.name for step in made}
    engines = {
        f"vision.{engine_target.name}": engine_target.engine
        for engine_target in engine_targets(recipe.vision.engines)
        if engine_target.engine != "onnxruntime"
    }
    made = with_needs(made)
    vision = vision_cost(resolved, counts, config)
    work = {
        step.name: vision[step.name]
        if wing(step) == "vision"
        else language_cost(step.name, counts, memory.language_weights_bytes)
        for step in made
        if step.name not in engines
    }
    plan_work = engine_cost(
        counts, config, PRECISION_BYTES[recipe.vision.precision], len(recipe.vision.profiles)
    )
    work |= {
        name: package_cost(config) if engine == "inductor" else plan_work
        for name, engine in engines.items()
    }
    work |= quantization_cost(
        recipe, resolved.tiles, config, resolved.language_dtype, work["language.weights"]
    )
    gpu = calibration_gpu(counts.tower_parameters)
    if gpu is not None:
        calibrating = {"vision.ranges", "language.calibration"} | (
            {"language.weights"} if recipe.language.scheme == "w4a16" else set()
        )
        work = {name: replace(one, on_gpu=name in calibrating) for name, one in work.items()}
    last = cache.last_build(recipe.name)
    steps = _plan_steps(made, work, cache.entries(), last)
    missing = {step.name for step in steps if step.state != "hit"}
    artifact_bytes = _MANIFEST_BYTES + sum(step.bytes for step in steps if step.name in placed)
    new_cache_bytes = sum(step.bytes for step in steps if step.state != "hit")
    return Plan(
        name=recipe.name,
        checkpoint=checkpoint.folder,
        refusals=refused,
        obstacles=obstacles(step for step in made if step.name in missing),
        unknown=(),
        steps=tuple(steps),
        images=plan_images(sizes, resolved.tiles, keep, memory.cache_bytes_per_token),
        memory=memory,
        devices=devices_needed(
            memory,
            config.language,
            resolved.language_dtype,
            _quantization(recipe, config),
            [one.target for one in engine_targets(recipe.vision.engines)],
            gpus() if gpu_is_there() else (),
        ),
        gpu=None if gpu is None else gpu.name,
        compared_with="last build" if last else "most similar steps",
        artifact_bytes=artifact_bytes,
        new_cache_bytes=new_cache_bytes,
        unread_bytes=sum(path.stat().st_size for path in files if known[path] is None),
        # Without -o the artifact goes below the working folder.
        shortages=shortages([(cache.folder, new_cache_bytes), (Path.cwd(), artifact_bytes)]),
        source_quantization=None if config.quantization is None else config.quantization.layout,
    )


def _quantization(recipe: Recipe, config: ModelConfig) -> Quantization | None:
    """How the artifact's linears are stored; all 4-bit layouts become one there."""
    part, found = recipe.language, config.quantization
    if found is not None:
        return replace(found, layout=found.scheme)
    if part.scheme == "none":
        return None
    size = part.group_size if part.scheme == "w4a16" else None
    return Quantization(part.scheme, size, part.symmetric, ("Linear",))


def _without_checkpoint(recipe: Recipe, folder: Path, sizes: Iterable[tuple[int, int]]) -> Plan:
    """What the recipe alone says: the tiles and tokens of images."""
    published = TileRule("original")  # of every released model
    part = recipe.image.tiles
    unknown = [f"{folder} does not exist, so steps, memory, disk and time are unknown"]
    if part.rule == "original" and None in (part.min, part.max, part.thumbnail):
        unknown.append(
            "image.tiles takes what it leaves out from the checkpoint; assumed as in the released "
            f"models: min {published.min}, max {published.max}, with a thumbnail"
        )
    return Plan(
        name=recipe.name,
        checkpoint=folder,
        refusals=(),
        obstacles=(),
        unknown=tuple(unknown),
        steps=(),
        images=plan_images(sizes, tile_rule(recipe, published), recipe.image.prune.keep, None),
        memory=None,
        devices=(),
        gpu=None,
        compared_with="most similar steps",
        artifact_bytes=0,
        new_cache_bytes=0,
        unread_bytes=0,
        shortages=(),
        source_quantization=None,
    )


def _samples(recipe: Recipe) -> tuple[CalibrationSet | None, tuple[str, ...]]:
    """The calibration samples, or a stand-in and why they cannot be read."""
    try:
        return read_samples(recipe, decode_images=False), ()
    except RecipeError as error:
        return CalibrationSet((), UNKNOWN, ()), tuple(str(error).splitlines())


def _plan_steps(
    steps: Iterable[Step],
    work: Mapping[str, StepCost],
    entries: Iterable[CachedStep],
    last: Mapping[str, CachedStep],
) -> list[PlannedStep]:
    """`last` are the steps of the last build of the recipe's name, which others are only compared
    with where they were not in it."""
    entries = list(entries)
    by_key = {entry.key: entry for entry in entries}
    planned: list[PlannedStep] = []
    # Keys that other steps take as an input → the step's name, and whether it is only a stand-in.
    names: dict[str, str] = {}
    stand_ins: set[str] = set()
    for step in steps:
        names[step.key] = step.name
        unknown = [
            label for label, value in step.inputs.items() if value == UNKNOWN or value in stand_ins
        ]
        if unknown:
            stand_ins.add(step.key)
        same = [entry for entry in entries if entry.name == step.name]
        near = last.get(step.name) or nearest(step, same)
        entry = None if unknown else by_key.get(step.key)
        planned.append(_plan_step(step, work[step.name], entry, near, unknown, names))
    return planned


def _plan_step(
    step: Step,
    work: StepCost,
    entry: CachedStep | None,
    near: CachedStep | None,
    unknown: list[str],
    names: Mapping[str, str],
) -> PlannedStep:
    if entry is not None:
        return PlannedStep(
            step.name,
            "hit",
            "nothing changed",
            step.key,
            entry.bytes,
            0.0,
            "earlier build",
            entry.peak_memory_bytes,
        )
    state: State = "miss"
    if near is None:
        reason = "never built in this cache"
    elif unknown:
        state = "unknown"
        reason = f"never read, so whether it changed is unknown: {_listed(unknown)}"
    else:
        reason = _listed(changes(step, near, names))
    seconds, basis = _time(work, near)
    return PlannedStep(
        step.name,
        state,
        reason,
        None if unknown else step.key,
        work.output_bytes,
        seconds,
        basis,
        None if near is None else near.peak_memory_bytes,
    )


def _listed(texts: list[str]) -> str:
    """The texts, or the first few where there are many: a large model has dozens of files."""
    more = f", and {len(texts) - _LISTED} more" if len(texts) > _LISTED else ""
    return ", ".join(texts[:_LISTED]) + more


def _time(work: StepCost, near: CachedStep | None) -> tuple[float, Basis]:
    if near is not None and near.bytes:
        ratio = work.output_bytes / near.bytes
        if 1 / _COMPARABLE <= ratio <= _COMPARABLE:
            return near.seconds * ratio, "earlier build"
    return work.seconds, "estimate"
