"""Quantize the layers of a job, one at a time, in a separate process.

Run as `python -m vlmc.compile.language.quantization.worker JOB FD`.

File descriptor FD receives the events, one per line. The process is separate because llmcompressor
patches the libraries it uses. A layer's folder is deleted once its result is written, so that at
most one layer is on disk twice.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from vlmc.compile.language.quantization.embeddings import read_embeddings
from vlmc.compile.language.quantization.job import (
    REPORT,
    RESULT,
    layer_folder,
    local_keep,
    read_settings,
    result_file,
)
from vlmc.compile.language.quantization.linear_error import LinearReport
from vlmc.compile.language.quantization.retry import Note, quantize_layer
from vlmc.compile.language.quantization.settings import held_out
from vlmc.files.strict_json import write_json
from vlmc.machine.memory import MemoryPeak
from vlmc.progress.channel import receiving, report
from vlmc.progress.events import Progress
from vlmc.progress.pipe import to_line


def main(folder: Path) -> None:
    """Quantize the job in `folder`, and report every finished layer."""
    # Not ru_maxrss, which a child process inherits from its parent.
    peak = MemoryPeak()
    # Trained weights contain denormal numbers, which slow a CPU down fifty times.
    torch.set_flush_denormal(True)
    settings = read_settings(folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # On most CPUs, 16-bit arithmetic is slower than fp32.
    dtype = torch.float32 if device.type == "cpu" else getattr(torch, settings.dtype)
    inputs: list[Tensor] = []
    if settings.samples is not None:
        inputs = [states[None].to(dtype) for states in read_embeddings(Path(settings.samples))]
    linears: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    layer_seconds: list[float] = []
    for index in range(settings.layers):
        start = time.perf_counter()
        source = layer_folder(folder, index)
        result = quantize_layer(
            source,
            inputs,
            held_out(len(inputs)),
            settings,
            keep=local_keep(settings.keep, index),
            dtype=dtype,
            device=device,
        )
        prefix = f"model.layers.{index}"
        tensors = {f"{prefix}.{name}": tensor for name, tensor in result.tensors.items()}
        save_file(tensors, result_file(folder, index), metadata={"format": "pt"})
        linears += [_named(linear, prefix) for linear in result.linears]
        notes += [_named(note, prefix) for note in result.notes]
        inputs = result.outputs
        shutil.rmtree(source)
        layer_seconds.append(round(time.perf_counter() - start, 3))
        report(Progress("layers", index + 1, settings.layers))
    values = {
        "linears": linears,
        "notes": notes,
        "samples": len(inputs),
        "held_out_samples": held_out(len(inputs)),
        "device": device.type,
        "layer_seconds": layer_seconds,
        "peak_memory_bytes": peak.read(),
        "peak_device_memory_bytes": (
            torch.cuda.max_memory_allocated() if device.type == "cuda" else None
        ),
    }
    write_json(folder / RESULT / REPORT, values)


def _named(part: LinearReport | Note, prefix: str) -> dict[str, Any]:
    """The JSON form, with the full name in the model."""
    return asdict(part) | {"name": f"{prefix}.{part.name}".rstrip(".")}


if __name__ == "__main__":
    with (
        os.fdopen(int(sys.argv[2]), "w", buffering=1) as lines,
        receiving(lambda event: print(to_line(event), file=lines)),
    ):
        main(Path(sys.argv[1]))
