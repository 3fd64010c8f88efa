"""The shapes of the released models that the worked recipes name, and what they weigh."""

from __future__ import annotations

from dataclasses import dataclass

from vlmc.checkpoint.config import LanguageConfig, ModelConfig, VisionConfig
from vlmc.recipe.schema import Recipe

_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}
_TOWERS = {
    "300M": VisionConfig(hidden_size=1024, layers=24, heads=16, intermediate_size=4096),
    "6B": VisionConfig(
        hidden_size=3200,
        layers=45,
        heads=25,
        intermediate_size=12800,
        norm="rms_norm",
        qk_norm=True,
        qkv_bias=False,
    ),
}
# Published counts of parameters, by which the shapes were checked.
_TOWER_PARAMETERS = {"300M": 304_012_288, "6B": 5_536_496_000}


@dataclass(frozen=True, slots=True)
class Released:
    """A released size; the language model in the configuration's terms."""

    tower: str
    language: LanguageConfig

    @property
    def config(self) -> ModelConfig:
        """As its `config.json` is read."""
        return ModelConfig(
            vision=_TOWERS[self.tower],
            language=self.language,
            template="internlm2-chat",
            system_message=None,
            dtype="bfloat16",
            select_layer=-1,
            pixel_shuffle="v2",
            min_tiles=1,
            max_tiles=12,
            thumbnail=True,
        )

    def gigabytes(self, recipe: Recipe) -> dict[str, float]:
        """Memory of the loaded model by part, in 10⁹ bytes, by the formula in the comments."""
        language, tower = self.language, _TOWERS[self.tower].hidden_size
        hidden = language.hidden_size
        projector = 4 * tower * hidden + hidden * hidden + 2 * hidden + 8 * tower
        vision = (_TOWER_PARAMETERS[self.tower] + projector) * _BYTES[recipe.vision.precision]
        heads, kv = language.heads * language.head_dim, language.kv_heads * language.head_dim
        matrices = language.layers * (
            2 * hidden * heads + 2 * hidden * kv + 3 * hidden * language.intermediate_size
        )
        rest = 2 * language.vocab_size * hidden + (2 * language.layers + 1) * hidden
        # A 16-bit scale and a 4-bit zero point for each group.
        w4a16 = 4 + 20 / recipe.language.group_size
        bits = {"none": 16, "fp8": 8, "w4a16": w4a16}[recipe.language.scheme]
        tokens = recipe.runtime.max_batch_tokens
        parts = {
            "vision": vision,
            "language": matrices * bits / 8 + rest * 2,
            "cache": 2 * language.layers * kv * 2 * tokens,
            "prefill": tokens * 2 * language.intermediate_size * 2,
        }
        return {name: count / 1e9 for name, count in {**parts, "sum": sum(parts.values())}.items()}


def _language(
    hidden: int,
    layers: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    intermediate: int,
    vocabulary: int,
    *,
    qwen2: bool = False,
) -> LanguageConfig:
    return LanguageConfig(
        architecture="Qwen2ForCausalLM" if qwen2 else "LlamaForCausalLM",
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=intermediate,
        vocab_size=vocabulary,
        norm_eps=1e-5,
        rope_theta=1e6,
        max_positions=32768,
    )


RELEASED = {
    "InternVL2-1B": Released("300M", _language(896, 24, 14, 2, 64, 4864, 151655, qwen2=True)),
    "InternVL2-2B": Released("300M", _language(2048, 24, 16, 8, 128, 8192, 92553)),
    "InternVL2-8B": Released("300M", _language(4096, 32, 32, 8, 128, 14336, 92553)),
    "InternVL2-26B": Released("6B", _language(6144, 48, 48, 8, 128, 16384, 92553)),
    "InternVL2-Llama3-76B": Released("6B", _language(8192, 80, 64, 8, 128, 28672, 128265)),
}
