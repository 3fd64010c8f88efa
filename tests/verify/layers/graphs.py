"""The miniature's typed graphs with their fp32 graphs, and typed graphs that are broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir
import torch
from onnx import numpy_helper

from tests.models.vision.fused import tower_of
from vlmc.compile.calibration.golden import golden_tiles
from vlmc.compile.calibration.ranges import calibrate
from vlmc.compile.onnx.export import save_graph, trace_tower
from vlmc.compile.onnx.grids import GRIDS
from vlmc.compile.onnx.qdq import quantize_graph
from vlmc.compile.onnx.typed_tower import TypedTower
from vlmc.compile.vision import write_fp32_graph
from vlmc.machine.support import MIN_FEATURE_COSINE, Precision
from vlmc.verify.layers.compare import compare_graphs
from vlmc.verify.layers.result import TensorError

Values = npt.NDArray[np.generic]


class Graphs:
    """Typed graphs of one miniature, and the fp32 graph of the same tower.

    All are of the tower whose channels are migrated for 8 bits, so that few traces serve all.
    """

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        self._folder = folder
        self.fp32 = folder / "fp32.onnx"
        self._tower = tower_of(checkpoint)
        tower = tower_of(checkpoint)
        # Clips of one search serve both 8-bit grids.
        self._ranges = calibrate(tower, "int8", None, min_cosine=0.99, seed=0).ranges
        write_fp32_graph(self._tower, self.fp32, self._ranges)

    def typed(self, precision: Precision) -> Path:
        """The graph in a precision; written once."""
        path = self._folder / f"{precision}-typed.onnx"
        if path.exists():
            return path
        if precision in GRIDS:
            model = onnx_ir.load(self.typed("fp16"))
            exact = TypedTower(self._tower, torch.float32)
            quantize_graph(model, exact, self._ranges, GRIDS[precision])
        else:
            dtype = torch.float16 if precision == "fp16" else torch.bfloat16
            model = trace_tower(TypedTower(self._tower, dtype))
        save_graph(model, path)
        return path

    def compare(self, precision: Precision, typed: Path | None = None) -> list[TensorError]:
        """Errors of all tensors on one golden tile with ONNX Runtime."""
        errors, match = compare_graphs(
            self.fp32,
            typed or self.typed(precision),
            golden_tiles()[1:2],
            precision=precision,
            engines=["onnxruntime"],
            min_cosine=MIN_FEATURE_COSINE[precision],
        )
        assert match.unmatched == ()
        return errors["onnxruntime"]

    def broken(self, precision: Precision, name: str, edit: Callable[[Values], Values]) -> Path:
        """The typed graph with the initializer `name` changed."""
        model = onnx.load(self.typed(precision))
        stored = next(value for value in model.graph.initializer if value.name == name)
        values = numpy_helper.to_array(stored)
        stored.CopyFrom(numpy_helper.from_array(edit(values).astype(values.dtype), name))
        path = self._folder / "broken.onnx"
        onnx.save_model(model, path)
        return path
