"""Memory of a loaded model, and how many images a batch of it takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from vlmc.builder.plan.cost import DTYPE_BYTES, Counts
from vlmc.checkpoint.config import LanguageConfig
from vlmc.image.tiles import TileRule, choose_grid, kept_tokens
from vlmc.machine.support import Precision
from vlmc.models.language.memory import cache_bytes_per_token
from vlmc.recipe.fit import linear_layers
from vlmc.recipe.schema import LanguagePart

PRECISION_BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}
_SCALE_BYTES = 2


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """What an image of `width` · `height` pixels becomes; `tiles` counts the thumbnail."""

    width: int
    height: int
    columns: int
    rows: int
    thumbnail: bool
    tiles: int
    tokens: int
    cache_bytes: int | None  # keys and values of the image's tokens; None if unknown


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a loaded model; the engines' workspaces and the driver's own come on top."""

    vision_weights_bytes: int
    language_weights_bytes: int
    cache_bytes_per_token: int
    prefill_bytes_per_token: int  # of the widest layer, gate and up projection
    batch_tokens: int

    @property
    def prefill_bytes(self) -> int:
        """What the widest layer writes for a full batch."""
        return self.prefill_bytes_per_token * self.batch_tokens

    @property
    def cache_bytes(self) -> int:
        """Keys and values of a full batch."""
        return self.cache_bytes_per_token * self.batch_tokens

    @property
    def total_bytes(self) -> int:
        """Weights, and keys, values and the widest layer of a full batch."""
        weights = self.vision_weights_bytes + self.language_weights_bytes
        return weights + self.cache_bytes + self.prefill_bytes


def plan_memory(
    counts: Counts,
    config: LanguageConfig,
    dtype: str,
    *,
    precision: Precision,
    language: LanguagePart,
    batch_tokens: int,
) -> Memory:
    """Memory of the weights in the recipe's precisions, and of a batch's keys and values."""
    return Memory(
        vision_weights_bytes=counts.tower_parameters * PRECISION_BYTES[precision],
        language_weights_bytes=_language_weights_bytes(counts, config, dtype, language),
        cache_bytes_per_token=cache_bytes_per_token(config, DTYPE_BYTES[dtype]),
        prefill_bytes_per_token=2 * config.intermediate_size * DTYPE_BYTES[dtype],
        batch_tokens=batch_tokens,
    )


def quantized_parameters(config: LanguageConfig, keep: Iterable[str] = ()) -> int:
    """Weights of the layers that a scheme quantizes, but for those that a pattern of `keep`
    names."""
    query, value = config.heads * config.head_dim, config.kv_heads * config.head_dim
    inner = config.intermediate_size
    outputs = {
        "q_proj": query,
        "k_proj": value,
        "v_proj": value,
        "qkv_proj": query + 2 * value,
        "o_proj": config.hidden_size,
        "gate_proj": inner,
        "up_proj": inner,
        "gate_up_proj": 2 * inner,
        "down_proj": config.hidden_size,
    }
    patterns = tuple(keep)
    return sum(
        inputs * outputs[name.rpartition(".")[2]]
        for name, inputs in linear_layers(config).items()
        if not any(fnmatchcase(name, pattern) for pattern in patterns)
    )


def _language_weights_bytes(
    counts: Counts, config: LanguageConfig, dtype: str, language: LanguagePart
) -> int:
    """The language model's weights under the recipe's scheme.

    Embedding, head, norms and the layers of `language.keep` stay in `dtype`. A group of 4-bit
    weights has a scale, and 4 bits of zero point unless it is symmetric.
    """
    quantized = quantized_parameters(config, language.keep)
    kept = (counts.language_parameters - quantized) * DTYPE_BYTES[dtype]
    match language.scheme:
        case "none":
            plain = counts.language_parameters - counts.quantized_parameters
            return plain * DTYPE_BYTES[dtype] + counts.quantized_bytes
        case "fp8":
            return kept + quantized
        case "w4a16":
            groups = quantized // language.group_size
            zero_points = 0 if language.symmetric else groups // 2
            return kept + quantized // 2 + groups * _SCALE_BYTES + zero_points


def plan_images(
    sizes: Iterable[tuple[int, int]], rule: TileRule, keep: float, token_bytes: int | None
) -> tuple[PlannedImage, ...]:
    """Grid and tokens of images of these widths and heights in pixels.

    Raises:
        UsageError: a size is not positive.
    """
    planned = []
    for width, height in sizes:
        grid = choose_grid(width, height, rule)
        tokens = grid.tiles * kept_tokens(keep)
        planned.append(
            PlannedImage(
                width=width,
                height=height,
                columns=grid.columns,
                rows=grid.rows,
                thumbnail=grid.thumbnail,
                tiles=grid.tiles,
                tokens=tokens,
                cache_bytes=None if token_bytes is None else tokens * token_bytes,
            )
        )
    return tuple(planned)
