"""Write the language model in Hugging Face's layout, with its tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from vlmc.checkpoint.huggingface import language_config_json, language_tensors
from vlmc.checkpoint.source import Checkpoint
from vlmc.text.tokenizer import TOKENIZER_FILES

SHARD_BYTES = 4 << 30


def compile_language(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    dtype: Literal["float32", "bfloat16", "float16"],
    stop_id: int,
) -> None:
    """Write configuration, weights in `dtype`, tokenizer and generation settings into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = checkpoint.tokenizer
    values = language_config_json(
        checkpoint.config.language,
        dtype=dtype,
        bos_id=tokenizer.bos_id,
        eos_id=stop_id,
        pad_id=tokenizer.pad_id,
    )
    _write_json(folder / "config.json", values)
    settings = {key: values[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(folder / "generation_config.json", settings)
    for name in TOKENIZER_FILES:
        if (checkpoint.folder / name).is_file():
            shutil.copyfile(checkpoint.folder / name, folder / name)
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
    _write_json(folder / "model.safetensors.index.json", index_values)


def _write_shard(folder: Path, shards: list[list[str]], shard: dict[str, Tensor]) -> None:
    save_file(shard, _partial(folder, len(shards)), metadata={"format": "pt"})
    shards.append(list(shard))


def _partial(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:05d}.safetensors"


def _write_json(path: Path, values: object) -> None:
    path.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")
