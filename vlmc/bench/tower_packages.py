"""Compile random towers in processes of their own, while the caller makes other models."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType

import torch

from vlmc.bench.engines import BATCH
from vlmc.bench.synthetic.shapes import shape_of
from vlmc.bench.synthetic.tower import random_precision, random_tower
from vlmc.errors import BuildError


class TowerPackages:
    """A package for each precision, in a temporary folder; a context that removes it."""

    def __init__(self, shape: str, precisions: Sequence[str], device: torch.device) -> None:
        """Start to compile on `device`."""
        self._folder = tempfile.TemporaryDirectory(prefix="vlmc-bench-")
        processes = max(1, len(precisions))
        self._pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
        self._futures: dict[str, Future[None]] = {}
        self._paths: dict[str, Path] = {}
        for precision in dict.fromkeys(precisions):
            path = Path(self._folder.name) / f"{precision}.pt2"
            self._paths[precision] = path
            self._futures[precision] = self._pool.submit(
                _compile, shape, precision, str(device), path
            )

    def wait(self) -> dict[str, Path]:
        """The packages by precision, when all are compiled: nothing is measured beside a compiler.

        Raises:
            BuildError: one cannot be compiled.
        """
        try:
            for future in self._futures.values():
                future.result()
        except BrokenProcessPool as error:
            raise BuildError(
                "a process that compiled a tower was ended from outside, as happens where memory "
                "runs out. Compile fewer at once: give one --vision, or --engine eager."
            ) from error
        self._pool.shutdown()  # each process holds memory of the device
        return self._paths

    def __enter__(self) -> TowerPackages:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._folder.cleanup()


def _compile(shape: str, precision: str, device: str, path: Path) -> None:
    """In a process of its own. Weights are no part of a package, so the caller has its own."""
    from vlmc.compile.engines.inductor import compile_tower
    from vlmc.models.vision.fuse import fuse

    tower = random_tower(shape_of(shape).tower, torch.device(device))
    fused = fuse(tower, random_precision(tower, precision))
    del tower
    compile_tower(fused, path, opt_tiles=BATCH.opt)
