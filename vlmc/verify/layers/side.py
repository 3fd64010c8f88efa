"""One graph on one engine, run batch by batch; tensors that later batches read are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from polygraphy.comparator import Comparator

from vlmc.machine.support import EngineName, Precision
from vlmc.verify.layers.marked_graph import GIVEN, TILES, GraphCopy
from vlmc.verify.layers.match import MatchedTensor
from vlmc.verify.layers.runners import make_runner

Tiles = npt.NDArray[np.uint8]
_OUTPUT = "compared/"  # stands before the names of outputs, which are those of parameters too


class Side:
    """A graph on an engine, and its tensors of earlier batches, tile by tile in fp32."""

    def __init__(
        self,
        engine: EngineName,
        graph: GraphCopy,
        precision: Precision,
        name_of: Callable[[MatchedTensor], str],
        batches: Sequence[Sequence[MatchedTensor]],
        tiles: Tiles,
    ) -> None:
        self.engine = engine
        self._graph, self._precision, self._name_of = graph, precision, name_of
        self._tiles = tiles
        self._kept: list[dict[str, npt.NDArray[np.float32]]] = [{} for _ in tiles]
        known: set[str] = set()
        # By batch, the tensors of earlier batches that it reads, and tiles.
        self._reads: list[set[str]] = []
        for batch in batches:
            names = [name_of(tensor) for tensor in batch]
            self._reads.append(graph.reads(names, known))
            known.update(names)

    def run(self, index: int, batch: Sequence[MatchedTensor]) -> Iterator[Any]:
        """Polygraphy's results of a batch, tile by tile; names begin with `compared/`."""
        reads = self._reads[index]
        shapes = {name: self._kept[0][name].shape for name in reads - {TILES}}
        outputs = {_OUTPUT + tensor.name: self._name_of(tensor) for tensor in batch}
        path = self._graph.mark(outputs, shapes)
        runner = make_runner(self.engine, path, self._precision, self.engine)
        later = set().union(*self._reads[index + 1 :])
        results = Comparator.run([runner], data_loader=self._feeds(reads), streaming=True)
        for kept, result in zip(self._kept, results, strict=True):
            (values,) = result[self.engine]
            for output, tensor in outputs.items():
                if tensor in later:
                    kept[tensor] = np.array(values[output])
            for name in [name for name in kept if name not in later]:
                del kept[name]
            yield values

    def _feeds(self, reads: set[str]) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
        for tile, kept in zip(self._tiles, self._kept, strict=True):
            given: dict[str, npt.NDArray[Any]] = {
                GIVEN + name: kept[name] for name in reads - {TILES}
            }
            if TILES in reads or not reads:
                given[TILES] = tile[None]
            yield given


def tensor_name(output: str) -> str:
    """The name of the tensor behind one of the results' outputs."""
    return output.removeprefix(_OUTPUT)
