"""The tower that an artifact holds is the checkpoint's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.models.vision.fused import TOWERS, reference, some_tiles, tower_of
from vlmc.artifact.vision_files import TOWER
from vlmc.checkpoint.source import open_checkpoint
from vlmc.compile.vision import write_weights
from vlmc.errors import IntegrityError
from vlmc.models.vision.tower_file import read_tower


@pytest.mark.parametrize("name", TOWERS)
def test_it_is_the_checkpoints(
    name: str, miniatures: Callable[[str], Path], tmp_path: Path
) -> None:
    with open_checkpoint(miniatures(name)) as checkpoint:
        write_weights(checkpoint, tmp_path)
    stored = read_tower(tmp_path / TOWER, dtype=torch.float32, device="cpu")
    pixels = some_tiles(2)
    assert torch.equal(reference(stored, pixels), reference(tower_of(miniatures(name)), pixels))


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / TOWER
    with pytest.raises(IntegrityError, match=r"tower\.safetensors is not a valid tower"):
        read_tower(path, dtype=torch.float32, device="cpu")
    path.write_bytes(b"{}")
    with pytest.raises(IntegrityError, match="is not a valid tower"):
        read_tower(path, dtype=torch.float32, device="cpu")
    for metadata in ({"config": "{}"}, {"config": "[1]"}, {"other": "{}"}):
        save_file({"x": torch.zeros(1)}, path, metadata=metadata)
        with pytest.raises(IntegrityError, match="is not a valid tower"):
            read_tower(path, dtype=torch.float32, device="cpu")
