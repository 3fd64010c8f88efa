"""Weight files that are damaged, incomplete, contradictory or hostile."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.checkpoint import edit
from tests.checkpoint.edit import INDEX, SINGLE
from tests.checkpoint.refusal import open_files, refusal
from vlmc.checkpoint.weights import Weights

SHARD = "model-00002-of-00003.safetensors"


def refused(folder: Path) -> str:
    """The message with which the folder's weights are refused; leaves no file open."""
    return refusal(Weights, folder)


@pytest.mark.parametrize("name", ["internlm2-300m", "internlm2-6b"])
def test_tensors_are_those_of_the_files(name: str, miniatures: Callable[[str], Path]) -> None:
    folder = miniatures(name)
    expected = edit.tensors(folder)
    with Weights(folder) as weights:
        assert set(weights) == set(expected)
        # In one order in every run, by which the files that a build writes go.
        for file in weights.files:
            names = [key for key in weights if weights.file(key) == file]
            assert names == sorted(names)
        for key, tensor in expected.items():
            assert torch.equal(weights.tensor(key), tensor)
            assert weights.shape(key) == tuple(tensor.shape)
            assert weights.dtypes(key) == {"BF16"}
            assert key in edit.load(weights.file(key))
        assert weights.files == sorted(folder.glob("*.safetensors"))
        assert "other" not in weights


def test_files_are_closed(sharded: Path) -> None:
    before = open_files()
    with Weights(sharded) as weights:
        names = [next(name for name in weights if weights.file(name) == f) for f in weights.files]
        values = [weights.tensor(name) for name in names]
        assert len(open_files() - before) == 3
    del values
    assert open_files() == before


@pytest.mark.parametrize("kept", [0, 4, 8, 100, -1])
def test_a_truncated_file_is_refused(kept: int, editable: Path) -> None:
    path = editable / SINGLE
    data = path.read_bytes()
    path.write_bytes(data[:kept])
    message = refused(editable)
    assert SINGLE in message
    assert f"({len(data[:kept]):,} bytes) is not a whole safetensors file" in message


def _header(values: object, data: bytes = b"") -> bytes:
    text = json.dumps(values).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 1 << 62) + b"{}",
        _header([]),
        _header({"w": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 1 << 40]}}, b"12345678"),
        _header({"w": {"dtype": "BF16", "shape": [1 << 60], "data_offsets": [0, 8]}}, b"12345678"),
        _header({"w": {"dtype": "X9", "shape": [4], "data_offsets": [0, 8]}}, b"12345678"),
        _header({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"12345678"),
    ],
    ids=["length", "list", "beyond", "shape", "dtype", "rest"],
)
def test_a_damaged_header_is_refused(content: bytes, editable: Path) -> None:
    (editable / SINGLE).write_bytes(content)
    assert "is not a whole safetensors file" in refused(editable)


def test_a_truncated_shard_is_refused(sharded: Path) -> None:
    path = sharded / SHARD
    path.write_bytes(path.read_bytes()[:-7])
    assert f"{SHARD} (" in refused(sharded)


def test_a_missing_shard_is_named(sharded: Path) -> None:
    (sharded / SHARD).unlink()
    assert f"{SHARD} is missing, though {INDEX} names it" in refused(sharded)


def test_a_folder_in_place_of_a_shard_is_refused(sharded: Path) -> None:
    (sharded / SHARD).unlink()
    (sharded / SHARD).mkdir()
    assert SHARD in refused(sharded)


def test_a_tensor_missing_from_its_shard_is_named(sharded: Path) -> None:
    values = edit.load(sharded / SHARD)
    gone = sorted(values)[3]
    del values[gone]
    save_file(values, sharded / SHARD)
    assert f"{SHARD} lacks 1 tensors that {INDEX} places in it, first {gone}" in refused(sharded)


def test_a_tensor_in_two_shards_is_refused(sharded: Path) -> None:
    first = sharded / SHARD.replace("2", "1", 1)
    values = edit.load(sharded / SHARD)
    name = next(iter(values))
    save_file(edit.load(first) | {name: values[name]}, first)
    message = refused(sharded)
    assert f"tensor {name} is in " in message
    assert first.name in message
    assert SHARD in message


@pytest.mark.parametrize(
    "place", ["../other.safetensors", "/etc/hostname", "sub/x.safetensors", "..", ".", ""]
)
def test_an_index_that_leads_out_of_the_folder_is_refused(place: str, sharded: Path) -> None:
    stolen = sharded.parent / "other.safetensors"
    stolen.write_bytes((sharded / SHARD).read_bytes())
    edit.edit_index(sharded, {"mlp1.0.weight": place})
    message = refused(sharded)
    assert f"places mlp1.0.weight outside its folder, in {place!r}" in message


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"weight_map": 3}', b'{"weight_map": ["a"]}', b"[" * 100_000, b"\xff"],
)
def test_a_damaged_index_is_refused(content: bytes, sharded: Path) -> None:
    (sharded / INDEX).write_bytes(content)
    assert f"{INDEX} is not a safetensors index" in refused(sharded)


def test_a_folder_without_weights_is_refused(editable: Path) -> None:
    (editable / SINGLE).unlink()
    assert f"holds neither {SINGLE} nor {INDEX}" in refused(editable)
    (editable / "training_args.bin").write_bytes(b"a trainer's arguments are no weights")
    assert f"holds neither {SINGLE} nor {INDEX}" in refused(editable)


def test_pickled_weights_are_refused_with_the_way_out(editable: Path) -> None:
    (editable / SINGLE).rename(editable / "pytorch_model.bin")
    message = refused(editable)
    assert "pytorch_model.bin" in message
    assert f"python -m vlmc.checkpoint.convert {editable} OUT_FOLDER" in message


def test_pickled_weights_beside_safetensors_are_not_touched(editable: Path) -> None:
    (editable / "pytorch_model.bin").write_bytes(b"never read")
    with Weights(editable) as weights:
        assert weights.files == [editable / SINGLE]


def test_tensors_are_mapped_and_not_copied(editable: Path) -> None:
    """Two requests for a tensor are two views of one file, opened once."""
    with Weights(editable) as weights:
        name = "language_model.output.weight"
        first, second = weights.tensor(name), weights.tensor(name)
        assert first.data_ptr() == second.data_ptr()
        address = first.data_ptr()
        lines = Path("/proc/self/maps").read_text().splitlines()
        spans = [
            line.split()[0].split("-") for line in lines if line.endswith(str(editable / SINGLE))
        ]
        assert any(int(start, 16) <= address < int(end, 16) for start, end in spans)
