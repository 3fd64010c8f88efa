"""Write the language model's weights in Hugging Face's layout."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from vlmc.checkpoint.huggingface import language_tensors
from vlmc.checkpoint.packed import COMPRESSED_KINDS
from vlmc.checkpoint.source import Checkpoint
from vlmc.compile.language.fp8 import fp8_tensors
from vlmc.compile.language.quantization.job import check_finite, layer_tensors, write_job
from vlmc.compile.language.quantization.report import write_report
from vlmc.compile.language.quantization.result import quantized_tensors, read_report
from vlmc.compile.language.quantization.run import run_job
from vlmc.compile.language.quantization.settings import Dtype, Settings
from vlmc.files.strict_json import write_json

SHARD_BYTES = 4 << 30
REPORT = "report"


def write_weights(checkpoint: Checkpoint, folder: Path, dtype: Dtype) -> None:
    """Write the language model's weights in `dtype` as safetensors.

    Linears that are quantized already keep their integers or fp8 values, zero points and scales as
    they are, in compressed-tensors' layout.

    Raises:
        CheckpointError: the weights are quantized, and something in them is no finite number or
            cannot be laid out so.
    """
    config, target = checkpoint.config, getattr(torch, dtype)
    if config.quantization is not None:
        check_finite(checkpoint)
    tensors = language_tensors(
        checkpoint.weights, config.language, quantization=config.quantization
    )

    def stored(name: str, tensor: Tensor) -> Tensor:
        quantized = name.endswith(COMPRESSED_KINDS) or tensor.dtype == torch.float8_e4m3fn
        return tensor if quantized else tensor.to(target)

    write_shards(folder, ((name, stored(name, tensor).contiguous()) for name, tensor in tensors))


def write_fp8(
    checkpoint: Checkpoint, folder: Path, dtype: Dtype, quantized: Collection[str]
) -> None:
    """Write the language model with the linears in `quantized` in fp8, and the rest in `dtype`.

    Raises:
        CheckpointError: a weight is no finite number.
    """
    check_finite(checkpoint)
    tensors = language_tensors(checkpoint.weights, checkpoint.config.language)
    target = getattr(torch, dtype)
    cast = ((name, tensor.to(target).contiguous()) for name, tensor in tensors)
    write_shards(folder, fp8_tensors(cast, quantized))


def write_quantized(
    checkpoint: Checkpoint, folder: Path, settings: Settings, config: Mapping[str, Any]
) -> None:
    """Write the language model in 4 bits as safetensors, and `report/language-quantization.json`
    and `.svg`; `config` is the unquantized model's config.json.

    Raises:
        CheckpointError: a weight is no finite number.
        BuildError: the process that quantizes failed.
    """
    check_finite(checkpoint)
    # Beside the step's own folder, and on its disk: the job is as large as the model.
    with TemporaryDirectory(dir=folder.parent, prefix=".quantize-") as name:
        job = Path(name)
        write_job(job, layer_tensors(checkpoint, settings), settings, config)
        run_job(job)
        measured = read_report(job)
        write_shards(folder, quantized_tensors(job, checkpoint, settings))
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    write_report(folder / REPORT, settings, measured, stored_bytes=stored)


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
