"""Compile the vision tower: weights, ONNX graph and golden features."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vlmc.checkpoint.config import ModelConfig
from vlmc.checkpoint.huggingface import tower_tensors
from vlmc.checkpoint.source import Checkpoint
from vlmc.compile.golden import GOLDEN_TILES, golden_tiles
from vlmc.models.loading import load_tower
from vlmc.models.vision import VisionTower, normalize_tiles

if TYPE_CHECKING:
    import onnx_ir

TOWER, GRAPH, GOLDEN = "tower.safetensors", "model.onnx", "golden.npz"
OPSET = 20
MAX_BATCH_TILES = 4096
# A protobuf message ends at 2 GiB; larger graphs keep their weights in a file beside them.
EXTERNAL_DATA_BYTES = 1 << 30


def write_weights(checkpoint: Checkpoint, folder: Path) -> None:
    """Write `tower.safetensors`: tower and projector as the checkpoint stores them."""
    stored = tower_tensors(checkpoint.weights, checkpoint.config)
    # One metadata key only: the order of several would differ from run to run.
    settings = {"config": json.dumps(tower_settings(checkpoint.config), sort_keys=True)}
    tensors = {name: tensor.contiguous() for name, tensor in stored}
    save_file(tensors, folder / TOWER, metadata=settings)


def write_graph(checkpoint: Checkpoint, folder: Path) -> None:
    """Write `model.onnx` (fp32), from uint8 tiles to features."""
    export_onnx(_fp32_tower(checkpoint), folder / GRAPH)


def write_golden(checkpoint: Checkpoint, folder: Path) -> None:
    """Write `golden.npz`: uint8 `tiles` (8, 448, 448, 3), fp32 `features` (8, 256, hidden)."""
    tower, tiles = _fp32_tower(checkpoint), golden_tiles()
    with torch.inference_mode():
        features = [
            tower(normalize_tiles(torch.from_numpy(tiles[index : index + 1]), torch.float32))
            for index in range(GOLDEN_TILES)
        ]
    np.savez_compressed(folder / GOLDEN, tiles=tiles, features=torch.cat(features).numpy())


def _fp32_tower(checkpoint: Checkpoint) -> VisionTower:
    tensors = tower_tensors(checkpoint.weights, checkpoint.config)
    return load_tower(checkpoint.config, tensors, dtype=torch.float32, device="cpu")


def tower_settings(config: ModelConfig) -> dict[str, object]:
    """What the tower's weights alone do not tell, so that engines can be rebuilt from them."""
    return {
        "vision": asdict(config.vision),
        "select_layer": config.select_layer,
        "pixel_shuffle": config.pixel_shuffle,
        "hidden_size": config.language.hidden_size,
    }


def export_onnx(tower: VisionTower, path: Path) -> None:
    """Export uint8 tiles (N, 448, 448, 3) → fp32 features (N, 256, hidden), N dynamic.

    Opset 20 by the dynamo exporter, traced with two tiles since a batch of one is specialized.
    """
    example = torch.zeros(2, 448, 448, 3, dtype=torch.uint8)
    batch = torch.export.Dim("tiles", min=1, max=MAX_BATCH_TILES)
    with _quiet_exporter():
        program = torch.onnx.export(
            _TileTower(tower).eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes={"tiles": {0: batch}},
            input_names=["tiles"],
            output_names=["features"],
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    _strip_traces(program.model)
    size = sum(parameter.nbytes for parameter in tower.parameters())
    program.save(str(path), external_data=size > EXTERNAL_DATA_BYTES)


class _TileTower(nn.Module):
    """The tower behind the normalization, so that an engine takes uint8 tiles."""

    def __init__(self, tower: VisionTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, tiles: Tensor) -> Tensor:
        features: Tensor = self.tower(normalize_tiles(tiles, torch.float32))
        return features


def _strip_traces(model: onnx_ir.Model) -> None:
    """Drop the exporter's notes: they hold source paths, and no engine reads them."""
    model.metadata_props.clear()
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        graph.metadata_props.clear()
        graph.doc_string = None
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
        for value in (*graph.inputs, *graph.initializers.values()):
            value.metadata_props.clear()


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter warns of absent torchvision and of its own internals; neither matters here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
