"""A model that looks at images as the runtime does, and answers from their pixels."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from tests.image.patterns import pattern
from vlmc.errors import ImageError, VlmcError
from vlmc.image.decode import ImageNote, read_picture
from vlmc.jobs.question_runner import Request
from vlmc.runtime.requests.scores import ScoreMeasure, Scores

PREFETCH_REQUESTS = 5
Outcome = TypeVar("Outcome")
Notes = tuple[frozenset[ImageNote], ...]


@dataclass(frozen=True)
class FakeAnswer:
    text: str
    image_tokens: int = 256
    image_notes: Notes = ()
    token_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True)
class FakeScored:
    scores: Scores
    answer: FakeAnswer


class FakeModel:
    """Reads `PREFETCH_REQUESTS` at once; `asked` has (image, prompt) of all it was given."""

    def __init__(self, wait_s: float = 0.0, fail_after: int | None = None) -> None:
        self.asked: list[Request] = []
        self._wait_s = wait_s
        self._fail_after = fail_after

    def try_stream(
        self, requests: Iterable[Request], *, max_new_tokens: int = 5
    ) -> Iterator[FakeAnswer | VlmcError]:
        def answer(total: int, prompt: str, notes: Notes) -> FakeAnswer:
            text = f"{total % 97} für {prompt}?"[: 4 * max_new_tokens]
            logprobs = tuple(-0.1 * place for place in range(1, 1 + total % 3))
            return FakeAnswer(text, image_notes=notes, token_logprobs=logprobs)

        yield from self._each(requests, answer)

    def try_score(
        self,
        requests: Iterable[Request],
        *,
        choices: Sequence[str],
        measure: ScoreMeasure = "logprob",
    ) -> Iterator[FakeScored | VlmcError]:
        def score(total: int, _prompt: str, notes: Notes) -> FakeScored:
            logprobs = {choice: -float((total + 7 * i) % 13) for i, choice in enumerate(choices)}
            scores = Scores(logprobs, {choice: len(choice) for choice in choices})
            return FakeScored(scores, FakeAnswer(scores.best(measure), image_notes=notes))

        yield from self._each(requests, score)

    def _each(
        self, requests: Iterable[Request], answer: Callable[[int, str, Notes], Outcome]
    ) -> Iterator[Outcome | VlmcError]:
        remaining = iter(requests)
        while batch := list(itertools.islice(remaining, PREFETCH_REQUESTS)):
            for image, prompt in batch:
                if self._fail_after is not None and len(self.asked) >= self._fail_after:
                    raise VlmcError("the device is gone")
                self.asked.append((image, prompt))
                time.sleep(self._wait_s)
                try:
                    images = image if isinstance(image, list) else [image]
                    read = [read_picture(part) for part in images if part is not None]
                except ImageError as error:
                    yield error
                else:
                    total = sum(int(picture.pixels.sum(dtype=np.int64)) for picture in read)
                    yield answer(total, prompt, tuple(picture.notes for picture in read))


def write_images(folder: Path, count: int, *, damaged: Sequence[int] = ()) -> list[Path]:
    """`count` JPEG files, those numbered in `damaged` cut short."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        path = folder / f"{number:03}.jpg"
        Image.fromarray(pattern(20 + number, 16)).save(path)
        if number in damaged:
            path.write_bytes(path.read_bytes()[:300])
        paths.append(path)
    return paths
