"""A recipe's `auto` and left-out values, settled by the checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from vlmc.artifact.manifest import ImageRules, Profile, PromptRules, RuntimeRules
from vlmc.checkpoint.config import ModelConfig
from vlmc.errors import RecipeError
from vlmc.image.tiles import TileRule
from vlmc.machine.support import DTYPE_NAMES, MIN_FEATURE_COSINE
from vlmc.recipe.fit import check_fit
from vlmc.recipe.schema import Recipe
from vlmc.text.template import TEMPLATES


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a build acts on; `recipe` has every default written out and no path."""

    recipe: Recipe
    tiles: TileRule
    published_tiles: TileRule
    template: str
    system_message: str
    language_dtype: Literal["float32", "bfloat16", "float16"]
    min_feature_cosine: float  # of the worst tile
    graph_dtype: Literal["float32", "float16", "bfloat16"]  # of the tower outside 8-bit layers
    language_scheme: Literal["none", "w4a16", "fp8"]  # the checkpoint's where it has one already

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """The batches that engines are built for."""
        return tuple(Profile(part.min, part.opt, part.max) for part in self.recipe.vision.profiles)

    @property
    def image_rules(self) -> ImageRules:
        """How an image becomes tiles."""
        image = self.recipe.image
        return ImageRules(
            image.resampler,
            image.exif,
            self.tiles,
            self.published_tiles,
            image.high_bit_depth,
            image.prune.keep,
        )

    @property
    def prompt_rules(self) -> PromptRules:
        """How a question becomes a prompt."""
        return PromptRules(self.template, self.system_message)

    @property
    def runtime_rules(self) -> RuntimeRules:
        """How the artifact is served."""
        runtime = self.recipe.runtime
        return RuntimeRules(runtime.cuda_graphs, runtime.prefix_cache, runtime.max_batch_tokens)


def resolve(recipe: Recipe, config: ModelConfig) -> Resolved:
    """Settle every value that the recipe leaves to the checkpoint.

    Raises:
        RecipeError: the checkpoint names a template that vlmc does not know, and the recipe none;
            or the recipe asks for what the checkpoint's shape does not allow.
    """
    check_fit(recipe, config)
    published = TileRule(
        "original", min=config.min_tiles, max=config.max_tiles, thumbnail=config.thumbnail
    )
    tiles = tile_rule(recipe, published)
    template = config.template if recipe.model.template == "auto" else recipe.model.template
    if template not in TEMPLATES:
        raise RecipeError(
            f"the checkpoint's template is {template!r}, which vlmc does not know. Set "
            f"model.template to one of {', '.join(TEMPLATES)}."
        )
    message = recipe.model.system_message
    if message == "auto":
        own = config.system_message
        message = TEMPLATES[template].system_message if own is None else own
    dtype = config.dtype if recipe.model.dtype == "auto" else DTYPE_NAMES[recipe.model.dtype]
    return Resolved(
        recipe=_written_out(recipe, tiles, template, message, dtype),
        tiles=tiles,
        published_tiles=published,
        template=template,
        system_message=message,
        language_dtype=cast(Literal["float32", "bfloat16", "float16"], dtype),
        min_feature_cosine=min_feature_cosine(recipe),
        graph_dtype=_graph_dtype(recipe),
        language_scheme=recipe.language.scheme
        if config.quantization is None
        else config.quantization.scheme,
    )


def tile_rule(recipe: Recipe, published: TileRule) -> TileRule:
    """The recipe's rule; what `original` leaves out is as published with the checkpoint."""
    part = recipe.image.tiles
    given = part.model_dump(exclude={"rule"}, exclude_none=True)
    if part.rule == "original":
        own = {"min": published.min, "max": published.max, "thumbnail": published.thumbnail}
        given = own | given
    return TileRule(part.rule, **given)


def _graph_dtype(recipe: Recipe) -> Literal["float32", "float16", "bfloat16"]:
    """What the tower's graph computes in where nothing is on an 8-bit grid.

    An artifact holds one graph. Engines for a GPU want fp16 around int8 and fp8; the CPU has fast
    fp32 kernels only, so int8 for it alone is surrounded by fp32.
    """
    match recipe.vision.precision:
        case "fp32":
            return "float32"
        case "bf16":
            return "bfloat16"
        case "int8" if all(part.engine == "onnxruntime" for part in recipe.vision.engines):
            return "float32"
        case _:
            return "float16"


def _written_out(
    recipe: Recipe, tiles: TileRule, template: str, message: str, dtype: str
) -> Recipe:
    short = {long: short for short, long in DTYPE_NAMES.items()}
    written = {
        "rule": tiles.name,
        "min": tiles.min,
        "max": tiles.max,
        "thumbnail": tiles.thumbnail,
        "tolerance": tiles.tolerance,
    }
    model = recipe.model.model_copy(
        update={
            # The folder's name only: a path would reveal where it was built, and change the bytes.
            "checkpoint": Path(recipe.model.checkpoint).name,
            "dtype": short[dtype],
            "template": template,
            "system_message": message,
        }
    )
    image = recipe.image.model_copy(update={"tiles": recipe.image.tiles.model_copy(update=written)})
    # Names only, as of the checkpoint.
    dataset, samples = recipe.accuracy.dataset, recipe.calibration.dataset
    accuracy = recipe.accuracy.model_copy(
        update={
            "dataset": None if dataset is None else Path(dataset).name,
            "min_feature_cosine": min_feature_cosine(recipe),
        }
    )
    calibration = recipe.calibration.model_copy(
        update={"dataset": None if samples is None else Path(samples).name}
    )
    return recipe.model_copy(
        update={"model": model, "image": image, "accuracy": accuracy, "calibration": calibration}
    )


def min_feature_cosine(recipe: Recipe) -> float:
    """Of the worst tile; `auto` follows from the precision."""
    given = recipe.accuracy.min_feature_cosine
    return MIN_FEATURE_COSINE[recipe.vision.precision] if given == "auto" else float(given)
