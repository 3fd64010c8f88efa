"""Run two graphs on the same tiles with Polygraphy, and compare their tensors in batches."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto
from polygraphy.comparator import Comparator, CosineSimilarityCompareFunc, SnrCompareFunc
from polygraphy.exception import PolygraphyException
from polygraphy.logger import G_LOGGER

from vlmc.errors import HardwareError, IntegrityError
from vlmc.machine.support import EngineName, Precision
from vlmc.progress.channel import report
from vlmc.progress.events import Progress
from vlmc.verify.layers.emulate_bf16 import emulate_bf16
from vlmc.verify.layers.marked_graph import GraphCopy
from vlmc.verify.layers.match import Match, MatchedTensor, match_tensors
from vlmc.verify.layers.result import TensorError, computed_limit
from vlmc.verify.layers.runners import make_runner

# Outputs of one batch of tensors, over all graphs. Sessions hold weights and activations beside.
_BATCH_BYTES = 512 << 20
_REFERENCE = "fp32"
_OUTPUT = "compared/"  # before the names of outputs, which a parameter would share otherwise
# Half a step relative to a value, by the digits of its significand; fp32 may be summed in fp64.
_ROUNDING: dict[int, float] = {
    TensorProto.FLOAT: 1e-6,
    TensorProto.FLOAT16: 2.0**-11,
    TensorProto.BFLOAT16: 2.0**-8,
    TensorProto.FLOAT8E4M3FN: 2.0**-4,
}
_INT8_LIMIT = 127
# Scales are rounded too.
_SLACK = 1.05

Errors = dict[str, list[TensorError]]
Tiles = npt.NDArray[np.uint8]


def compare_graphs(
    fp32: Path,
    typed: Path,
    tiles: Tiles,
    *,
    precision: Precision,
    engines: Sequence[EngineName],
    min_cosine: float,
) -> tuple[Errors, Match]:
    """Compare all tensors of two graphs of the same tower.

    Args:
        fp32: the fp32 graph, whose nodes have the names of their modules.
        typed: the artifact's graph.
        tiles: uint8 (N, 448, 448, 3), which run one by one.
        precision: the artifact's vision precision.
        engines: engines to run the typed graph on; the fp32 graph runs on ONNX Runtime.
        min_cosine: threshold of computed tensors.

    Returns:
        Per engine the errors in the order of computation, and how the graphs match.

    Raises:
        IntegrityError: the graphs are not of the same tower.
        HardwareError: an engine fails.
    """
    with tempfile.TemporaryDirectory(prefix="vlmc-layers-") as name, _polygraphy():
        folder = Path(name)
        copies, match = _copy_graphs(fp32, typed, folder, precision)
        parameters = [tensor for tensor in match.tensors if tensor.is_parameter]
        computed = [tensor for tensor in match.tensors if not tensor.is_parameter]
        limits = {tensor.name: _parameter_limit(tensor, copies[0]) for tensor in parameters}
        limits |= dict.fromkeys((tensor.name for tensor in computed), computed_limit(min_cosine))
        found: dict[str, dict[str, TensorError]] = {engine: {} for engine in engines}
        done = 0
        # Parameters are the same in every engine, and on every tile.
        for part, on, over in (
            (parameters, ("onnxruntime",), tiles[:1]),
            (computed, engines, tiles),
        ):
            for batch in _batches(part, 1 + len(on)):
                results = _run(copies, batch, on, over, precision)
                for engine in engines:
                    by_tile = results[on[0] if part is parameters else engine]
                    for tensor in batch:
                        found[engine][tensor.name] = _worst(tensor, by_tile, limits[tensor.name])
                done += len(batch)
                report(Progress("tensors compared", done, len(match.tensors)))
    ordered = {
        engine: [by_name[tensor.name] for tensor in match.tensors]
        for engine, by_name in found.items()
    }
    return ordered, match


def _copy_graphs(
    fp32: Path, typed: Path, folder: Path, precision: Precision
) -> tuple[tuple[GraphCopy, GraphCopy], Match]:
    reference = GraphCopy(onnx.load(fp32), folder / "fp32")
    model = onnx.load(typed)
    match = match_tensors(reference.model, model)
    if precision == "bf16":
        model = emulate_bf16(model)
    return (reference, GraphCopy(model, folder / "typed")), match


def _batches(tensors: Sequence[MatchedTensor], copies: int) -> Iterator[list[MatchedTensor]]:
    """Consecutive tensors whose outputs fit in memory."""
    batch: list[MatchedTensor] = []
    size = 0
    for tensor in tensors:
        if batch and size + copies * tensor.bytes > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(tensor)
        size += copies * tensor.bytes
    if batch:
        yield batch


def _run(
    copies: tuple[GraphCopy, GraphCopy],
    batch: Sequence[MatchedTensor],
    engines: Sequence[EngineName],
    tiles: Tiles,
    precision: Precision,
) -> dict[str, list[dict[str, tuple[float, float]]]]:
    """Per engine and tile: tensor → cosine and relative error."""
    fp32 = copies[0].mark({_OUTPUT + tensor.name: tensor.fp32 for tensor in batch})
    typed = copies[1].mark({_OUTPUT + tensor.name: tensor.typed for tensor in batch})
    runners = [make_runner("onnxruntime", fp32, "fp32", _REFERENCE)]
    runners += [make_runner(engine, typed, precision, engine) for engine in engines]
    stream = Comparator.run(
        runners, data_loader=({"tiles": tile[None]} for tile in tiles), streaming=True
    )
    found: dict[str, list[dict[str, tuple[float, float]]]] = {engine: [] for engine in engines}
    cosine, noise = CosineSimilarityCompareFunc(), SnrCompareFunc()
    # Comparator.compare_accuracy sorts every tensor for statistics of its log, logged or not.
    for outputs in stream:
        (expected,) = outputs[_REFERENCE]
        for engine in engines:
            (computed,) = outputs[engine]
            cosines, noises = cosine(expected, computed), noise(expected, computed)
            found[engine].append(
                {
                    name.removeprefix(_OUTPUT): _errors(cosines[name], noises[name])
                    for name in cosines
                }
            )
    return found


def _errors(cosine: Any, noise: Any) -> tuple[float, float]:
    """Cosine, and the relative error that a signal-to-noise ratio in dB stands for."""
    if isinstance(cosine, bool):
        raise IntegrityError(
            "a tensor has another shape in the artifact's graph than in the fp32 graph: they are "
            "not of the same tower. Build the artifact again."
        )
    value, ratio = float(cosine.cosine_similarity), float(noise.snr)
    if math.isnan(value) or math.isnan(ratio):
        return -1.0, math.inf
    return value, 10 ** (-ratio / 20)


def _worst(
    tensor: MatchedTensor, by_tile: Sequence[Mapping[str, tuple[float, float]]], limit: float
) -> TensorError:
    """The error on the worst tile."""
    errors = [found[tensor.name] for found in by_tile]
    tile = max(range(len(errors)), key=lambda index: errors[index][1])
    shown = None if tensor.is_parameter else tile
    return TensorError(tensor.name, tensor.layer, *errors[tile], limit, shown)


def _parameter_limit(tensor: MatchedTensor, fp32: GraphCopy) -> float:
    """The largest relative error that rounding to the stored type can make."""
    limit = _ROUNDING.get(tensor.stored)
    if limit is not None and tensor.stored != TensorProto.FLOAT8E4M3FN:
        return _SLACK * limit
    if limit is None:  # int8: half a step of each output channel's scale
        values = fp32.values(tensor.fp32).astype(np.float64)
        steps = np.abs(values).max(axis=0) / _INT8_LIMIT
        norm = np.linalg.norm(values)
        limit = float(np.linalg.norm(steps / 2) * math.sqrt(len(values)) / norm) if norm else 0.0
    # An 8-bit value is rounded again where it is dequantized, to 16 bits at worst.
    return _SLACK * limit + _ROUNDING[TensorProto.FLOAT16]


@contextmanager
def _polygraphy() -> Iterator[None]:
    """Polygraphy without its log on stdout, and with its errors as vlmc's."""
    try:
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
            yield
    except PolygraphyException as error:
        raise HardwareError(
            f"the layers cannot be compared: {error}. Leave out the engine that fails, with "
            "--engine onnxruntime."
        ) from error
