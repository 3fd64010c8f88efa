"""Values of a recipe that are each allowed and impossible together, with the reason."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

from vlmc.errors import UsageError
from vlmc.image.tiles import TileRule
from vlmc.machine.support import NOT_BY_TARGET, Precision, precisions_of, refusal, targets_of
from vlmc.recipe.document import KeyPath, Problem, key_text
from vlmc.recipe.schema import LANGUAGE_KEYS, Recipe


def impossible(recipe: Recipe) -> Iterator[Problem]:
    """Everything that cannot be, whatever the checkpoint."""
    yield from _tiles(recipe)
    yield from _engines(recipe)
    yield from _repeated_engines(recipe)
    yield from _profiles(recipe)
    yield from _language(recipe)
    yield from _language_on_targets(recipe)
    yield from _calibration(recipe)
    yield from _repeated(("language", "keep"), recipe.language.keep)
    yield from _repeated(("accuracy", "normalize"), recipe.accuracy.normalize)


def targets_without(recipe: Recipe, precision: Precision) -> Iterator[tuple[KeyPath, str]]:
    """The targets on which a language model cannot compute in `precision`, and why."""
    for index, part in enumerate(recipe.vision.engines):
        for place, target in enumerate(part.targets):
            reason = NOT_BY_TARGET.get((target, precision))
            if reason is not None:
                key: KeyPath = ("vision", "engines", index, "targets", place)
                yield key, f"{key_text(key)} is {target}, and {reason}"


def _tiles(recipe: Recipe) -> Iterator[Problem]:
    tiles = recipe.image.tiles
    try:
        TileRule(tiles.rule, tiles.min, tiles.max, tiles.thumbnail, tiles.tolerance)
    except UsageError as error:
        # The message begins with the key, tiles.max for one.
        key = tuple(str(error).split(" ")[0].split("."))
        yield ("image", *key), f"image.{error}"


def _engines(recipe: Recipe) -> Iterator[Problem]:
    precision = recipe.vision.precision
    for index, part in enumerate(recipe.vision.engines):
        key: KeyPath = ("vision", "engines", index)
        reason = refusal(part.engine, precision)
        if reason is not None:
            yield (
                ("vision", "precision"),
                f"vision.precision is {precision}, which {key_text(key)}, {part.engine}, cannot "
                f"run: {reason}. With {part.engine}, allowed: "
                f"{', '.join(precisions_of(part.engine))}",
            )
            continue
        if part.engine == "tensorrt-rtx" and not part.targets:
            yield (
                key,
                f"{key_text(key)}.targets is required with tensorrt-rtx, which builds ahead of "
                "time for the cards named; allowed with "
                f"{precision}: {', '.join(targets_of(part.engine, precision))}",
            )
        if part.engine == "onnxruntime" and part.targets:
            yield (
                (*key, "targets"),
                f"{key_text((*key, 'targets'))} has no effect: onnxruntime runs on any CPU. "
                "Remove the key, or choose tensorrt, tensorrt-rtx or inductor",
            )
            continue
        for place, target in enumerate(part.targets):
            reason = refusal(part.engine, precision, target)
            if reason is not None:
                at = (*key, "targets", place)
                yield (
                    at,
                    f"{key_text(at)} is {target}, which cannot be with {part.engine} and "
                    f"vision.precision {precision}: {reason}. Allowed with {part.engine} and "
                    f"{precision}: {', '.join(targets_of(part.engine, precision))}",
                )


def _repeated_engines(recipe: Recipe) -> Iterator[Problem]:
    first: dict[tuple[str, str], str] = {}
    for index, part in enumerate(recipe.vision.engines):
        key: KeyPath = ("vision", "engines", index)
        anywhere = first.get((part.engine, ""))
        for place, target in enumerate(part.targets):
            seen = first.setdefault((part.engine, target), key_text((*key, "targets", place)))
            if anywhere or seen != key_text((*key, "targets", place)):
                yield _again(
                    (*key, "targets", place), f"{part.engine} for {target}", seen, anywhere
                )
        if not part.targets:
            if anywhere:
                yield _again(key, part.engine, anywhere)
            first[part.engine, ""] = anywhere or key_text(key)


def _again(key: KeyPath, what: str, seen: str, anywhere: str | None = None) -> Problem:
    return key, (
        f"{key_text(key)}: {what} is given already by {anywhere or seen}, and the loader takes the "
        "first that fits; remove one"
    )


def _profiles(recipe: Recipe) -> Iterator[Problem]:
    for index, part in enumerate(recipe.vision.profiles):
        key: KeyPath = ("vision", "profiles", index)
        if not 1 <= part.min <= part.opt <= part.max:
            yield (
                key,
                f"{key_text(key)} has min {part.min}, opt {part.opt} and max {part.max}; they are "
                "numbers of tiles, with 1 ≤ min ≤ opt ≤ max",
            )
    yield from _repeated(("vision", "profiles"), recipe.vision.profiles)


def _language(recipe: Recipe) -> Iterator[Problem]:
    scheme = recipe.language.scheme
    for name, schemes in LANGUAGE_KEYS.items():
        if name in recipe.language.model_fields_set and scheme not in schemes:
            yield (
                ("language", name),
                f"language.{name} has no effect with language.scheme {scheme}. Remove the key, or "
                f"set language.scheme to {' or '.join(schemes)}",
            )


def _language_on_targets(recipe: Recipe) -> Iterator[Problem]:
    if recipe.model.dtype == "bf16":
        for key, reason in targets_without(recipe, "bf16"):
            yield key, f"{reason}: set model.dtype to fp16, or remove the target"
    if recipe.language.scheme == "fp8":
        for key, reason in targets_without(recipe, "fp8"):
            yield key, f"{reason}: set language.scheme to w4a16 or none, or remove the target"


def _calibration(recipe: Recipe) -> Iterator[Problem]:
    vision = recipe.vision.precision in ("int8", "fp8")
    language = recipe.language.scheme == "w4a16" and recipe.language.method != "rtn"
    asking = f"vision.precision {recipe.vision.precision}" if vision else "language.scheme w4a16"
    if (vision or language) and recipe.calibration.dataset is None:
        yield (
            ("vision", "precision") if vision else ("language", "scheme"),
            f"{asking} needs calibration.dataset: a file of JSON lines "
            '{"image": path, "prompt": text} of images and questions like those of real use',
        )
    if "calibration" in recipe.model_fields_set and not recipe.calibrated_wings:
        yield (
            ("calibration",),
            "calibration has no effect: fp16, int8 and fp8 of vision.precision look at its images, "
            "w4a16 of language.scheme at its samples, and the recipe asks for neither. Remove the "
            "key",
        )
    if vision and recipe.calibration.modality == "text":
        yield (
            ("calibration", "modality"),
            f"calibration.modality is text, and {asking} is calibrated on images; use image_text",
        )


def _repeated(key: KeyPath, values: Sequence[Hashable]) -> Iterator[Problem]:
    for index, value in enumerate(values):
        if value in values[:index]:
            yield (
                (*key, index),
                f"{key_text((*key, index))} is the same as "
                f"{key_text((*key, values.index(value)))}; remove one",
            )
