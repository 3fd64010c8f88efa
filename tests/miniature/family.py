"""The named miniatures that tests and the oracle share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.miniature.checkpoint import write_checkpoint
from tests.miniature.configuration import Tokenizer, Tower


@dataclass(frozen=True, slots=True)
class Miniature:
    """The arguments of `write_checkpoint` that make one named miniature."""

    architecture: str
    tower: Tower
    tokenizer: Tokenizer | None = None
    sharded: bool = False
    llm_config: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)


MINIATURES: dict[str, Miniature] = {
    "internlm2-300m": Miniature("InternLM2ForCausalLM", "300m"),
    "internlm2-6b": Miniature(
        "InternLM2ForCausalLM",
        "6b",
        sharded=True,
        llm_config={
            "num_attention_heads": 6,
            "hidden_size": 96,
            "rope_scaling": {"factor": 3.0, "type": "dynamic"},
        },
    ),
    "qwen2-300m": Miniature("Qwen2ForCausalLM", "300m"),
    "phi3-300m": Miniature("Phi3ForCausalLM", "300m"),
    "llama-yi-6b": Miniature("LlamaForCausalLM", "6b", "yi", sharded=True),
    "llama-llama3-6b": Miniature("LlamaForCausalLM", "6b", "llama3"),
    # Variants that no released size uses, but the configuration allows.
    "internlm2-300m-layer": Miniature(
        "InternLM2ForCausalLM", "300m", overrides={"select_layer": -2}
    ),
    "internlm2-300m-v1": Miniature("InternLM2ForCausalLM", "300m", overrides={"ps_version": "v1"}),
    "internlm2-300m-ntk": Miniature(
        "InternLM2ForCausalLM", "300m", llm_config={"max_position_embeddings": 512}
    ),
}


def write_miniature(folder: Path, name: str) -> Path:
    """Writes the miniature `name` of `MINIATURES` into `folder` and returns it."""
    miniature = MINIATURES[name]
    return write_checkpoint(
        folder,
        miniature.architecture,
        tower=miniature.tower,
        tokenizer=miniature.tokenizer,
        sharded=miniature.sharded,
        llm_config=miniature.llm_config,
        **miniature.overrides,
    )
