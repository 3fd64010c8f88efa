"""A small artifact made by hand: files that no loader could use, under a true manifest."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmc.artifact.manifest import EngineRecord, ImageRules, Manifest, Profile, PromptRules
from vlmc.artifact.write import seal
from vlmc.image.tiles import TileRule

FILES = ("recipe.yaml", "language/config.json", "vision/model.onnx", "vision/golden.npz")


def manifest(name: str = "made") -> Manifest:
    """A manifest before its payload is known."""
    return Manifest(
        name=name,
        vlmc="0.1.0",
        tools={"torch": "2.13.0"},
        source={"config.json": "0" * 64},
        hidden_size=64,
        image=ImageRules(
            "opencv", "ignore", TileRule("native", tolerance=0.1), TileRule("original", max=6)
        ),
        prompt=PromptRules("Hermes-2", "你好"),
        language_scheme="none",
        language_dtype="bfloat16",
        calibration={"vision": 64 * "c"},
        engines=(
            EngineRecord(
                engine="onnxruntime",
                target="cpu",
                precision="fp32",
                file="vision/model.onnx",
                profiles=(Profile(1, 4, 13),),
                versions={"onnx": "1.19"},
                device_memory_bytes=None,
                min_feature_cosine=0.99999,
            ),
        ),
        payload={},
    )


def write_payload(folder: Path) -> Path:
    """Files of different contents, and a report beside the payload."""
    for name in (*FILES, "reports/build.json"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    return folder


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The folder of a sealed artifact."""
    folder = write_payload(tmp_path / "made")
    seal(folder, manifest())
    return folder
