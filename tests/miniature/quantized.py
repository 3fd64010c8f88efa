"""Miniatures whose language model is quantized already, as published checkpoints are: rounded to
the nearest, and written under the original names by each layout's definition."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Layout = Literal["awq", "gptq", "gptq_v2", "pack-quantized", "float-quantized"]
LAYOUTS: tuple[Layout, ...] = ("awq", "gptq", "gptq_v2", "pack-quantized", "float-quantized")
PLAIN = (0, 1, 2, 3, 4, 5, 6, 7)
AWQ = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight outputs stands in each nibble of an AWQ word, the lowest first."""
VISION_FILE = "model-00001-of-00002.safetensors"
LANGUAGE_FILE = "model-00002-of-00002.safetensors"
_LAYERS = "language_model.model.layers."
_E4M3_MAX = 448.0


def write_quantized(
    source: Path,
    folder: Path,
    layout: Layout,
    *,
    group_size: int = 32,
    symmetric: bool = False,
    keep: Iterable[str] = (),
    place: Literal["", "llm_config"] = "llm_config",
) -> Path:
    """Write the miniature `source` with the linears of its layers quantized, but for those whose
    name ends with one of `keep`; config.json says so at its top or under llm_config. A group size
    of -1 is one group of all inputs.

    The tower is in a file of its own, the same for all that are made of `source`.
    """
    kept = tuple(keep)

    def parts(name: str, weight: Tensor) -> dict[str, Tensor]:
        if name.endswith(kept):
            return {"weight": weight}
        if layout == "float-quantized":
            return fp8(weight)
        return lay_out(*round_to_nearest(weight, group_size, symmetric=symmetric), layout)

    config = settings(layout, group_size, symmetric=symmetric)
    return _write(source, folder, parts, {place: config})


def write_dequantized(
    source: Path, folder: Path, *, group_size: int = 32, symmetric: bool = False
) -> Path:
    """Write the same integers' values, (q − z) · scale, as fp32 weights of a usual checkpoint."""

    def parts(_: str, weight: Tensor) -> dict[str, Tensor]:
        return {"weight": values(*round_to_nearest(weight, group_size, symmetric=symmetric))}

    return _write(source, folder, parts, {})


