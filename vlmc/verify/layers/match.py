"""Match the tensors of a typed or Q/DQ graph with those of the fp32 graph of the same tower.

The exporter numbers tensors differently in each graph, but keeps the names of parameters and the
order of operations. So a tensor is identified by its operator and the parameters that it reads, or,
where it reads none, by its operator and its inputs. Casts, quantization and dequantization are
skipped. A difference in one place thus ends at the next parameter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from vlmc.errors import IntegrityError

# A value passes these with a rounding at most.
_SKIPPED = {"Cast", "QuantizeLinear", "DequantizeLinear", "Identity"}
# These move values, so that an error in them is one of their input.
_MOVING = {"Reshape", "Transpose", "Split", "Slice", "Expand", "Concat", "Gather", "Shape"}
_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class MatchedTensor:
    """One tensor in both graphs; parameters are compared as an operator reads them.

    Attributes:
        name: module and operator, such as `mlp1.1/MatMul`, or the parameter's own name.
        layer: the module that computes the tensor, or whose parameter it is.
        is_parameter: whether it is the same for every tile.
        fp32: its name in the fp32 graph.
        typed: its name in the typed graph.
        stored: ONNX's type of a parameter in the typed graph, and of no meaning for others.
        bytes: size of one tile's tensor in fp32, at most.
    """

    name: str
    layer: str
    is_parameter: bool
    fp32: str
    typed: str
    stored: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Match:
    """Tensors in the order of computation, and names of fp32 tensors that have no counterpart."""

    tensors: tuple[MatchedTensor, ...]
    unmatched: tuple[str, ...]


def match_tensors(fp32: onnx.ModelProto, typed: onnx.ModelProto) -> Match:
    """Match the computed tensors and parameters of two graphs.

    Args:
        fp32: the fp32 graph, whose nodes have the names of their modules.
        typed: the artifact's graph.

    Raises:
        IntegrityError: the graphs have too little in common to be of the same tower.
    """
    parameters = {
        value.name
        for value in fp32.graph.initializer
        if value.data_type in _FLOATS and math.prod(value.dims) > 1
    }
    identities: dict[object, int] = {}
    reference, found = (_Graph(model, parameters, identities) for model in (fp32, typed))
    tensors, unmatched = [], []
    for key, name, value, size in reference.tensors():
        counterpart = found.by_key.get(key)
        if counterpart is None:
            unmatched.append(name)
            continue
        is_parameter = name in parameters
        layer = name.rpartition("." if is_parameter else "/")[0] or name
        stored = found.stored[name].data_type if is_parameter else onnx.TensorProto.UNDEFINED
        tensors.append(MatchedTensor(name, layer, is_parameter, value, counterpart, stored, size))
    if 2 * len(tensors) < len(unmatched):
        raise IntegrityError(
            f"only {len(tensors)} of {len(tensors) + len(unmatched)} tensors of the fp32 graph are "
            "in the artifact's graph. They are not of the same tower, or another version of vlmc "
            "built the artifact; build it again."
        )
    return Match(tuple(tensors), tuple(unmatched))


class _Graph:
    """A graph with the keys of its tensors; `by_key` maps a key to a tensor's name."""

    def __init__(
        self, model: onnx.ModelProto, parameters: set[str], identities: dict[object, int]
    ) -> None:
        self._graph, self._parameters = model.graph, parameters
        self.stored = {value.name: value for value in model.graph.initializer}
        # What a value is but for casts and Q/DQ nodes: a parameter's name, or the key of a tensor.
        self._origins: dict[str, object] = {name: name for name in parameters & set(self.stored)}
        self.by_key: dict[object, str] = {}
        self._rows = list(self._read(identities))

    def tensors(self) -> Iterator[tuple[object, str, str, int]]:
        """Key, name, tensor and bytes of everything that is compared, in order."""
        return iter(self._rows)

    def _read(self, identities: dict[object, int]) -> Iterator[tuple[object, str, str, int]]:
        types = _types(self._graph)
        counts: dict[object, int] = {}
        for node in self._graph.node:
            if node.op_type in _SKIPPED:
                self._origins[node.output[0]] = self._origins.get(node.input[0])
                continue
            origins = [self._origins.get(name) for name in node.input]
            read = [
                (origin, name)
                for origin, name in zip(origins, node.input, strict=True)
                if isinstance(origin, str)
            ]
            for parameter, name in read:
                if parameter not in self.by_key:
                    self.by_key[parameter] = name
                    size = _FLOAT_BYTES * math.prod(self.stored[parameter].dims)
                    yield parameter, parameter, name, size
            inputs: tuple[object, ...] = tuple(parameter for parameter, _ in read) or (*origins,)
            for index, output in enumerate(node.output):
                key: object = (node.op_type, inputs, index)
                # Short numbers in place of ever deeper tuples.
                key = identities.setdefault(key, len(identities))
                self._origins[output] = key
                counts[key] = counts.get(key, 0) + 1
                row = (key, counts[key])
                self.by_key[row] = output
                size = types.get(output)
                if size is not None and node.op_type not in _MOVING:
                    yield row, node.name, output, size


def _types(graph: onnx.GraphProto) -> dict[str, int]:
    """Float tensor → bytes of one tile's tensor in fp32."""
    sizes = {}
    for value in (*graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if kind.elem_type in _FLOATS:
            dims = [dim.dim_value for dim in kind.shape.dim][1:]
            # The exporter leaves the keys' number of tokens open, which is that of the queries.
            largest = max(dims, default=1)
            sizes[value.name] = _FLOAT_BYTES * math.prod(dim or largest for dim in dims)
    return sizes
