"""A model of fixed CPU cost a row, which answers from the tiles of its images."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tests.jobs.fake import FakeModel
from vlmc.artifact.manifest import ImageRules
from vlmc.errors import ModelLostError, VlmcError
from vlmc.image.tiles import TileRule
from vlmc.jobs.question_runner import Outcome, Work
from vlmc.jobs.ray.prepare import TileMaker
from vlmc.jobs.ray.source import Opened
from vlmc.runtime.requests.request import Request, TileOrigin, split_request

IDENTITY = "f00d" * 16
RULE = TileRule("single")


@dataclass(frozen=True)
class StandIn:
    """A source of such models. Each question takes `seconds` of a core, or waits for `wait_s`.

    `folder` may name an artifact that the workers must have. Each process that opens a model adds
    a file with its number to `pids`; if `renamed`, its engine is named by that number. A model that
    `breaks` does so at the prompt `break?`, or while it `loads`.
    """

    seconds: float = 0.0
    wait_s: float = 0.0
    folder: Path | None = None
    refuses: str | None = None
    breaks: Literal["raise", "lose", "exit"] | None = None
    loads: Literal["raise", "exit"] | None = None
    pids: Path | None = None
    renamed: bool = False

    @property
    def maker(self) -> TileMaker:
        return TileMaker(
            ImageRules("opencv", "ignore", RULE, RULE), RULE, TileOrigin(IDENTITY, "single")
        )

    def open(self, device: str) -> Opened:
        if self.refuses is not None:
            raise VlmcError(self.refuses)
        if self.pids is not None:
            (self.pids / str(os.getpid())).touch()
        break_down(self.loads)
        number = f" {os.getpid()}" if self.renamed else ""
        return Opened(StandInModel(self), f"stand-in{number} on {device}")


class StandInModel(FakeModel):
    """Prepares what is not prepared yet, as a model does."""

    def __init__(self, source: StandIn) -> None:
        super().__init__()
        self._source, self._preparer = source, source.maker.preparer()

    def try_each(self, requests: Iterable[tuple[Request, Work]]) -> Generator[Outcome, None, None]:
        for request, work in requests:
            try:
                yield self._answer(request, work)
            except VlmcError as error:
                yield error

    def reference_answer(self, request: Request, work: Work) -> Any:
        return self._answer(request, work)

    def _answer(self, request: Request, work: Work) -> Any:
        sources, prompt = split_request(request)
        if prompt == "break?":
            break_down(self._source.breaks)
        images = [self._preparer.image(source) for source in sources]
        spend(self._source.seconds)
        time.sleep(self._source.wait_s)
        total = sum(int(image.tiles[0, ::16, ::16].sum(dtype=np.int64)) for image in images)
        return self.outcome(total, prompt, tuple(image.notes for image in images), work)


def break_down(how: Literal["raise", "lose", "exit"] | None) -> None:
    """End the process, lose the model, or fail as programs with faults do."""
    if how == "exit":
        os._exit(1)
    if how == "raise":
        raise ZeroDivisionError("a fault of the program")
    if how == "lose":
        raise ModelLostError("the process of rank 1 ended")


def spend(seconds: float) -> None:
    """Use so much of a core's time, whatever else runs there."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        hashlib.sha256(bytes(1 << 12)).digest()
