"""Write the language model's weights in the Hugging Face layout."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from vlmc.checkpoint.finite import to_dtype
from vlmc.checkpoint.huggingface import language_tensors
from vlmc.checkpoint.packed import COMPRESSED_KINDS
from vlmc.checkpoint.source import Checkpoint
from vlmc.compile.language.fp8 import fp8_tensors
from vlmc.compile.language.quantization.job import layer_tensors, write_job
from vlmc.compile.language.quantization.report import write_report
from vlmc.compile.language.quantization.result import quantized_tensors, read_report
from vlmc.compile.language.quantization.run import run_job
from vlmc.compile.language.quantization.settings import Dtype, Settings
from vlmc.files.strict_json import write_json

SHARD_BYTES = 4 << 30
REPORT = "report"


def write_weights(checkpoint: Checkpoint, folder: Path, dtype: Dtype) -> None:
    """Write the language model's weights in `dtype` as safetensors.

    Linears that are already quantized keep their values, zero points and scales, in the
    compressed-tensors layout.

    Raises:
        CheckpointError: a value is not finite in the file or in `dtype`, or a quantized linear
            cannot be converted to that layout.
    """
    config, target = checkpoint.config, getattr(torch, dtype)
    tensors = language_tensors(
        checkpoint.weights, config.language, quantization=config.quantization
    )

    def stored(name: str, tensor: Tensor) -> Tensor:
        quantized = name.endswith(COMPRESSED_KINDS) or tensor.dtype == torch.float8_e4m3fn
        return tensor.contiguous() if quantized else to_dtype(name, tensor, target)

    write_shards(folder, ((name, stored(name, tensor)) for name, tensor in tensors))


def write_fp8(
    checkpoint: Checkpoint, folder: Path, dtype: Dtype, quantized: Collection[str]
) -> None:
    """Write the language model with the linears in `quantized` in fp8, and the rest in `dtype`.

    Raises:
        CheckpointError: a value is not finite in the file or in `dtype`.
    """
    tensors = language_tensors(checkpoint.weights, checkpoint.config.language)
    target = getattr(torch, dtype)
    cast = ((name, to_dtype(name, tensor, target)) for name, tensor in tensors)
    write_shards(folder, fp8_tensors(cast, quantized))


def write_quantized(
    checkpoint: Checkpoint, folder: Path, settings: Settings, config: Mapping[str, Any]
) -> None:
    """Quantize the language model to 4 bits, and write weights and a report.

    Args:
        checkpoint: the source model.
        folder: where to write; the report is in `report/`.
        settings: the quantization settings.
        config: config.json of the unquantized model.

    Raises:
        CheckpointError: a value is not finite in the file or in the model's dtype.
        BuildError: the quantization process failed.
    """
    # On the same disk as the result, because the job is as large as the model.
    with TemporaryDirectory(dir=folder.parent, prefix=".quantize-") as name:
        job = Path(name)
        write_job(job, layer_tensors(checkpoint, settings), settings, config)
        run_job(job)
        measured = read_report(job)
        write_shards(folder, quantized_tensors(job, checkpoint, settings))
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    write_report(folder / REPORT, settings, measured, stored_bytes=stored)


def write_shards(folder: Path, tensors: Iterator[tuple[str, Tensor]]) -> None:
    """Write tensors into shards of at most 4 GiB, with one shard in memory at a time.

    Shards are renamed at the end, because their names contain the number of shards.
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
