"""`vlmc verify features`, with and without --layers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from tests.command import call
from vlmc.artifact.identity import IDENTITY
from vlmc.artifact.manifest import read_manifest
from vlmc.artifact.vision_files import GOLDEN_TILES, GRAPH
from vlmc.artifact.write import seal
from vlmc.cli import verify
from vlmc.errors import UsageError
from vlmc.verify.layers.verify import WriteGraph, verify_layers

pytestmark = pytest.mark.xdist_group("verify.layers")
BROKEN = "vision_model.encoder.layers.1.attn.qkv"


@pytest.fixture
def damaged(artifact: Path, tmp_path: Path) -> Path:
    """The miniature's artifact with one bias doubled in its graph, and a true manifest."""
    folder = shutil.copytree(artifact, tmp_path / "artifact")
    path = folder / "vision" / GRAPH
    model = onnx.load(path)
    stored = next(value for value in model.graph.initializer if value.name == f"{BROKEN}.bias")
    stored.CopyFrom(numpy_helper.from_array(4 * numpy_helper.to_array(stored), stored.name))
    onnx.save_model(model, path)
    (folder / IDENTITY).unlink()
    seal(folder, replace(read_manifest(folder), payload={}))
    return folder


def test_features_of_golden_tiles(artifact: Path, damaged: Path) -> None:
    assert verify._GOLDEN_TILES == GOLDEN_TILES
    sound = call("verify", "features", artifact, "--tiles", 1, "--json")
    assert sound.exit_code == 0
    values = json.loads(sound.stdout)
    assert (values["passed"], values["tiles"], values["engine"]) == (True, 1, "onnxruntime")
    assert values["worst_cosine"] > values["min_feature_cosine"] == 0.99999
    assert set(values["by_batch_tiles"]) >= {"1", "13", "14"}
    failed = call("verify", "features", damaged, "--tiles", 1)
    assert failed.exit_code == 3
    assert "FAILED" in failed.stdout
    assert "Add --layers to find the layer" in failed.stderr


def test_layers_of_a_damaged_artifact(damaged: Path, miniature: Path) -> None:
    failed = call(
        "verify", "features", damaged, "--layers", "--tiles", 1, "--source", miniature, "--json"
    )
    assert failed.exit_code == 3
    assert f"on onnxruntime first at layer {BROKEN}" in failed.stderr
    values = json.loads(failed.stdout)
    assert (values["tiles"], values["unmatched"]) == (1, [])
    assert values["reference"] == str(miniature)
    (engine,) = values["engines"]
    assert engine["engine"] == "onnxruntime"
    first = engine["first_diverging"]
    assert (first["name"], first["layer"]) == (f"{BROKEN}.bias", BROKEN)
    assert first["relative_error"] == pytest.approx(3, rel=1e-3)
    assert first["relative_error"] > first["limit"]
    assert len(engine["worst"]) == 10
    assert all(error["cosine"] <= 1 for error in engine["worst"])
    assert set(values["skipped"]) == {"tensorrt", "tensorrt-rtx"}


def test_layers_of_a_sound_artifact(artifact: Path) -> None:
    result = verify_layers(artifact, copy_of(artifact), source=None, engine="onnxruntime", tiles=1)
    assert result.failure is None
    text = "\n".join(result.lines())
    assert "agrees      79 tensors" in text
    assert text.count("relative error") == 11  # the threshold, and the worst ten


def test_another_models_tower_is_refused(artifact: Path, damaged: Path) -> None:
    with pytest.raises(UsageError, match="are not of the same model"):
        verify_layers(artifact, copy_of(damaged), source=None, engine="onnxruntime", tiles=1)


def copy_of(artifact: Path) -> WriteGraph:
    """Takes an artifact's fp32 graph in place of a new one, which takes long to trace."""

    def write(tower: object, path: Path, ranges: object) -> None:
        shutil.copy(artifact / "vision" / GRAPH, path)

    return write


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--source", "x"), 2, "add --layers or leave it out"),
        (("--layers", "--engine", "inductor"), 2, "inner tensors cannot be read"),
        (("--layers", "--engine", "tensorrt"), 5, "tensorrt is not installed"),
    ],
)
def test_what_cannot_be_compared(
    options: tuple[str, ...], code: int, message: str, artifact: Path
) -> None:
    refused = call("verify", "features", artifact, *options)
    assert refused.exit_code == code
    assert message in refused.stderr
