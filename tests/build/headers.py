"""Checkpoints of a released size whose weight files hold headers and a hole where the data is."""

from __future__ import annotations

import json
import math
from pathlib import Path

from tests.miniature import write_miniature
from vlmc.checkpoint.config import ModelConfig, read_config
from vlmc.checkpoint.layout import original_shapes

SHARDS = 4
# InternVL2-8B, whose language model is internlm2_5-7b-chat and whose tower InternViT-300M.
VISION_8B = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
LANGUAGE_8B = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 92553,
}


def write_headers_8b(folder: Path) -> Path:
    """Write a checkpoint of 8B shapes in bf16 that takes no room, with a miniature's tokenizer."""
    write_miniature(folder, "internlm2-300m")
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    values = json.loads((folder / "config.json").read_bytes())
    values["vision_config"] |= VISION_8B
    values["llm_config"] |= LANGUAGE_8B
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    _write_shards(folder, read_config(folder))
    return folder


def _write_shards(folder: Path, config: ModelConfig) -> None:
    shapes = original_shapes(config)
    names = list(shapes)
    weight_map: dict[str, str] = {}
    for shard in range(SHARDS):
        file = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        part = names[shard * len(names) // SHARDS : (shard + 1) * len(names) // SHARDS]
        _write_hollow(folder / file, {name: shapes[name] for name in part})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _write_hollow(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    header: dict[str, object] = {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode("ascii")
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
