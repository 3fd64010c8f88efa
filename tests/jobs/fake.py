"""A model that looks at images as the runtime does, and answers from their pixels."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.image.patterns import pattern
from vlmc.errors import ImageError, VlmcError
from vlmc.image.decode import ImageNote, read_picture
from vlmc.jobs.question_runner import Outcome, Work
from vlmc.runtime.requests.request import Request
from vlmc.runtime.requests.scores import Choose, Scored, Scores

PREFETCH_REQUESTS = 5
Notes = tuple[frozenset[ImageNote], ...]


@dataclass(frozen=True)
class FakeAnswer:
    text: str
    image_tokens: int = 256
    image_notes: Notes = ()
    token_logprobs: tuple[float, ...] = ()
    finish_reason: str = "stop"
    prompt_token_ids: tuple[int, ...] = (1, 2, 3)
    prompt_tokens_reused: int = 2
    top_logprobs: tuple[Any, ...] = ()

    @property
    def token_ids(self) -> tuple[int, ...]:
        return tuple(range(len(self.token_logprobs)))


class FakeModel:
    """Reads `PREFETCH_REQUESTS` at once; `asked` has (image, prompt) of all it was given."""

    def __init__(self, wait_s: float = 0.0, fail_after: int | None = None) -> None:
        self.asked: list[Request] = []
        self._wait_s = wait_s
        self._fail_after = fail_after

    def try_each(self, requests: Iterable[tuple[Request, Work]]) -> Generator[Outcome, None, None]:
        remaining = iter(requests)
        while batch := list(itertools.islice(remaining, PREFETCH_REQUESTS)):
            for request, work in batch:
                if self._fail_after is not None and len(self.asked) >= self._fail_after:
                    raise VlmcError("the device is gone")
                self.asked.append(request)
                time.sleep(self._wait_s)
                try:
                    images = request[0] if isinstance(request[0], list) else [request[0]]
                    read = [read_picture(part) for part in images if part is not None]
                except ImageError as error:
                    yield error
                else:
                    total = sum(int(picture.pixels.sum(dtype=np.int64)) for picture in read)
                    notes = tuple(picture.notes for picture in read)
                    yield self.outcome(total, request[1], notes, work)

    def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """A text for each token."""
        return [f"t{token}" for token in token_ids]

    def outcome(self, total: int, prompt: str, notes: Notes, work: Work) -> Any:
        """The answer for a sum of pixels."""
        if isinstance(work, Choose):
            logprobs = {c: -float((total + 7 * i) % 13) for i, c in enumerate(work.choices)}
            scores = Scores(logprobs, {choice: len(choice) for choice in work.choices})
            return Scored(scores, FakeAnswer(scores.best(work.measure), image_notes=notes))
        text = f"{total % 97} für {prompt}?"[: 4 * work.max_new_tokens]
        logprobs = tuple(-0.1 * place for place in range(1, 1 + total % 3))
        return FakeAnswer(text, image_notes=notes, token_logprobs=logprobs)


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
