"""Export a tower as an ONNX graph without source paths of the exporting machine."""

from __future__ import annotations

import ast
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vlmc.compile.onnx.typed_tower import TypedTower

if TYPE_CHECKING:
    import onnx_ir

OPSET = 20
MAX_BATCH_TILES = 4096
# Protobuf messages are limited to 2 GiB, so larger graphs store their weights in another file.
EXTERNAL_DATA_BYTES = 1 << 30
_SCOPES = "pkg.torch.onnx.name_scopes"
_TOWER_ITSELF = "tower"  # the name of the module that has none


def trace_tower(tower: TypedTower, *, name_nodes: bool = False) -> onnx_ir.Model:
    """Export with dynamic N: uint8 `tiles` (N, 448, 448, 3) → `features` (N, 256, hidden).

    The example has two tiles, because torch.export specializes a batch of one. Initializers keep
    the names of the tower's parameters. With `name_nodes`, a node is called by its module and
    operator, such as `mlp1.1/MatMul`.
    """
    example = torch.zeros(2, 448, 448, 3, dtype=torch.uint8)
    batch = torch.export.Dim("tiles", min=1, max=MAX_BATCH_TILES)
    with _quiet_exporter():
        program = torch.onnx.export(
            tower.eval(),
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
    if name_nodes:
        _name_nodes(program.model)
    _strip_traces(program.model)
    return program.model


def save_graph(model: onnx_ir.Model, path: Path) -> None:
    """Write the graph; weights of a large graph go into `<name>.data` next to it."""
    import onnx_ir

    weights = (value.const_value for value in model.graph.initializers.values())
    size = sum(weight.nbytes for weight in weights if weight is not None)
    beside = f"{path.name}.data" if size > EXTERNAL_DATA_BYTES else None
    onnx_ir.save(model, path, external_data=beside)


def _name_nodes(model: onnx_ir.Model) -> None:
    """Name nodes by the module that the exporter notes; nodes of the same name get a number."""
    names: Counter[str] = Counter()
    for node in model.graph:
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
        # The last scope is the operation in the module.
        module = scopes[-2] if len(scopes) > 1 and scopes[-2] else _TOWER_ITSELF
        name = f"{module}/{node.op_type}"
        names[name] += 1
        node.name = name if names[name] == 1 else f"{name}.{names[name]}"


def _strip_traces(model: onnx_ir.Model) -> None:
    """Remove the exporter's metadata, which contains source paths and is not used by engines."""
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
