"""The input of the quantization process: settings, and a one-layer model per decoder layer."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from vlmc.checkpoint.finite import to_dtype
from vlmc.checkpoint.huggingface import language_tensors
from vlmc.checkpoint.source import Checkpoint
from vlmc.compile.language.quantization.settings import Settings
from vlmc.files.strict_json import write_json

JOB, LAYERS, RESULT, REPORT = "job.json", "layers", "result", "report.json"
# The one-layer models take embeddings and their logits are not used, so any vocabulary will do.
_VOCABULARY = 8


def write_job(
    folder: Path,
    layers: Iterable[Mapping[str, Tensor]],
    settings: Settings,
    config: Mapping[str, Any],
) -> None:
    """Write settings and layers.

    Each layer becomes a separate Hugging Face model, so that only one is in memory at a time.

    Args:
        folder: where to write.
        layers: tensors of each layer.
        settings: the quantization settings.
        config: config.json of the language model.
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
    """Read the settings of a job."""
    values = json.loads((folder / JOB).read_bytes())
    return Settings(**values | {"keep": tuple(values["keep"])})


def layer_folder(folder: Path, index: int) -> Path:
    """The folder of a layer of the job."""
    return folder / LAYERS / f"{index:05d}"


def result_file(folder: Path, index: int) -> Path:
    """The file of a quantized layer of the job."""
    return folder / RESULT / f"{index:05d}.safetensors"


def layer_tensors(checkpoint: Checkpoint, settings: Settings) -> Iterator[dict[str, Tensor]]:
    """Tensors of each decoder layer, by name relative to the layer."""
    dtype, config = getattr(torch, settings.dtype), checkpoint.config.language
    for index in range(settings.layers):
        prefix = f"model.layers.{index}."
        tensors = language_tensors(checkpoint.weights, config, prefix)
        yield {name.removeprefix(prefix): to_dtype(name, tensor, dtype) for name, tensor in tensors}


def local_keep(keep: Collection[str], index: int) -> frozenset[str]:
    """Names of linears to keep in decoder layer `index`, such as `mlp.down_proj`."""
    prefix = f"model.layers.{index}."
    return frozenset(name.removeprefix(prefix) for name in keep if name.startswith(prefix))
