"""Read the output of the quantization process, and add the tensors it did not process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from vlmc.checkpoint.huggingface import language_tensors
from vlmc.checkpoint.source import Checkpoint
from vlmc.compile.language.quantization.job import REPORT, RESULT, result_file
from vlmc.compile.language.quantization.settings import Settings
from vlmc.errors import BuildError


def quantized_tensors(
    folder: Path, checkpoint: Checkpoint, settings: Settings
) -> Iterator[tuple[str, Tensor]]:
    """All tensors of the language model, one at a time: layers from the job, others unchanged."""
    dtype = getattr(torch, settings.dtype)
    others: dict[str, Tensor] = {}
    for name, tensor in language_tensors(checkpoint.weights, checkpoint.config.language):
        if not name.startswith("model.layers."):
            others[name] = tensor
    yield from ((name, tensor.to(dtype).contiguous()) for name, tensor in others.items())
    for index in range(settings.layers):
        with safe_open(result_file(folder, index), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not iterable
                yield name, file.get_tensor(name)


def read_report(folder: Path) -> dict[str, Any]:
    """Read the report of the process.

    Raises:
        BuildError: no linear was quantized.
    """
    values: dict[str, Any] = json.loads((folder / RESULT / REPORT).read_bytes())
    if all(linear["bits"] == 16 for linear in values["linears"]):
        reasons = {note["problem"] for note in values["notes"]} or {
            "language.keep matches all of them"
        }
        raise BuildError(
            "no layer of the language model could be quantized: " + "; ".join(sorted(reasons))
        )
    return values


def kept_names(report: Mapping[str, Any]) -> list[str]:
    """Linears that keep 16 bits, by `language.keep` or because quantization failed."""
    return [linear["name"] for linear in report["linears"] if linear["bits"] == 16]
