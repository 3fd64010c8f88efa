"""How many GPUs a model needs: weights, and the keys and values of one prompt, against a card."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vlmc.builder.plan.cost import DTYPE_BYTES
from vlmc.builder.plan.memory import Memory
from vlmc.checkpoint.config import LanguageConfig
from vlmc.checkpoint.quantization import Quantization
from vlmc.distributed.shard import device_counts
from vlmc.image.tiles import TOKENS_PER_TILE
from vlmc.machine.gpu import Gpu
from vlmc.machine.support import CARD_MEMORY

# An image of the published rule's 13 tiles with a question, as the runtime requires at least.
_PROMPT_TOKENS = 14 * TOKENS_PER_TILE
# The rest is for libraries and fragmentation, as in the runtime.
_USABLE = 0.9


@dataclass(frozen=True, slots=True)
class DevicesNeeded:
    """The fewest GPUs of one kind that a model can run on, and what the fullest of them holds."""

    target: str
    card: str
    memory_bytes: int  # of one card
    one_device_bytes: int
    devices: int | None  # None if no number of devices that fits the model is enough
    fullest_bytes: int | None

    def __str__(self) -> str:
        size = f"{round(self.memory_bytes / 1e9)} GB"
        if self.devices is None:
            return f"too large for any number of {self.card} ({size}) that fits its heads"
        if self.devices == 1:
            return f"1 × {size} ({self.card})"
        return f"needs {self.devices} × {size} ({self.card}): --devices {self.devices}"


def devices_needed(
    memory: Memory,
    config: LanguageConfig,
    dtype: str,
    quantization: Quantization | None,
    targets: Iterable[str],
    here: Iterable[Gpu],
) -> tuple[DevicesNeeded, ...]:
    """For each GPU target, and for the GPU of this machine if no target is named.

    Args:
        memory: of the model on one device.
        config: of the language model.
        dtype: what the language model computes in.
        quantization: how its linears will be stored.
        targets: of the recipe's engines, `cpu` among them perhaps.
        here: the GPUs of this machine, which are preferred to the usual card of their target.
    """
    own = {gpu.target: (gpu.name, gpu.memory_bytes) for gpu in reversed(list(here))}
    named = [target for target in dict.fromkeys(targets) if target in CARD_MEMORY]
    # Every process holds the tower, and the first one the embeddings too.
    embedding = config.vocab_size * config.hidden_size * DTYPE_BYTES[dtype]
    whole = memory.vision_weights_bytes + embedding
    a_token = memory.cache_bytes_per_token + memory.prefill_bytes_per_token
    shared = memory.language_weights_bytes - embedding + a_token * _PROMPT_TOKENS
    counts = device_counts(config, quantization)
    found = []
    for target in named or list(own)[-1:]:
        card, size = own.get(target) or CARD_MEMORY[target]
        fullest = {count: whole + shared // count for count in counts}
        needed = next((n for n, held in fullest.items() if held <= _USABLE * size), None)
        held = None if needed is None else fullest[needed]
        found.append(DevicesNeeded(target, card, size, whole + shared, needed, held))
    return tuple(found)
