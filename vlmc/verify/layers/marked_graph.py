"""Copies of a graph whose outputs are inner tensors; weights are kept in one file beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

_WEIGHTS = "weights.data"
_MODEL = "model.onnx"


class GraphCopy:
    """A graph in a folder of its own; only its structure is in memory."""

    def __init__(self, model: onnx.ModelProto, folder: Path) -> None:
        """Write `model`, whose weights it holds, to `folder`."""
        folder.mkdir()
        self._folder = folder
        onnx.save_model(
            model,
            folder / _MODEL,
            save_as_external_data=True,
            location=_WEIGHTS,
            convert_attribute=False,
        )
        self.model = onnx.load(folder / _MODEL, load_external_data=False)

    def values(self, name: str) -> npt.NDArray[np.float32]:
        """A parameter's values."""
        stored = next(value for value in self.model.graph.initializer if value.name == name)
        return numpy_helper.to_array(stored, str(self._folder)).astype(np.float32)

    def mark(self, outputs: Mapping[str, str]) -> Path:
        """Write a graph that computes only `outputs`, each in fp32; returns its path.

        Args:
            outputs: name of the output → tensor of the graph. No tensor may have that name.
        """
        graph = self.model.graph
        nodes = _needed(graph.node, outputs.values())
        used = {name for node in nodes for name in node.input} | set(outputs.values())
        casts = [
            helper.make_node("Cast", [tensor], [name], name=name, to=TensorProto.FLOAT)
            for name, tensor in outputs.items()
        ]
        marked = onnx.ModelProto()
        marked.CopyFrom(self.model)
        del marked.graph.node[:], marked.graph.initializer[:], marked.graph.output[:]
        marked.graph.node.extend([*nodes, *casts])
        marked.graph.initializer.extend(value for value in graph.initializer if value.name in used)
        marked.graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs
        )
        path = self._folder / "marked.onnx"
        onnx.save_model(marked, path)
        return path


def _needed(nodes: Iterable[onnx.NodeProto], tensors: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes that the tensors depend on, in order."""
    needed, kept = set(tensors), []
    for node in reversed(list(nodes)):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]