def _write(
    source: Path,
    folder: Path,
    parts: Callable[[str, Tensor], dict[str, Tensor]],
    settings: dict[str, Any],
) -> Path:
    folder.mkdir(parents=True)
    for path in source.iterdir():
        if not path.name.startswith("model.safetensors") and path.suffix != ".safetensors":
            shutil.copyfile(path, folder / path.name)
    vision: dict[str, Tensor] = {}
    language: dict[str, Tensor] = {}
    for path in sorted(source.glob("*.safetensors")):
        for name, tensor in load_file(path).items():
            linear, _, kind = name.rpartition(".")
            if not name.startswith("language_model."):
                vision[name] = tensor
            elif name.startswith(_LAYERS) and kind == "weight" and tensor.dim() == 2:
                made = parts(linear, tensor.float())
                language |= {f"{linear}.{part}": made[part].contiguous() for part in made}
            else:
                language[name] = tensor
    index: dict[str, Any] = {"metadata": {}, "weight_map": {}}
    for file, tensors in ((VISION_FILE, vision), (LANGUAGE_FILE, language)):
        save_file(tensors, folder / file, metadata={"format": "pt"})
        index["weight_map"] |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = json.loads((folder / "config.json").read_text())
    for place, said in settings.items():
        (config[place] if place else config)["quantization_config"] = said
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def round_to_nearest(
    weight: Tensor, group_size: int, *, symmetric: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """q (out, in) and z (out, groups) in 0..15, and fp16 scales (out, groups)."""
    grouped = weight.unflatten(1, (-1, weight.shape[1] if group_size == -1 else group_size))
    low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
    span = 2 * torch.maximum(-low, high) if symmetric else high - low
    scales = (span / 15).clamp(min=1e-4).half()
    zeros = torch.full_like(low, 8) if symmetric else (-low / scales.float()).round().clamp(0, 15)
    q = grouped / scales.float()[..., None] + zeros[..., None]
    return q.round().clamp(0, 15).flatten(1).long(), zeros.long(), scales


def values(q: Tensor, z: Tensor, scales: Tensor) -> Tensor:
    """(q − z) · scale in fp32, which is exact."""
    spread = q.shape[1] // z.shape[1]
    offset = q - z.repeat_interleave(spread, 1)
    return offset * scales.float().repeat_interleave(spread, 1)


def lay_out(q: Tensor, z: Tensor, scales: Tensor, layout: Layout) -> dict[str, Tensor]:
    """The tensors of one linear."""
    if layout == "pack-quantized":
        found = {"weight_packed": words(q), "weight_scale": scales}
        found["weight_shape"] = torch.tensor(q.shape)
        return found if bool((z == 8).all()) else found | {"weight_zero_point": words(z.T).T}
    if layout == "awq":
        return {"qweight": words(q.T, AWQ), "qzeros": words(z.T, AWQ), "scales": scales.T}
    spread = q.shape[1] // z.shape[1]
    stored = (z - 1) % 16 if layout == "gptq" else z
    return {
        "qweight": words(q).T,
        "qzeros": words(stored.T),
        "scales": scales.T,
        "g_idx": (torch.arange(q.shape[1]) // spread).int(),
    }


def words(nibbles: Tensor, order: tuple[int, ...] = PLAIN) -> Tensor:
    """0..15 (rows, 8 · columns) → int32 (rows, columns), the lowest bits first."""
    eights = nibbles.long().unflatten(-1, (-1, 8))[..., list(order)]
    unsigned = (eights << torch.arange(0, 32, 4)).sum(-1)
    return torch.where(unsigned >= 1 << 31, unsigned - (1 << 32), unsigned).int()


def fp8(weight: Tensor) -> dict[str, Tensor]:
    """E4M3 values and a scale for each output."""
    scales = (weight.abs().amax(1, keepdim=True) / _E4M3_MAX).clamp(min=1e-6).bfloat16()
    made = (weight / scales.float()).clamp(-_E4M3_MAX, _E4M3_MAX).to(torch.float8_e4m3fn)
    return {"weight": made, "weight_scale": scales}


def settings(layout: Layout, group_size: int, *, symmetric: bool) -> dict[str, Any]:
    """`quantization_config` as the layout's writers write it."""
    if layout == "awq":
        return {
            "bits": 4,
            "group_size": group_size,
            "modules_to_not_convert": None,
            "quant_method": "awq",
            "version": "gemm",
            "zero_point": True,
        }
    if layout in ("gptq", "gptq_v2"):
        return {
            "bits": 4,
            "checkpoint_format": layout,
            "damp_percent": 0.01,
            "desc_act": False,
            "group_size": group_size,
            "quant_method": "gptq",
            "static_groups": False,
            "sym": symmetric,
            "true_sequential": True,
        }
    weights: dict[str, Any] = {
        "group_size": None if group_size == -1 else group_size,
        "num_bits": 4,
        "strategy": "channel" if group_size == -1 else "group",
        "symmetric": symmetric,
        "type": "int",
    }
    activations = None
    if layout == "float-quantized":
        weights = {"num_bits": 8, "strategy": "channel", "symmetric": True, "type": "float"}
        activations = {"dynamic": True, "num_bits": 8, "strategy": "token", "type": "float"}
    return {
        "config_groups": {
            "group_0": {
                "input_activations": activations,
                "targets": ["Linear"],
                "weights": weights,
            }
        },
        "format": layout,
        "ignore": ["re:vision_model.*", "re:mlp1.*", "re:.*output", "re:.*lm_head"],
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
    }
