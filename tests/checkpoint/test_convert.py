"""Pickled weights become an equal checkpoint, or nothing at all."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.checkpoint import edit
from tests.checkpoint.edit import INDEX
from vlmc.checkpoint.convert import convert, main
from vlmc.checkpoint.source import open_checkpoint
from vlmc.errors import CheckpointError, UsageError


def pickled(source: Path, target: Path, shards: int = 1) -> Path:
    """A copy of a miniature with its weights in pickled files, as older tools wrote them."""
    edit.copy(source, target)
    values = edit.tensors(target)
    for path in target.glob("*.safetensors*"):
        path.unlink()
    names = list(values)
    for shard in range(shards):
        part = {name: values[name] for name in names[shard::shards]}
        numbered = f"pytorch_model-{shard + 1:05d}-of-{shards:05d}.bin"
        torch.save(part, target / ("pytorch_model.bin" if shards == 1 else numbered))
    (target / "modeling_internvl_chat.py").write_text("raise SystemExit\n")
    return target


def children(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class Hostile:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("shards", [1, 3])
def test_an_equal_checkpoint_is_written(shards: int, miniature: Path, tmp_path: Path) -> None:
    source = pickled(miniature, tmp_path / "source", shards)
    (source / "training_args.bin").write_bytes(pickle.dumps(Hostile(tmp_path / "ran")))
    target = convert(source, tmp_path / "made" / "target")
    expected = edit.tensors(miniature)
    with open_checkpoint(target) as checkpoint:
        assert set(checkpoint.weights) == set(expected)
        assert len(checkpoint.weights.files) == shards
        for name, tensor in expected.items():
            found = checkpoint.weights.tensor(name)
            assert found.dtype == tensor.dtype
            assert torch.equal(found, tensor)
    kept = children(miniature) - {"model.safetensors"}
    assert children(target) == kept | {INDEX} | {path.name for path in target.glob("*.safetensors")}
    assert all((target / name).read_bytes() == (miniature / name).read_bytes() for name in kept)
    assert children(tmp_path / "made") == {"target"}
    assert not (tmp_path / "ran").exists()


def test_views_transposes_and_parameters_are_converted(miniature: Path, tmp_path: Path) -> None:
    source = pickled(miniature, tmp_path / "source")
    values: dict[str, Tensor] = edit.tensors(miniature)
    both = torch.stack([values["mlp1.3.weight"]] * 2)
    values["mlp1.3.weight"] = both[1]
    values["mlp1.1.weight"] = values["mlp1.1.weight"].T.contiguous().T
    values["mlp1.1.bias"] = nn.Parameter(values["mlp1.1.bias"])
    torch.save(values, source / "pytorch_model.bin")
    found = edit.tensors(convert(source, tmp_path / "target"))
    assert all(torch.equal(found[name], tensor) for name, tensor in values.items())


def _object(marker: Path) -> object:
    return {"w": Hostile(marker)}


def _beside_tensors(marker: Path) -> object:
    return {"w": torch.ones(2), "note": Hostile(marker)}


@pytest.mark.parametrize("make", [_object, _beside_tensors])
@pytest.mark.parametrize("bare", [False, True], ids=["torch", "pickle"])
def test_a_pickle_that_would_run_code_is_refused(
    make: Callable[[Path], object], bare: bool, miniature: Path, tmp_path: Path
) -> None:
    source = pickled(miniature, tmp_path / "source")
    marker, content = tmp_path / "ran", make(tmp_path / "ran")
    if bare:
        (source / "pytorch_model.bin").write_bytes(pickle.dumps(content))
    else:
        torch.save(content, source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is not a file of plain tensors"):
        convert(source, tmp_path / "target")
    assert not marker.exists()
    assert children(tmp_path) == {"source"}
    # The file is what it claims to be: plain unpickling would have run it.
    (pickle.loads(pickle.dumps(content)))
    assert marker.is_dir()


@pytest.mark.parametrize(
    "content", [[torch.ones(2)], {"state_dict": {"w": torch.ones(2)}}, {"w": 3}, {3: torch.ones(2)}]
)
def test_other_contents_are_refused(content: object, miniature: Path, tmp_path: Path) -> None:
    source = pickled(miniature, tmp_path / "source")
    torch.save(content, source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="does not hold a plain mapping of names to tensors"):
        convert(source, tmp_path / "target")
    assert children(tmp_path) == {"source"}


@pytest.mark.parametrize("kept", [0, 50, -100])
def test_a_truncated_pickle_is_refused(kept: int, miniature: Path, tmp_path: Path) -> None:
    source = pickled(miniature, tmp_path / "source", 2)
    path = source / "pytorch_model-00002-of-00002.bin"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=f"{path.name} is not a file of plain tensors"):
        convert(source, tmp_path / "target")
    assert children(tmp_path) == {"source"}


def test_a_tensor_in_two_files_is_refused(miniature: Path, tmp_path: Path) -> None:
    source = pickled(miniature, tmp_path / "source")
    torch.save({"mlp1.0.bias": torch.ones(128)}, source / "pytorch_model_2.bin")
    with pytest.raises(CheckpointError, match=r"mlp1\.0\.bias is also in an earlier shard"):
        convert(source, tmp_path / "target")
    assert children(tmp_path) == {"source"}


def test_an_existing_target_is_left_alone(miniature: Path, tmp_path: Path) -> None:
    source = pickled(miniature, tmp_path / "source")
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "mine").write_text("kept")
    with pytest.raises(UsageError, match="target exists already"):
        convert(source, tmp_path / "target")
    assert children(tmp_path) == {"source", "target"}
    assert (tmp_path / "target" / "mine").read_text() == "kept"


def test_a_folder_without_pickles_is_refused(miniature: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing to convert"):
        convert(miniature, tmp_path / "target")
    assert children(tmp_path) == set()


def test_command_line(miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = pickled(miniature, tmp_path / "source"), tmp_path / "target"
    assert main([]) == UsageError.exit_code
    assert "usage: python -m vlmc.checkpoint.convert" in capsys.readouterr().err
    assert main([str(tmp_path / "absent"), str(target)]) == CheckpointError.exit_code
    assert "error: " in capsys.readouterr().err
    command = [sys.executable, "-m", "vlmc.checkpoint.convert", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{target}\n")
    assert open_checkpoint(target).config == open_checkpoint(miniature).config
