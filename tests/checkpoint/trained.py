"""Layouts in which trainers save a model, made from a miniature."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from tests.checkpoint import edit
from tests.saved_again import put_tokenizer, recorded_config

Tensors = dict[str, Tensor]
_TARGETS = ("attention.wqkv", "qkv_proj", "q_proj", "down_proj", "feed_forward.w2")
_RANK = 4


def base_and_pairs(values: Tensors) -> tuple[Tensors, dict[str, tuple[Tensor, Tensor]]]:
    """A base model in fp32 and low-rank pairs that, merged with scale 2, make the model."""
    base, pairs = {name: value.float() for name, value in values.items()}, {}
    generator = torch.Generator().manual_seed(3)
    for name in values:
        module = name.removesuffix(".weight")
        if name.startswith("language_model.") and module.endswith(_TARGETS):
            outputs, inputs = base[name].shape
            down = torch.randn(_RANK, inputs, generator=generator) / inputs**0.5
            up = torch.randn(outputs, _RANK, generator=generator) * 0.2
            base[name] = base[name] - 2 * up @ down
            pairs[module] = (down, up)
    return base, pairs


def saved_again(source: Path, target: Path, kind: str) -> Path:
    """`save_pretrained` of transformers 5: one file, renamed keys, tokenizer.json."""
    folder = edit.copy(source, target)
    (folder / "config.json").write_text(json.dumps(recorded_config(kind)))
    put_tokenizer(kind, folder)
    return folder


def peft_merged(source: Path, target: Path, kind: str) -> Path:
    """`merge_and_unload().save_pretrained()` of a PEFT model: plain names, weights merged."""
    folder = saved_again(source, target, kind)
    base, pairs = base_and_pairs(edit.tensors(source))
    for module, (down, up) in pairs.items():
        base[f"{module}.weight"] = base[f"{module}.weight"] + (up @ down) * 2.0
    edit.write_tensors(folder, base)
    edit.edit_config(folder, {"dtype": "float32"})
    return folder


def opengvlab_lora(source: Path, target: Path, kind: str) -> Path:
    """OpenGVLab's LoRA fine-tuning: the language model wrapped, its pairs unmerged."""
    folder = edit.copy(source, target)
    base, pairs = base_and_pairs(edit.tensors(source))
    saved: Tensors = {}
    for name, value in base.items():
        module, _, last = name.rpartition(".")
        wrapped = name.replace("language_model.", "language_model.base_model.model.", 1)
        if module in pairs:
            wrapped = wrapped.removesuffix(last) + f"base_layer.{last}"
        saved[wrapped] = value
    for module, pair in pairs.items():
        wrapped = module.replace("language_model.", "language_model.base_model.model.", 1)
        saved |= {
            f"{wrapped}.lora_{part}.default.weight": t for part, t in zip("AB", pair, strict=True)
        }
    edit.write_tensors(folder, saved)
    edit.edit_config(folder, {"use_llm_lora": _RANK, "torch_dtype": "float32"})
    return folder


def distributed(source: Path, target: Path, kind: str) -> Path:
    """Full fine-tuning whose trainer saved the wrapper's names."""
    folder = edit.copy(source, target)
    edit.write_tensors(folder, {f"module.{k}": v for k, v in edit.tensors(source).items()})
    return folder


LAYOUTS = {
    "original": lambda source, target, kind: source,
    "saved again": saved_again,
    "PEFT merged": peft_merged,
    "OpenGVLab LoRA": opengvlab_lora,
    "distributed": distributed,
}
