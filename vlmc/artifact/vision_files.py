"""What the files of an artifact's vision folder are called, but for engines for GPUs."""

from __future__ import annotations

FOLDER = "vision"
TOWER, RANGES = "tower.safetensors", "ranges.json"
GRAPH, GOLDEN = "model.onnx", "golden.npz"
GOLDEN_TILES = 8


def payload_name(file: str) -> str:
    """The name of one of them in a manifest's payload, `vision/model.onnx`."""
    return f"{FOLDER}/{file}"
