"""Write the language model's weights in Hugging Face's layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from vlmc.checkpoint.huggingface import language_tensors
from vlmc.checkpoint.source import Checkpoint
from vlmc.compile.settings import write_json

SHARD_BYTES = 4 << 30


def write_weights(
    checkpoint: Checkpoint, folder: Path, dtype: Literal["float32", "bfloat16", "float16"]
) -> None:
    """Write the language model's weights in `dtype` as safetensors."""
    tensors = language_tensors(checkpoint.weights, checkpoint.config.language)
    target = getattr(torch, dtype)
    write_shards(folder, ((name, tensor.to(target).contiguous()) for name, tensor in tensors))


def write_shards(folder: Path, tensors: Iterator[tuple[str, Tensor]]) -> None:
    """Write tensors as they come into shards of at most 4 GiB, at most one shard in memory.

    The number of shards stands in their names, so they are renamed when it is known.
    """
    shards: list[list[str]] = []
    shard: dict[str, Tensor] = {}
    total = size = 0
    for name, tensor in tensors:
        if shard and size + tensor.nbytes > SHARD_BYTES:
            _write_shard(folder, shards, shard)
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
        total += tensor.nbytes
    _write_shard(folder, shards, shard)
    if len(shards) == 1:
        _partial(folder, 0).rename(folder / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for index, names in enumerate(shards):
        final = f"model-{index + 1:05d}-of-{len(shards):05d}.safetensors"
        _partial(folder, index).rename(folder / final)
        weight_map |= dict.fromkeys(names, final)
    index_values = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(folder / "model.safetensors.index.json", index_values)


def _write_shard(folder: Path, shards: list[list[str]], shard: dict[str, Tensor]) -> None:
    save_file(shard, _partial(folder, len(shards)), metadata={"format": "pt"})
    shards.append(list(shard))


def _partial(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:05d}.safetensors"
