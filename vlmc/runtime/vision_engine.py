"""Engines of the vision tower: uint8 tiles in, features out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import Tensor

from vlmc.errors import HardwareError

# A 300M tower at fp32 holds about 60 MiB of activations a tile.
BATCH_TILES = 13


class OnnxRuntimeEngine:
    """The artifact's ONNX graph on the CPU."""

    name = "onnxruntime"

    def __init__(self, graph: Path, threads: int | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        options.log_severity_level = 3
        # Spinning threads would take the cores from torch, which runs right after.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises many types of its own
            raise HardwareError(
                f"onnxruntime {onnxruntime.__version__} cannot load {graph}: {error}. Install the "
                "version that the artifact's manifest names, or build the artifact again."
            ) from error

    def infer(self, tiles: npt.NDArray[np.uint8]) -> Tensor:
        """uint8 tiles (N, 448, 448, 3) → fp32 features (N, 256, hidden), in batches."""
        parts = [
            self._session.run(["features"], {"tiles": tiles[start : start + BATCH_TILES]})[0]
            for start in range(0, len(tiles), BATCH_TILES)
        ]
        return torch.from_numpy(np.concatenate(parts))
