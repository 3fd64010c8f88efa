"""Sizes of the released models, and of a miniature that a CPU runs in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass

from vlmc.checkpoint.config import LanguageConfig, VisionConfig
from vlmc.checkpoint.rope_config import RopeScaling
from vlmc.errors import UsageError
from vlmc.models.vision.tower_file import TowerFileConfig


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's sizes. All have Llama's layout, which computes the same as the others' do."""

    vision: VisionConfig
    language: LanguageConfig
    template: str = "internlm2-chat"

    @property
    def tower(self) -> TowerFileConfig:
        """The tower's configuration; all of its blocks run."""
        return TowerFileConfig(self.vision, -1, "v2", self.language.hidden_size)


VIT_300M = VisionConfig(hidden_size=1024, layers=24, heads=16, intermediate_size=4096)
VIT_6B = VisionConfig(
    hidden_size=3200,
    layers=45,
    heads=25,
    intermediate_size=12800,
    norm="rms_norm",
    qk_norm=True,
    qkv_bias=False,
)


def _language(
    hidden: int,
    layers: int,
    heads: int,
    kv_heads: int,
    inner: int,
    vocabulary: int,
    *,
    rope_theta: float = 1e6,
    rope_factor: float = 1.0,
    max_positions: int = 32768,
    qkv_bias: bool = False,
) -> LanguageConfig:
    return LanguageConfig(
        architecture="LlamaForCausalLM",
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=hidden // heads,
        intermediate_size=inner,
        vocab_size=vocabulary,
        norm_eps=1e-5,
        rope_theta=rope_theta,
        max_positions=max_positions,
        rope_scaling=RopeScaling("dynamic", rope_factor) if rope_factor > 1 else RopeScaling(),
        qkv_bias=qkv_bias,
    )


SHAPES = {
    "internvl2-1b": Shape(
        VIT_300M, _language(896, 24, 14, 2, 4864, 151655, qkv_bias=True), "Hermes-2"
    ),
    "internvl2-2b": Shape(VIT_300M, _language(2048, 24, 16, 8, 8192, 92553, rope_factor=2.0)),
    "internvl2-4b": Shape(
        VIT_300M,
        _language(3072, 32, 32, 32, 8192, 32020, rope_theta=1e4, max_positions=131072),
        "phi3-chat",
    ),
    "internvl2-8b": Shape(VIT_300M, _language(4096, 32, 32, 8, 14336, 92553, rope_factor=2.0)),
    "internvl2-26b": Shape(VIT_6B, _language(6144, 48, 48, 8, 16384, 92553, rope_factor=3.0)),
    "internvl2-40b": Shape(
        VIT_6B,
        _language(7168, 60, 56, 8, 20480, 64009, rope_theta=5e6, max_positions=4096),
        "Hermes-2",
    ),
    "internvl2-76b": Shape(
        VIT_6B, _language(8192, 80, 64, 8, 28672, 128265, rope_theta=5e5, max_positions=8192)
    ),
    "miniature": Shape(
        VisionConfig(hidden_size=32, layers=2, heads=2, intermediate_size=96),
        _language(64, 2, 4, 2, 96, 616, rope_factor=2.0),
    ),
}


def shape_of(name: str) -> Shape:
    """The sizes of a model by its name.

    Raises:
        UsageError: there is no such name.
    """
    if name not in SHAPES:
        raise UsageError(f"unknown shape {name!r}; --synthetic takes one of {', '.join(SHAPES)}")
    return SHAPES[name]
