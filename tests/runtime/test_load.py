"""Loading: what is checked before anything is read, and the rules that an artifact brings."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests import oracle
from tests.artifacts import build_from, copy_with
from tests.miniature import write_checkpoint
from tests.runtime.reference import log_probability
from vlmc import Model, load, open_artifact
from vlmc.artifact.manifest import read_manifest
from vlmc.artifact.write import seal
from vlmc.errors import HardwareError, ImageError, IntegrityError, PromptError, UsageError
from vlmc.image.decode import decode
from vlmc.image.preprocess import make_tiles
from vlmc.image.tiles import TileRule
from vlmc.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from vlmc.runtime.engines.selection import open_engine

Pictures = list[npt.NDArray[np.uint8]]


@pytest.mark.parametrize("name", ["vision/model.onnx", "language/model.safetensors", "recipe.yaml"])
def test_nothing_is_deserialized_before_all_is_checked(
    name: str, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(artifact, tmp_path / "artifact")
    with (folder / name).open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))

    def read(*_: object, **__: object) -> None:
        raise LookupError("was deserialized")

    for reader in ("load_tokenizer", "_Tensors", "read_language_config"):
        monkeypatch.setattr(f"vlmc.runtime.language.{reader}", read)
    monkeypatch.setattr("vlmc.runtime.load.open_engine", read)
    with pytest.raises(IntegrityError, match="changed or damaged"):
        load(folder, device="cpu")
    with pytest.raises(LookupError):  # the readers are those that an intact artifact meets
        load(artifact, device="cpu")


def test_link_to_an_artifact_loads(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(artifact)
    with load(str(tmp_path / "link"), device="cpu") as model:
        assert model.artifact.identity == read_manifest(artifact).identity


def test_an_artifact_checked_elsewhere_is_not_hashed_again(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_artifact(artifact)
    monkeypatch.setattr("vlmc.files.hashing.file_sha256", lambda path: "hashed again")
    with load(opened, device="cpu") as model:
        assert model.artifact is opened
    with pytest.raises(IntegrityError, match="hashed again"):
        load(artifact, device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU that is not there")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_gpu_that_is_not_there_is_refused(device: str, artifact: Path) -> None:
    with pytest.raises(HardwareError, match=f"sees 0 GPUs, and {device} was asked") as caught:
        load(artifact, device=device)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("device", ["", "gpu", "mps", "cuda:x", "meta"])
def test_unknown_device_is_named(device: str, artifact: Path) -> None:
    with pytest.raises(UsageError, match="is not one of auto, cpu, cuda, cuda:N"):
        load(artifact, device=device)


def _engine(**changes: Any) -> dict[str, Any]:
    engine: dict[str, Any] = {
        "engine": "onnxruntime",
        "target": "cpu",
        "precision": "fp32",
        "file": "vision/model.onnx",
        "profiles": [],
        "versions": {},
        "device_memory_bytes": None,
        "min_feature_cosine": 0.99999,
    }
    return engine | changes


def test_first_engine_that_fits_is_taken(artifact: Path, tmp_path: Path) -> None:
    other = _engine(engine="tensorrt", target="sm89", file="vision/golden.npz")
    both = copy_with(artifact, tmp_path / "both", engines=[other, _engine()])
    with load(both, device="cpu", tiles="single") as model:
        assert model.generate([(None, "Hello")])
    folder = copy_with(artifact, tmp_path / "other", engines=[other])
    with load(folder, device="cpu", tiles="single") as model:
        assert model.engine == "onnxruntime on cpu", "the graph is bundled in every artifact"
    folder = copy_with(artifact, tmp_path / "none", engines=[])
    with pytest.raises(HardwareError, match="runs on the CPU: it holds none"):
        load(folder, device="cpu")


def test_engine_may_be_named(artifact: Path) -> None:
    with load(artifact, device="cpu", engine="onnxruntime") as model:
        assert model.chosen == read_manifest(artifact).engines[0]
    with pytest.raises(HardwareError, match="holds no engine 'tensorrt'; it holds: onnxruntime"):
        load(artifact, device="cpu", engine="tensorrt")


def test_engine_file_that_the_payload_lacks(artifact: Path, tmp_path: Path) -> None:
    folder = copy_with(artifact, tmp_path / "x", engines=[_engine(file="vision/other.onnx")])
    with pytest.raises(IntegrityError, match=r"holds no vision/other\.onnx"):
        load(folder, device="cpu")


def _with_graph(artifact: Path, folder: Path, features: int = 32, *, ir_version: int = 9) -> Path:
    """A copy of an artifact whose graph makes `features` zeros of each token of one tile."""
    shutil.copytree(artifact, folder)
    made = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.0])
    size = numpy_helper.from_array(np.array([1, 256, features]), "size")
    graph = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["size"], ["features"], value=made)],
        "tower",
        [helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["n", 448, 448, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, None)],
        [size],
    )
    opsets = [helper.make_opsetid("", 18)]
    whole = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
    (folder / "vision" / "model.onnx").write_bytes(whole.SerializeToString())
    seal(folder, replace(read_manifest(folder), payload={}))
    return folder


def test_graph_that_onnxruntime_refuses(artifact: Path, tmp_path: Path) -> None:
    folder = _with_graph(artifact, tmp_path / "x", ir_version=1000)
    with pytest.raises(HardwareError, match="cannot load"):
        load(folder, device="cpu")


def test_graph_that_fails_when_it_runs(artifact: Path, tmp_path: Path) -> None:
    folder = _with_graph(artifact, tmp_path / "x", 1 << 50)
    with pytest.raises(HardwareError, match="cannot run"):
        load(folder, device="cpu")


def test_graph_of_another_model(artifact: Path, tmp_path: Path) -> None:
    """Whose features would be taken for others, or fail somewhere in the language model."""
    folder = _with_graph(artifact, tmp_path / "x", 32)
    with pytest.raises(IntegrityError, match=r"\[256, 32\] a tile .* \[256, 64\]"):
        load(folder, device="cpu", tiles="single")


def test_largest_profile_is_the_most_at_once(artifact: Path, tmp_path: Path) -> None:
    """And the smallest min does not pad: any number below runs."""
    profiles = [{"min": 2, "opt": 2, "max": 2}, {"min": 3, "opt": 4, "max": 5}]
    folder = copy_with(artifact, tmp_path / "x", engines=[_engine(profiles=profiles)])
    opened = open_artifact(folder)
    engine = open_engine(opened, opened.manifest.engines[0], torch.device("cpu"))
    assert isinstance(engine, OnnxRuntimeEngine)
    assert engine.profiles == opened.manifest.engines[0].profiles
    session, ran = engine._session, []

    class Counted:
        def run(self, names: list[str], inputs: dict[str, Any]) -> Any:
            ran.append(len(inputs["tiles"]))
            return session.run(names, inputs)

    engine._session = Counted()
    tiles = torch.from_numpy(np.zeros((11, 448, 448, 3), np.uint8))
    assert engine.infer(tiles).shape == (11, 256, 64)
    assert ran == [5, 5, 1]


def encoded(folder: Path, image: object, **options: Any) -> npt.NDArray[np.float32]:
    with load(folder, device="cpu", **options) as model:
        (features,) = model.encode([image])  # type: ignore[list-item]
        array: npt.NDArray[np.float32] = features.float().numpy()
    return array


@pytest.mark.parametrize(
    ("changes", "rule", "resampler", "exif"),
    [
        ({}, TileRule("original"), "pillow", "ignore"),
        ({"image__resampler": "opencv"}, TileRule("original"), "opencv", "ignore"),
        ({"image__exif": "apply"}, TileRule("original"), "pillow", "apply"),
    ],
)
def test_image_rules_are_followed(
    changes: dict[str, str],
    rule: TileRule,
    resampler: Any,
    exif: Any,
    artifact: Path,
    images: Path,
    tmp_path: Path,
) -> None:
    folder = copy_with(artifact, tmp_path / "artifact", **changes)
    path = images / "odd" / "rotated.jpg"
    tiles = make_tiles(decode(path, exif=exif), rule, resampler)
    engine = OnnxRuntimeEngine(artifact / "vision" / "model.onnx", "fp32")
    expected = engine.infer(torch.from_numpy(tiles)).numpy()
    found = encoded(folder, path)
    assert found.shape == (256 * len(tiles), expected.shape[2])
    np.testing.assert_array_equal(found, expected.reshape(found.shape))
    if changes:
        other = encoded(artifact, path)
        assert other.shape != found.shape or not np.array_equal(other, found)


@pytest.mark.parametrize(
    ("tiles", "count"),
    [
        (None, 7),
        ("original", 7),
        ("original:max=2", 1),
        ("original:max=6,thumbnail=false", 6),
        ("native", 2),
        ("native:max=1", 1),
        ("single", 1),
        (TileRule("native", max=2, thumbnail=True), 3),
    ],
    ids=str,
)
def test_tile_rule_may_be_overridden(
    tiles: str | TileRule | None, count: int, artifact: Path, images: Path
) -> None:
    with load(artifact, device="cpu", tiles=tiles) as model:
        assert model.artifact.manifest.image.tiles == TileRule("original")
        (features,) = model.encode([images / "480x320.jpg"])
        assert features.shape == (256 * count, 64)
        (answer,) = model.generate([(images / "480x320.jpg", "What?")], max_new_tokens=1)
        assert answer.image_tokens == 256 * count


@pytest.mark.parametrize("tiles", ["", "nativ", "native:max=0", "single:max=2", "a:b"])
def test_tile_rule_that_cannot_be_read(tiles: str, artifact: Path) -> None:
    with pytest.raises(UsageError):
        load(artifact, device="cpu", tiles=tiles)


def test_encode_gives_the_originals_features(artifact: Path, images: Path) -> None:
    for image, maximum in oracle.FEATURE_PICTURES:
        with load(artifact, device="cpu", tiles=f"original:max={maximum}") as model:
            (features,) = model.encode([images / image])
        expected = oracle.features("internlm2-300m", image, maximum)
        by_tile = features.numpy().reshape(len(expected.rows), 256, -1)
        np.testing.assert_allclose(by_tile[:, [0, 17, 255]], expected.rows, atol=1e-4)
        np.testing.assert_allclose(by_tile.mean(axis=2), expected.token_means, atol=1e-5)


def test_encode_is_per_image_and_in_order(model: Model, pictures: Pictures, images: Path) -> None:
    together = model.encode([pictures[0], images / "480x320.jpg", pictures[0]])
    assert [tuple(features.shape) for features in together] == [(256, 64)] * 3
    assert torch.equal(together[0], together[2])
    assert not torch.equal(together[0], together[1])
    assert torch.equal(model.encode(iter([images / "480x320.jpg"]))[0], together[1])
    with pytest.raises(ImageError):
        model.encode([images / "missing.jpg"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_language_dtype_is_what_is_computed_in(
    dtype: str, artifact: Path, miniature: Path, tmp_path: Path, pictures: Pictures
) -> None:
    folder = copy_with(artifact, tmp_path / "artifact", language_dtype=dtype)
    with load(folder, device="cpu", tiles="single") as model:
        assert model.encode(pictures[:1])[0].dtype == getattr(torch, dtype)
        request = (pictures[0], "What?")
        (scores,) = model.score([request], choices=["yes"])
        exact = log_probability(model, miniature, request, "yes")
        # fp32 is nearer than 1e-4.
        assert 5e-4 < abs(scores["yes"] - exact) < 0.2


@pytest.mark.parametrize("architecture", ["Qwen2ForCausalLM", "InternLM2ForCausalLM"])
def test_prompt_longer_than_the_context(
    architecture: str, tmp_path: Path, pictures: Pictures
) -> None:
    """Refused, except where rope scaling reaches on, as InternLM2's does."""
    checkpoint = write_checkpoint(
        tmp_path / "checkpoint",
        architecture,
        tower="300m",
        llm_config={"max_position_embeddings": 400},
    )
    folder = build_from(checkpoint, tmp_path / "artifact")
    one, two = (pictures[0], "What is this?"), (pictures[:2], "What is this?")
    with load(folder, device="cpu", tiles="single") as model:
        first, second, third = model.try_stream([one, two, one])
        assert not isinstance(first, Exception) and not isinstance(third, Exception)
        assert first.token_ids == third.token_ids
        if architecture == "InternLM2ForCausalLM":
            assert not isinstance(second, Exception) and second.image_tokens == 512
            return
        assert isinstance(second, PromptError)
        assert "512 of them for images, and the model's context ends at 400" in str(second)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"device": 0}, "device is 0; it must be a text"),
        ({"tiles": 4}, "tiles is 4; it must be a text"),
        ({"engine": b"x"}, "engine is b'x'; it must be a text"),
        ({"artifact": None}, "an artifact is given as the path of its folder, got None"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_wrong_types_get_a_sentence(arguments: dict[str, Any], said: str, artifact: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load(**{"artifact": artifact, **arguments})
    assert str(caught.value) == said
