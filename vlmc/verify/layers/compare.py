"""Run two graphs on the same tiles with Polygraphy, and compare their tensors in batches."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from polygraphy.comparator import CosineSimilarityCompareFunc, SnrCompareFunc
from polygraphy.exception import PolygraphyException
from polygraphy.logger import G_LOGGER

from vlmc.errors import HardwareError, IntegrityError
from vlmc.machine.support import EngineName, Precision
from vlmc.progress.channel import report
from vlmc.progress.events import Progress
from vlmc.verify.layers.batches import split_batches
from vlmc.verify.layers.emulate_bf16 import emulate_bf16
from vlmc.verify.layers.marked_graph import GraphCopy
from vlmc.verify.layers.match import Match, MatchedTensor, match_tensors
from vlmc.verify.layers.result import TensorError, computed_limit
from vlmc.verify.layers.side import Side, Tiles, tensor_name

# Outputs of one batch of tensors, over all graphs. Sessions hold weights and activations beside.
_BATCH_BYTES = 512 << 20
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
        errors = Errors()
        run = _Comparison(copies, precision, limits, len(match.tensors))
        # Parameters are the same on every tile and in every engine.
        shared = run.compare(parameters, ("onnxruntime",), tiles[:1])["onnxruntime"]
        for engine, own in run.compare(computed, engines, tiles).items():
            by_name = shared | own
            errors[engine] = [by_name[tensor.name] for tensor in match.tensors]
    return errors, match


def _copy_graphs(
    fp32: Path, typed: Path, folder: Path, precision: Precision
) -> tuple[tuple[GraphCopy, GraphCopy], Match]:
    reference = GraphCopy(onnx.load(fp32), folder / "fp32")
    model = onnx.load(typed)
    match = match_tensors(reference.model, model)
    if precision == "bf16":
        model = emulate_bf16(model)
    return (reference, GraphCopy(model, folder / "typed")), match


class _Comparison:
    """Runs batches of tensors on both sides; counts them for the progress."""

    def __init__(
        self,
        copies: tuple[GraphCopy, GraphCopy],
        precision: Precision,
        limits: Mapping[str, float],
        total: int,
    ) -> None:
        self._copies, self._precision, self._limits = copies, precision, limits
        self._done, self._total = 0, total

    def compare(
        self, tensors: Sequence[MatchedTensor], engines: Sequence[EngineName], tiles: Tiles
    ) -> dict[EngineName, dict[str, TensorError]]:
        """Engine → tensor → its error on the worst tile."""
        fp32, typed = self._copies
        batches = split_batches(tensors, fp32, _BATCH_BYTES // (1 + len(engines)))
        reference = Side("onnxruntime", fp32, "fp32", lambda t: t.fp32, batches, tiles)
        sides = [
            Side(engine, typed, self._precision, lambda t: t.typed, batches, tiles)
            for engine in engines
        ]
        found: dict[EngineName, dict[str, TensorError]] = {engine: {} for engine in engines}
        for index, batch in enumerate(batches):
            for tile, (expected, *results) in enumerate(
                zip(
                    reference.run(index, batch),
                    *(side.run(index, batch) for side in sides),
                    strict=True,
                )
            ):
                for side, result in zip(sides, results, strict=True):
                    self._keep_worst(found[side.engine], batch, expected, result, tile)
            self._done += len(batch)
            report(Progress("tensors compared", self._done, self._total))
        return found

    def _keep_worst(
        self,
        found: dict[str, TensorError],
        batch: Sequence[MatchedTensor],
        expected: Any,
        result: Any,
        tile: int,
    ) -> None:
        # Comparator.compare_accuracy sorts every tensor for statistics of its log, logged or not.
        cosines = CosineSimilarityCompareFunc()(expected, result)
        noises = SnrCompareFunc()(expected, result)
        by_name = {tensor_name(output): output for output in cosines}
        for tensor in batch:
            output = by_name[tensor.name]
            cosine, error = _errors(cosines[output], noises[output])
            before = found.get(tensor.name)
            if before is None or error > before.relative_error:
                limit = self._limits[tensor.name]
                shown = None if tensor.is_parameter else tile
                found[tensor.name] = TensorError(
                    tensor.name, tensor.layer, cosine, error, limit, shown
                )


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
