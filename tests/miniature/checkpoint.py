"""Writes a miniature InternVL2 checkpoint in the original layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file

from tests.miniature.configuration import STOP_TOKENS, Tokenizer, Tower, configuration
from tests.miniature.language_tensors import language_tensors
from tests.miniature.vision_tensors import vision_tensors

TOKENIZERS = Path(__file__).parent / "tokenizers"
SHARDS = 3
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_TOKENIZER_OF: dict[str, Tokenizer] = {
    "InternLM2ForCausalLM": "internlm2",
    "Qwen2ForCausalLM": "qwen2",
    "Phi3ForCausalLM": "phi3",
    "LlamaForCausalLM": "yi",
}


def write_checkpoint(
    folder: Path,
    architecture: str,
    *,
    tower: Tower,
    seed: int = 0,
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16",
    sharded: bool = False,
    tokenizer: Tokenizer | None = None,
    vision_config: Mapping[str, Any] | None = None,
    llm_config: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> Path:
    """Writes a checkpoint of one language model `architecture` into `folder` and returns it.

    A Llama takes Yi's tokenizer and template unless `tokenizer` is "llama3". `vision_config` and
    `llm_config` replace keys of those parts of config.json, `overrides` keys at its top; tensors
    follow the changed sizes. The same arguments give the same bytes of weights everywhere.
    """
    kind = tokenizer or _TOKENIZER_OF[architecture]
    config = configuration(kind, tower)
    config["vision_config"] |= vision_config or {}
    config["llm_config"] |= llm_config or {}
    for part in (config, config["vision_config"], config["llm_config"]):
        part["torch_dtype"] = dtype
    config |= overrides
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", config)
    _write_json(
        folder / "generation_config.json",
        {"_from_model_config": True, "eos_token_id": STOP_TOKENS[kind]},
    )
    for source in sorted((TOKENIZERS / kind).iterdir()):
        shutil.copyfile(source, folder / source.name)
    drawn = vision_tensors(config["vision_config"], config["llm_config"]["hidden_size"], seed)
    drawn |= language_tensors(config["llm_config"], seed)
    tensors = {name: torch.from_numpy(value).to(DTYPES[dtype]) for name, value in drawn.items()}
    if sharded:
        _write_shards(folder, tensors)
    else:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _write_shards(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for shard in range(SHARDS):
        file = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        part = names[shard * len(names) // SHARDS : (shard + 1) * len(names) // SHARDS]
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    size = sum(tensor.nbytes for tensor in tensors.values())
    _write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))},
    )


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
