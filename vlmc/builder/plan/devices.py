"""How many GPUs a model needs, by the rule by which the runtime loads or refuses it.

Each GPU needs memory for the process, the tower, its part of the language model, what a step of
`runtime.max_batch_tokens` computes, and the keys and values of one image with a question.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vlmc.builder.plan.cost import DTYPE_BYTES
from vlmc.builder.plan.memory import Memory
from vlmc.checkpoint.config import LanguageConfig
from vlmc.checkpoint.quantization import Quantization
from vlmc.distributed.shard import Shard, device_counts, shard_config
from vlmc.machine.gpu import Gpu
from vlmc.machine.support import CARD_MEMORY
from vlmc.models.language.memory import least_free_bytes

PROCESS_BYTES = 10**9
"""What a process takes of a GPU beside the model: driver, CUDA context, kernels, NCCL. A round
figure that was not measured."""


@dataclass(frozen=True, slots=True)
class DevicesNeeded:
    """The fewest GPUs of one kind that a model can run on, and the memory that each must have."""

    target: str
    card: str
    memory_bytes: int  # of one card
    one_device_bytes: int  # that one GPU alone must have
    devices: int | None  # None if no number that the model can be cut for is enough
    fullest_bytes: int | None  # that the fullest of `devices` GPUs must have

    def __str__(self) -> str:
        size = f"{round(self.memory_bytes / 1e9)} GB"
        if self.devices is None:
            return (
                f"too large for any number of {self.card} ({size}) that divides its heads, at this "
                "runtime.max_batch_tokens"
            )
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
    """For each GPU target, or for the GPU of this machine if no target is named.

    Args:
        memory: of the model on one device.
        config: of the language model.
        dtype: what the language model computes in.
        quantization: how its linears will be stored.
        targets: of the recipe's engines; `cpu` and others that are not a GPU's are left out.
        here: the GPUs of this machine, which are preferred to the usual card of their target.
    """
    own = {gpu.target: (gpu.name, gpu.memory_bytes) for gpu in reversed(list(here))}
    named = [target for target in dict.fromkeys(targets) if target in CARD_MEMORY]
    needed = {
        count: _needed_bytes(count, memory, config, DTYPE_BYTES[dtype])
        for count in device_counts(config, quantization)
    }
    found = []
    for target in named or list(own)[-1:]:
        card, size = own.get(target) or CARD_MEMORY[target]
        devices = next((count for count, least in needed.items() if least <= size), None)
        fullest = None if devices is None else needed[devices]
        found.append(DevicesNeeded(target, card, size, needed[1], devices, fullest))
    return tuple(found)


def _needed_bytes(devices: int, memory: Memory, config: LanguageConfig, element_bytes: int) -> int:
    """Memory that the fullest of so many GPUs must have for the runtime to load the model."""
    # Every process holds the tower, and the first one the embeddings too.
    embeddings = config.vocab_size * config.hidden_size * element_bytes
    shared = memory.language_weights_bytes - embeddings
    loaded = memory.vision_weights_bytes + embeddings + shared // devices
    part = shard_config(config, Shard(0, devices))
    return PROCESS_BYTES + loaded + least_free_bytes(part, element_bytes, memory.batch_tokens)
