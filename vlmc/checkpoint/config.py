"""The parts of an InternVL2 `config.json` that change what the model computes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vlmc.errors import CheckpointError

Architecture = Literal[
    "InternLM2ForCausalLM", "Qwen2ForCausalLM", "Phi3ForCausalLM", "LlamaForCausalLM"
]
ARCHITECTURES: tuple[Architecture, ...] = (
    "InternLM2ForCausalLM",
    "Qwen2ForCausalLM",
    "Phi3ForCausalLM",
    "LlamaForCausalLM",
)


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """InternViT, 300M or 6B. Sizes are counts of elements, `image_size` is in pixels."""

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    image_size: int = 448
    patch_size: int = 14
    norm: Literal["layer_norm", "rms_norm"] = "layer_norm"
    norm_eps: float = 1e-6
    qk_norm: bool = False
    qkv_bias: bool = True

    @property
    def grid(self) -> int:
        """Patches along one side of a tile."""
        return self.image_size // self.patch_size

    @property
    def positions(self) -> int:
        """Class token and patches."""
        return 1 + self.grid**2


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """`dynamic` is InternLM2's NTK rule, `longrope` Phi-3's `su` factors, `linear` divides."""

    kind: Literal["none", "linear", "dynamic", "longrope", "llama3"] = "none"
    factor: float = 1.0
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()
    original_positions: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0


@dataclass(frozen=True, slots=True)
class LanguageConfig:
    """One of the four language models, in the terms that they share."""

    architecture: Architecture
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    norm_eps: float
    rope_theta: float
    max_positions: int
    rope_scaling: RopeScaling = field(default_factory=RopeScaling)
    qkv_bias: bool = False
    output_bias: bool = False
    tied_head: bool = False
