"""Checkpoints of a released size whose weight files hold headers and a hole where the data is."""

from __future__ import annotations

import json
import math
from pathlib import Path

from tests.miniature import write_miniature
from vlmc.checkpoint.config import read_config
from vlmc.checkpoint.layout import original_shapes

Headers = dict[str, tuple[str, tuple[int, ...]]]
"""Name → dtype as safetensors names it, and shape."""

SHARDS = 4
LINEARS_8B = (
    *("attention.wqkv", "attention.wo"),
    *("feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
)
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
    _write_shards(folder, {name: ("BF16", shape) for name, shape in _shapes(folder).items()})
    return folder


def write_headers_8b_awq(folder: Path) -> Path:
    """As above, with the tensors and settings of the published AWQ model, in fp16."""
    write_headers_8b(folder)
    headers: Headers = {}
    for name, shape in _shapes(folder).items():
        linear, _, kind = name.rpartition(".")
        if kind == "weight" and linear.endswith(LINEARS_8B):
            outputs, inputs = shape
            headers[f"{linear}.qweight"] = "I32", (inputs, outputs // 8)
            headers[f"{linear}.qzeros"] = "I32", (inputs // 128, outputs // 8)
            headers[f"{linear}.scales"] = "F16", (inputs // 128, outputs)
        else:
            headers[name] = "F16", shape
    values = json.loads((folder / "config.json").read_bytes())
    values["llm_config"]["quantization_config"] = {
        "bits": 4,
        "group_size": 128,
        "quant_method": "awq",
        "version": "gemm",
        "zero_point": True,
    }
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    _write_shards(folder, headers)
    return folder


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    return original_shapes(read_config(folder))


def _write_shards(folder: Path, shapes: Headers) -> None:
    names = list(shapes)
    weight_map: dict[str, str] = {}
    for shard in range(SHARDS):
        file = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        part = names[shard * len(names) // SHARDS : (shard + 1) * len(names) // SHARDS]
        _write_hollow(folder / file, {name: shapes[name] for name in part})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _write_hollow(path: Path, shapes: Headers) -> None:
    header: dict[str, object] = {}
    end = 0
    for name, (dtype, shape) in shapes.items():
        start, end = end, end + (4 if dtype == "I32" else 2) * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode("ascii")
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
