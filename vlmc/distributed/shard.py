"""Which part of a language model each of several devices holds.

Queries, keys and values are cut by heads, gate and up by their outputs, the LM head by tokens. The
two projections that follow, `o_proj` and `down_proj`, are cut by their inputs, so that each device
computes a summand of every output (Megatron-LM, arXiv:1909.08053, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vlmc.checkpoint.config import LanguageConfig
from vlmc.checkpoint.quantization import PER_WORD, Quantization
from vlmc.errors import UsageError

MAX_DEVICES = 64
_GROUP_SIZES = (256, 128, 64, 32, 16, 8)


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `rank` of `count`."""

    rank: int = 0
    count: int = 1

    def span(self, size: int) -> tuple[int, int]:
        """First and end of this part of `size` things; the last parts may be smaller."""
        each = self.width(size)
        return min(self.rank * each, size), min((self.rank + 1) * each, size)

    def width(self, size: int) -> int:
        """Size of the largest part of `size` things."""
        return -(-size // self.count)


WHOLE = Shard()


def shard_config(config: LanguageConfig, shard: Shard) -> LanguageConfig:
    """The sizes of one part: its heads, key/value heads and intermediate size."""
    return replace(
        config,
        heads=config.heads // shard.count,
        kv_heads=config.kv_heads // shard.count,
        intermediate_size=config.intermediate_size // shard.count,
    )


def check_devices(config: LanguageConfig, quantization: Quantization | None, count: int) -> None:
    """Check that a model can be cut for so many devices.

    Raises:
        UsageError: heads, widths, groups or words of zero points would be cut.
    """
    reason = _misfit(config, quantization, count)
    if reason is not None:
        fitting = ", ".join(str(other) for other in device_counts(config, quantization))
        raise UsageError(
            f"devices={count} does not fit this model: {reason}. Numbers of devices that fit: "
            f"{fitting}."
        )


def device_counts(config: LanguageConfig, quantization: Quantization | None) -> tuple[int, ...]:
    """Every number of devices that a model can be cut for, in ascending order."""
    most = min(config.kv_heads, MAX_DEVICES)
    counts = range(1, most + 1)
    return tuple(count for count in counts if _misfit(config, quantization, count) is None)


def _misfit(config: LanguageConfig, quantization: Quantization | None, count: int) -> str | None:
    """Why a model cannot be cut for so many devices; None where it can."""
    if count == 1:
        return None
    sizes = {
        "attention heads": config.heads,
        "key/value heads": config.kv_heads,
        "intermediate size": config.intermediate_size,
    }
    if any(size % count for size in sizes.values()):
        held = ", ".join(f"{name} {size}" for name, size in sizes.items())
        return f"it has {held}, and all must be multiples of the number of devices"
    if quantization is None or quantization.layout != "w4a16":
        return None
    local = shard_config(config, Shard(0, count))
    widths = {
        "o_proj": local.heads * local.head_dim,
        "down_proj": local.intermediate_size,
    }
    size = quantization.group_size
    for name, width in widths.items():
        # One group of all inputs has the same scale in every part.
        if size is not None and width % size:
            fitting = [
                str(other)
                for other in _GROUP_SIZES
                if not any(each % other for each in widths.values())
            ]
            return (
                f"each device gets {width:,} inputs of {name}, which groups of {size} do not "
                f"divide (group sizes that do, with language.group_size in the recipe: "
                f"{', '.join(fitting) or 'none'})"
            )
    outputs = (*widths.values(), local.kv_heads * local.head_dim)
    if any(width % PER_WORD for width in outputs):
        return f"parts of {min(outputs)} outputs do not fill words of {PER_WORD} 4-bit values"
    return None
