"""Compile the vision tower: weights, ranges, ONNX graph and golden features."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save_file

from vlmc.artifact.vision_files import GOLDEN, GOLDEN_TILES, TOWER
from vlmc.checkpoint.config import ModelConfig
from vlmc.checkpoint.huggingface import tower_tensors
from vlmc.checkpoint.source import Checkpoint
from vlmc.compile.calibration.golden import golden_tiles
from vlmc.compile.onnx.export import save_graph, trace_tower
from vlmc.compile.onnx.grids import GRIDS
from vlmc.compile.onnx.qdq import quantize_graph
from vlmc.compile.onnx.typed_tower import TypedTower
from vlmc.machine.support import Precision
from vlmc.models.vision.calibration_ranges import Ranges, migrate
from vlmc.models.vision.load import load_tower
from vlmc.models.vision.tower import VisionTower, normalize_tiles

GraphDtype = Literal["float32", "float16", "bfloat16"]


def write_weights(checkpoint: Checkpoint, folder: Path) -> None:
    """Write `tower.safetensors`: tower and projector as the checkpoint stores them."""
    stored = tower_tensors(checkpoint.weights, checkpoint.config)
    # A single metadata key, because safetensors does not keep the order of several.
    metadata = {"config": json.dumps(tower_config(checkpoint.config), sort_keys=True)}
    tensors = {name: tensor.contiguous() for name, tensor in stored}
    save_file(tensors, folder / TOWER, metadata=metadata)


def write_golden(checkpoint: Checkpoint, folder: Path) -> None:
    """Write `golden.npz`: uint8 `tiles` (8, 448, 448, 3), fp32 `features` (8, 256, hidden)."""
    tower, tiles = fp32_tower(checkpoint), golden_tiles()
    with torch.inference_mode():
        features = [
            tower(normalize_tiles(torch.from_numpy(tiles[index : index + 1]), torch.float32))
            for index in range(GOLDEN_TILES)
        ]
    np.savez_compressed(folder / GOLDEN, tiles=tiles, features=torch.cat(features).numpy())


def write_graph(
    tower: VisionTower, path: Path, precision: Precision, dtype: GraphDtype, ranges: Ranges | None
) -> None:
    """Write the ONNX graph: uint8 tiles (N, 448, 448, 3) → features (N, 256, hidden).

    Args:
        tower: the fp32 tower; int8 and fp8 migrate its channels in place.
        path: the file to write.
        precision: the recipe's vision precision.
        dtype: dtype of everything that is not in 8 bits, and of the features.
        ranges: calibration ranges, which fp16, int8 and fp8 need.
    """
    if ranges is not None:
        migrate(tower, ranges)
    keep_fp32 = ranges.keep_fp32 if ranges is not None and dtype == "float16" else ()
    model = trace_tower(TypedTower(tower, getattr(torch, dtype), keep_fp32))
    grid = GRIDS.get(precision)
    if grid is not None:
        if ranges is None:
            raise ValueError(f"{precision} needs ranges")
        quantize_graph(model, TypedTower(tower, torch.float32), ranges, grid)
    save_graph(model, path)


def write_fp32_graph(tower: VisionTower, path: Path, ranges: Ranges | None) -> None:
    """Write the fp32 graph that a typed graph is compared with, layer by layer.

    Its nodes have the names of their modules.

    Args:
        tower: the fp32 tower; `ranges` migrate its channels in place, as in the typed graph.
        path: the file to write.
        ranges: the artifact's calibration ranges, if it has any.
    """
    if ranges is not None:
        migrate(tower, ranges)
    save_graph(trace_tower(TypedTower(tower, torch.float32), name_nodes=True), path)


def fp32_tower(checkpoint: Checkpoint, device: torch.device | str = "cpu") -> VisionTower:
    """Load tower and projector of a checkpoint in fp32."""
    tensors = tower_tensors(checkpoint.weights, checkpoint.config)
    return load_tower(checkpoint.config, tensors, dtype=torch.float32, device=device)


def tower_config(config: ModelConfig) -> dict[str, object]:
    """The configuration stored with the tower's weights, from which engines can be rebuilt."""
    return {
        "vision": asdict(config.vision),
        "select_layer": config.select_layer,
        "pixel_shuffle": config.pixel_shuffle,
        "hidden_size": config.language.hidden_size,
    }
