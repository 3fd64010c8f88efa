"""The compiled tower: a graph that answers as the tower, and tells nothing of where it was made."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open

from tests.artifacts import QUICK
from tests.compile.features import features_of, random_tiles
from tests.miniature import MINIATURES
from tests.models.vision.fused import tower_of
from vlmc.artifact.vision_files import GOLDEN, GOLDEN_TILES, GRAPH, TOWER
from vlmc.checkpoint.huggingface import tower_tensors
from vlmc.checkpoint.source import open_checkpoint
from vlmc.compile import vision
from vlmc.compile.calibration.golden import golden_tiles
from vlmc.compile.onnx import export
from vlmc.runtime.engines.onnxruntime_engine import BATCH_TILES, OnnxRuntimeEngine

GOLDEN_SHA256 = "22df9c13e503d8c234ad0ab6f0a2f1b1d44910d392b9b57bc44534e3a78435fd"
built = pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MINIATURES],
)


@built
def test_graph_answers_as_the_tower(
    name: str, artifacts: Callable[[str], Path], miniatures: Callable[[str], Path]
) -> None:
    tower = tower_of(miniatures(name))
    engine = OnnxRuntimeEngine(artifacts(name) / "vision" / GRAPH, "fp32")
    tiles = random_tiles(BATCH_TILES + 1)
    expected = features_of(tower, tiles)
    assert np.abs(expected).mean() > 0.1, "features this small would hide an error"
    for count in (1, 3, BATCH_TILES + 1):  # the last is split
        found = engine.infer(torch.from_numpy(tiles[:count]))
        assert found.dtype == torch.float32
        assert found.shape == (count, 256, tower_width(miniatures(name)))
        np.testing.assert_allclose(found.numpy(), expected[:count], atol=1e-4)


def tower_width(checkpoint: Path) -> int:
    width: int = json.loads((checkpoint / "config.json").read_text())["llm_config"]["hidden_size"]
    return width


@built
def test_graph_takes_any_batch_of_tiles(name: str, artifacts: Callable[[str], Path]) -> None:
    model = onnx.load(artifacts(name) / "vision" / GRAPH)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", export.OPSET)]
    (tiles,), (features,) = model.graph.input, model.graph.output
    assert (tiles.name, features.name) == ("tiles", "features")
    assert tiles.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert features.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    first, *rest = tiles.type.tensor_type.shape.dim
    assert first.dim_param and not first.dim_value
    assert [size.dim_value for size in rest] == [448, 448, 3]
    assert features.type.tensor_type.shape.dim[0].dim_param == first.dim_param


def test_artifact_tells_nothing_of_where_it_was_made(
    artifact: Path, miniature: Path, tmp_path: Path
) -> None:
    places = {
        str(Path(__file__).parents[2]),
        str(Path.home()),
        sys.prefix,
        sys.base_prefix,
        str(Path(torch.__file__).parent),
        "site-packages",
        str(tmp_path.parent),
        str(miniature.parent),
        platform.node(),
    }
    # What is shorter might stand in the weights by chance.
    places = {place for place in places if len(place) > 4}
    for path in sorted(artifact.rglob("*")):
        # Reports are no payload, and build.json says where the sources are.
        if path.is_file() and path.suffix != ".npz" and path.name != "build.json":
            data = path.read_bytes()
            for place in places:
                assert place.encode() not in data, (path, place)
    graph = onnx.load(artifact / "vision" / GRAPH)
    for node in graph.graph.node:
        assert not node.metadata_props and not node.doc_string
    assert not graph.metadata_props and not graph.doc_string


@built
def test_golden_features_are_the_towers(
    name: str, artifacts: Callable[[str], Path], miniatures: Callable[[str], Path]
) -> None:
    with np.load(artifacts(name) / "vision" / GOLDEN, allow_pickle=False) as golden:
        tiles, features = golden["tiles"], golden["features"]
        assert sorted(golden.files) == ["features", "tiles"]
    assert np.array_equal(tiles, golden_tiles())
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, features_of(tower_of(miniatures(name)), tiles), atol=1e-5)
    engine = OnnxRuntimeEngine(artifacts(name) / "vision" / GRAPH, "fp32")
    found = engine.infer(torch.from_numpy(tiles)).numpy()
    np.testing.assert_allclose(found, features, atol=1e-4)


def test_golden_tiles_are_the_same_everywhere() -> None:
    tiles = golden_tiles()
    assert tiles.shape == (GOLDEN_TILES, 448, 448, 3)
    assert hashlib.sha256(tiles.tobytes()).hexdigest() == GOLDEN_SHA256
    flat = tiles.reshape(GOLDEN_TILES, -1).astype(np.float64)
    assert flat[0].max() < 32, "one is dark"
    assert (flat[1:].std(axis=1) > 25).all(), "the others have contrast"


@pytest.mark.parametrize("name", QUICK)
def test_tower_is_kept_as_it_was(
    name: str, artifacts: Callable[[str], Path], miniatures: Callable[[str], Path]
) -> None:
    with (
        open_checkpoint(miniatures(name)) as source,
        safe_open(artifacts(name) / "vision" / TOWER, "pt") as kept,
    ):
        expected = dict(tower_tensors(source.weights, source.config))
        assert set(kept.keys()) == set(expected)
        for key, tensor in expected.items():
            assert kept.get_tensor(key).dtype == tensor.dtype == torch.bfloat16
            assert torch.equal(kept.get_tensor(key), tensor)
        metadata = kept.metadata()
        assert list(metadata) == ["config"]
        settings = json.loads(metadata["config"])
    config = json.loads((miniatures(name) / "config.json").read_text())
    assert settings["hidden_size"] == config["llm_config"]["hidden_size"]
    assert settings["select_layer"] == -1
    assert settings["pixel_shuffle"] == "v2"
    vision_config = config["vision_config"]
    assert settings["vision"]["heads"] == vision_config["num_attention_heads"]
    assert settings["vision"]["norm"] == vision_config["norm_type"]
    assert settings["vision"]["qk_norm"] == vision_config["qk_normalization"]
    assert settings["vision"]["qkv_bias"] == vision_config["qkv_bias"]


def test_large_graph_keeps_its_weights_beside_it(
    miniature: Path, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a 6B tower does, which no single protobuf message can hold."""
    monkeypatch.setattr(export, "EXTERNAL_DATA_BYTES", 1000)
    graph = tmp_path / "made" / GRAPH
    graph.parent.mkdir()
    vision.write_graph(tower_of(miniature), graph, "fp32", "float32", None)
    assert sorted(path.name for path in graph.parent.iterdir()) == [
        GRAPH,
        f"{GRAPH}.data",
    ]
    assert str(tmp_path).encode() not in graph.read_bytes()
    moved = graph.parent.rename(tmp_path / "moved") / GRAPH
    whole = OnnxRuntimeEngine(artifact / "vision" / GRAPH, "fp32")
    tiles = torch.from_numpy(random_tiles(2))
    assert torch.equal(OnnxRuntimeEngine(moved, "fp32").infer(tiles), whole.infer(tiles))
    (moved.parent / f"{GRAPH}.data").unlink()
    with pytest.raises(Exception):  # noqa: B017 - onnxruntime raises types of its own
        onnxruntime.InferenceSession(moved)
