"""What the quantizing process is given: a one-layer model for each decoder layer, and settings."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from vlmc.checkpoint.huggingface import language_tensors
from vlmc.checkpoint.source import Checkpoint
from vlmc.compile.language.quantization.settings import Settings
from vlmc.errors import CheckpointError
from vlmc.files.strict_json import write_json

JOB, LAYERS, RESULT, REPORT = "job.json", "layers", "result", "report.json"
# Tokens of a layer's own vocabulary: embeddings come from outside, and no logits are looked at.
_VOCABULARY = 8


def write_job(
    folder: Path,
    layers: Iterable[Mapping[str, Tensor]],
    settings: Settings,
    config: Mapping[str, Any],
) -> None:
    """Write settings and layers, which come one by one; `config` is the language model's
    config.json.

    A layer is a Hugging Face model of its own, so that one at a time is in memory.
    """
    write_json(folder / JOB, asdict(settings))
    (folder / RESULT).mkdir()
    one = {
        **config,
        "num_hidden_layers": 1,
        "vocab_size": _VOCABULARY,
        "torch_dtype": settings.dtype,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
    }
    table = torch.zeros(_VOCABULARY, config["hidden_size"], dtype=getattr(torch, settings.dtype))
    for index, tensors in enumerate(layers):
        layer = layer_folder(folder, index)
        layer.mkdir(parents=True)
        write_json(layer / "config.json", one)
        whole = {
            **{f"model.layers.0.{name}": tensor for name, tensor in tensors.items()},
            "model.embed_tokens.weight": table,
            "model.norm.weight": torch.ones_like(table[0]),
            "lm_head.weight": table.clone(),
        }
        save_file(whole, layer / "model.safetensors", metadata={"format": "pt"})


def read_settings(folder: Path) -> Settings:
    """The settings of a job."""
    values = json.loads((folder / JOB).read_bytes())
    return Settings(**values | {"keep": tuple(values["keep"])})


def layer_folder(folder: Path, index: int) -> Path:
    """Where a layer of the job lies."""
    return folder / LAYERS / f"{index:05d}"


def result_file(folder: Path, index: int) -> Path:
    """Where a quantized layer of the job lies."""
    return folder / RESULT / f"{index:05d}.safetensors"


def check_finite(checkpoint: Checkpoint) -> None:
    """Refuse a language model with weights that are no numbers; fp8 values are not looked at.

    Raises:
        CheckpointError: names the tensor and the file that holds it.
    """
    for name in checkpoint.weights:
        if name.startswith("language_model."):
            tensor = checkpoint.weights.tensor(name)
            # torch tells it of no fp8 tensor.
            if tensor.dtype != torch.float8_e4m3fn and not tensor.isfinite().all():
                raise CheckpointError(
                    f"tensor {name} in {checkpoint.weights.file(name)} holds values that are not "
                    "finite (NaN or infinity), and cannot be quantized. Download the file again."
                )


def layer_tensors(checkpoint: Checkpoint, settings: Settings) -> Iterator[dict[str, Tensor]]:
    """Each decoder layer's tensors by name within it, one layer at a time."""
    dtype, config = getattr(torch, settings.dtype), checkpoint.config.language
    for index in range(settings.layers):
        prefix = f"model.layers.{index}."
        tensors = language_tensors(checkpoint.weights, config, prefix)
        yield {name.removeprefix(prefix): tensor.to(dtype).contiguous() for name, tensor in tensors}


def local_keep(keep: Collection[str], index: int) -> frozenset[str]:
    """The names of kept layers within decoder layer `index`, such as `mlp.down_proj`."""
    prefix = f"model.layers.{index}."
    return frozenset(name.removeprefix(prefix) for name in keep if name.startswith(prefix))
