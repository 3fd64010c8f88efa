"""Parts of a graph, whose outputs and inputs are inner tensors, for one tile.

Weights are kept in one file beside them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from vlmc.image.tiles import TILE_SIZE

TILES, ONE_TILE = "tiles", (1, TILE_SIZE, TILE_SIZE, 3)
GIVEN = "given/"
"""Stands before the names of tensors that are inputs of a marked graph."""

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
        graph = self.model.graph
        self._producers = {
            name: index for index, node in enumerate(graph.node) for name in node.output
        }
        self._types = {
            value.name: value.type.tensor_type.elem_type
            for value in (*graph.value_info, *graph.output)
        }

    def values(self, name: str) -> npt.NDArray[np.float32]:
        """A parameter's values."""
        stored = next(value for value in self.model.graph.initializer if value.name == name)
        return numpy_helper.to_array(stored, str(self._folder)).astype(np.float32)

    def reads(self, tensors: Iterable[str], known: Collection[str]) -> set[str]:
        """The inputs of a graph that starts from `known` tensors: those it needs, and `TILES`."""
        return self._walk(tensors, known)[1]

    def mark(self, outputs: Mapping[str, str], given: Mapping[str, Sequence[int]]) -> Path:
        """Write a graph that computes only `outputs`, each in fp32; returns its path.

        Args:
            outputs: name of the output → tensor of the graph. No tensor may have that name.
            given: tensors that are inputs, in fp32 and called `GIVEN` and their name → shape.
                The tiles are an input too where `reads` names them, or nothing.
        """
        graph = self.model.graph
        needed, read = self._walk(outputs.values(), given)
        nodes = [graph.node[index] for index in sorted(needed)]
        used = {name for node in nodes for name in node.input} | set(outputs.values())
        value = helper.make_tensor_value_info
        inputs = [value(GIVEN + name, TensorProto.FLOAT, given[name]) for name in given]
        if TILES in read or not read:
            inputs.append(value(TILES, TensorProto.UINT8, ONE_TILE))
        marked = helper.make_model(
            helper.make_graph(
                [
                    *(_cast(GIVEN + name, name, self._types[name]) for name in given),
                    *nodes,
                    *(_cast(tensor, name, TensorProto.FLOAT) for name, tensor in outputs.items()),
                ],
                "marked",
                inputs,
                [value(name, TensorProto.FLOAT, None) for name in outputs],
                [stored for stored in graph.initializer if stored.name in used],
            ),
            opset_imports=self.model.opset_import,
            ir_version=self.model.ir_version,
        )
        path = self._folder / "marked.onnx"
        onnx.save_model(marked, path)
        return path

    def _walk(self, tensors: Iterable[str], known: Collection[str]) -> tuple[set[int], set[str]]:
        """Indices of the nodes that tensors depend on, back to `known` ones and tiles; these."""
        nodes: set[int] = set()
        found: set[str] = set()
        ahead = list(tensors)
        while ahead:
            name = ahead.pop()
            index = self._producers.get(name)
            if name in known or name == TILES:
                found.add(name)
            elif index is not None and index not in nodes:
                nodes.add(index)
                ahead.extend(self.model.graph.node[index].input)
        return nodes, found


def _cast(tensor: str, output: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [tensor], [output], name=output, to=kind)
