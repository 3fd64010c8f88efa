"""The language folder of an artifact, read as its config.json says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.linears.quantized import FP8, w4a16, write_language
from vlmc.checkpoint.quantization import Quantization
from vlmc.errors import CheckpointError
from vlmc.runtime.language import load_language

CPU = torch.device("cpu")
SCALE = "model.layers.1.mlp.up_proj.weight_scale"


@pytest.mark.parametrize(
    "quantization", [w4a16(32, symmetric=False), w4a16(64, symmetric=True), FP8], ids=str
)
@torch.inference_mode()
def test_settings_are_followed(quantization: Quantization, tmp_path: Path) -> None:
    write_language(tmp_path, quantization, width=64, layers=2)
    decoder = load_language(tmp_path, torch.float32, CPU)
    states = decoder(decoder.embed_tokens(torch.arange(9)[None]))
    assert states.isfinite().all()


def test_a_damaged_tensor_is_named_with_its_file(tmp_path: Path) -> None:
    write_language(tmp_path, w4a16(32, symmetric=False), width=64, layers=2)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors[SCALE][3, 1] = torch.inf
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: tensor {SCALE} holds NaN"):
        load_language(tmp_path, torch.float32, CPU)
    del tensors[SCALE]
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=rf"^{tmp_path}: the weights lack 1 of the model's"):
        load_language(tmp_path, torch.float32, CPU)


def test_an_unknown_layout_is_named_with_its_file(tmp_path: Path) -> None:
    write_language(tmp_path, FP8, width=64, layers=1)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    values["quantization_config"]["format"] = "marlin-24"
    path.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"config\.json: quantization_config\.format is"):
        load_language(tmp_path, torch.float32, CPU)
