"""The tensors of an artifact under the names of the exported layouts, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from vlmc.checkpoint.finite import to_dtype
from vlmc.models.vision.tower import tile_positions
from vlmc.models.vision.tower_file import TowerFileConfig

_QKV = ("q_proj", "k_proj", "v_proj")
# Parts of names, in the order in which they are replaced.
_HF_NAMES = {
    "vision_model.": "vision_tower.",
    ".class_embedding": ".cls_token",
    ".position_embedding": ".position_embeddings",
    ".patch_embedding.": ".patch_embeddings.projection.",
    ".encoder.layers.": ".encoder.layer.",
    ".norm1.": ".layernorm_before.",
    ".norm2.": ".layernorm_after.",
    ".ls1": ".lambda_1",
    ".ls2": ".lambda_2",
    ".attn.proj.": ".attention.projection_layer.",
    ".attn.": ".attention.",
    "mlp1.0.": "multi_modal_projector.layer_norm.",
    "mlp1.1.": "multi_modal_projector.linear_1.",
    "mlp1.3.": "multi_modal_projector.linear_2.",
}


def tower_tensors(
    path: Path, config: TowerFileConfig, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """Tower and projector under their original names, for tiles of 448 pixels.

    Raises:
        CheckpointError: a value is beyond the range of `dtype`.
    """
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            tensor = file.get_tensor(name)
            if name.endswith(".position_embedding"):
                tensor = tile_positions(tensor, config.vision.grid)
            yield name, to_dtype(name, tensor, dtype)


def hf_tower_tensors(tensors: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Original tensors under Hugging Face's names, queries, keys and values apart."""
    for name, tensor in tensors:
        before, qkv, kind = name.partition(".attn.qkv.")
        if qkv:
            for part, rows in zip(_QKV, tensor.chunk(3), strict=True):
                yield hf_name(f"{before}.attn.{part}.{kind}"), rows.contiguous()
        else:
            yield hf_name(name), tensor


def hf_name(name: str) -> str:
    """Hugging Face's name of a tensor of the tower or the projector."""
    for old, new in _HF_NAMES.items():
        name = name.replace(old, new)
    return name


def language_tensors(
    folder: Path, *, zero_biases: torch.dtype | None = None
) -> Iterator[tuple[str, Tensor]]:
    """The language model's tensors under Hugging Face's names, from its files.

    Args:
        folder: the artifact's language folder.
        zero_biases: dtype of biases of zeros for queries, keys and values that have none, which
            make Llama's layers Qwen2's. None adds none.
    """
    files = language_files(folder)
    for name, path in files.items():
        tensor = read_tensor(path, name)
        yield f"language_model.{name}", tensor
        linear, _, kind = name.rpartition(".")
        bias = f"{linear}.bias"
        if zero_biases is None or not linear.endswith(_QKV) or bias in files:
            continue
        if kind in ("weight", "weight_packed"):
            yield f"language_model.{bias}", torch.zeros(len(tensor), dtype=zero_biases)


def language_files(folder: Path) -> dict[str, Path]:
    """The file of each tensor, by its name."""
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="np") as file:
            files |= dict.fromkeys(file.keys(), path)
    return files


def read_tensor(path: Path, name: str) -> Tensor:
    """One tensor, mapped from its file."""
    with safe_open(path, framework="pt") as file:
        tensor: Tensor = file.get_tensor(name)
        return tensor
