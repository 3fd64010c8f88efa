"""A loaded artifact that answers questions about images."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from vlmc.artifact.integrity import Artifact
from vlmc.artifact.manifest import EngineRecord
from vlmc.errors import PromptError, UsageError, VlmcError
from vlmc.image.source import ImageSource, is_image_source
from vlmc.image.tiles import TileRule
from vlmc.models.language import reference_loop
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.reference_loop import Prefilled, Sampling
from vlmc.runtime.engines.engine import VisionEngine
from vlmc.runtime.images.encoder import ImageEncoder
from vlmc.runtime.images.prefetch import group_by_images, prefetch
from vlmc.runtime.images.prepare import PreparedRequest, Preparer
from vlmc.runtime.requests.answer import Answer, Timings
from vlmc.runtime.requests.request import PreparedImage, Request
from vlmc.runtime.requests.statistics import Statistics
from vlmc.text.prompt import PromptBuilder

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Scored:
    """Log-probabilities of the given choices, and the best of them as an answer."""

    scores: dict[str, float]
    answer: Answer


class Model:
    """One loaded artifact. It serves one thread at a time, and says so when misused.

    Greedy decoding is the default. Requests that follow each other on the same images are run
    together: their images and the prompt up to the last image are computed once.
    """

    def __init__(
        self,
        artifact: Artifact,
        *,
        tiles: TileRule,
        prompts: PromptBuilder,
        encoder: ImageEncoder,
        decoder: Decoder,
        engine: str,
        chosen: EngineRecord,
    ) -> None:
        self.artifact = artifact
        self.tiles = tiles
        self.engine = engine
        self.chosen = chosen
        self._prompts, self._encoder, self._decoder = prompts, encoder, decoder
        self._language = decoder.config
        self._preparer = Preparer(artifact.manifest.image, tiles, prompts)
        self._tokens = Statistics()
        self._busy = threading.Lock()
        self._closed = False

    def generate(
        self,
        requests: Iterable[Request],
        *,
        max_new_tokens: int = 5,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Answer]:
        """Answers to all requests, in order.

        Raises:
            VlmcError: a request, an image or a prompt is not usable; `try_stream` goes on instead.
        """
        return list(
            self.stream(requests, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        )

    def stream(
        self,
        requests: Iterable[Request],
        *,
        max_new_tokens: int = 5,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[Answer]:
        """Answers in order, while `requests` is read at most a few ahead.

        Raises:
            VlmcError: as `generate`, when its turn comes.
        """
        results = self.try_stream(
            requests, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
        )
        with closing(results):
            for result in results:
                if isinstance(result, VlmcError):
                    raise result
                yield result

    def try_stream(
        self,
        requests: Iterable[Request],
        *,
        max_new_tokens: int = 5,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Generator[Answer | VlmcError, None, None]:
        """As `stream`, but an unusable request comes back as its error, in its place."""
        if max_new_tokens < 1 or not 0 <= temperature < math.inf:
            raise UsageError(
                f"max_new_tokens is {max_new_tokens} and temperature {temperature}; they must be "
                "at least 1 and 0"
            )
        sampling = Sampling(max_new_tokens, temperature, seed)

        def answer(group: list[PreparedRequest]) -> list[Answer | VlmcError]:
            start, timings = self._prefill(group, reserve_tokens=max_new_tokens)
            begin = time.perf_counter()
            tokens = reference_loop.generate(self._decoder, start, sampling, self._prompts.stop_id)
            decode_ms = (time.perf_counter() - begin) * 1e3
            self._count(group, start, new_tokens=sum(len(ids) for ids in tokens))
            return [
                Answer(
                    text=self._prompts.answer_text(ids),
                    token_ids=ids,
                    prompt_token_ids=request.prompt_ids,
                    finish_reason="stop" if ids[-1] == self._prompts.stop_id else "length",
                    image_tokens=request.image_tokens,
                    image_notes=request.image_notes,
                    prompt_tokens_reused=start.shared if row else 0,
                    engine=self.engine,
                    timings=timings(request, decode_ms),
                )
                if ids
                else self._not_finite()
                for row, (request, ids) in enumerate(zip(group, tokens, strict=True))
            ]

        return self._run(requests, answer)

    def score(
        self, requests: Iterable[Request], *, choices: Sequence[str]
    ) -> list[dict[str, float]]:
        """For each request, the log-probability of every choice's tokens as the answer's first.

        Raises:
            VlmcError: as `generate`.
        """
        scored = []
        with closing(self.try_score(requests, choices=choices)) as results:
            for result in results:
                if isinstance(result, VlmcError):
                    raise result
                scored.append(result.scores)
        return scored

    def try_score(
        self, requests: Iterable[Request], *, choices: Sequence[str]
    ) -> Generator[Scored | VlmcError, None, None]:
        """Scores and best choice of each request, in order; an unusable one as its error.

        Raises:
            UsageError: there are no choices, or one is given twice.
        """
        if not choices or len(set(choices)) != len(choices) or isinstance(choices, str):
            raise UsageError(f"choices must be different texts, at least one; got {choices!r}")
        ids = [self._prompts.choice_ids(choice) for choice in choices]

        def scored(group: list[PreparedRequest]) -> list[Scored | VlmcError]:
            start, timings = self._prefill(group, reserve_tokens=0)
            begin = time.perf_counter()
            rows = reference_loop.score(self._decoder, start, ids).tolist()
            decode_ms = (time.perf_counter() - begin) * 1e3
            self._count(group, start, new_tokens=0)
            results: list[Scored | VlmcError] = []
            for index, (request, row) in enumerate(zip(group, rows, strict=True)):
                if not all(map(math.isfinite, row)):
                    results.append(self._not_finite())
                    continue
                best = max(range(len(choices)), key=row.__getitem__)
                answer = Answer(
                    text=choices[best],
                    token_ids=ids[best],
                    prompt_token_ids=request.prompt_ids,
                    finish_reason="choice",
                    image_tokens=request.image_tokens,
                    image_notes=request.image_notes,
                    prompt_tokens_reused=start.shared if index else 0,
                    engine=self.engine,
                    timings=timings(request, decode_ms),
                )
                results.append(Scored(dict(zip(choices, row, strict=True)), answer))
            return results

        return self._run(requests, scored)

    def encode(self, images: Iterable[ImageSource]) -> list[Tensor]:
        """Vision features of each image, (256 · tiles, hidden) on the device.

        Raises:
            ImageError: an image is missing, damaged or too large.
            UsageError: `images` is a single image.
        """
        if is_image_source(images):
            raise UsageError("encode takes a list of images; write encode([image])")
        features = []
        for source in images:
            with self._exclusively():
                features += self._encoder.encode([self._preparer.image(source)])
        return features

    def prepare_image(self, source: ImageSource) -> PreparedImage:
        """The tiles that the vision engine is given for an image.

        Raises:
            ImageError: the image is missing, damaged or too large.
        """
        self._check_open()
        return self._preparer.image(source)

    @property
    def vision(self) -> VisionEngine:
        """The vision engine in use."""
        self._check_open()
        return self._encoder.engine

    @property
    def statistics(self) -> Statistics:
        """What this model has computed so far."""
        self._check_open()
        return replace(
            self._tokens,
            images_decoded=self._preparer.images_decoded,
            tiles_encoded=self._encoder.tiles_encoded,
        )

    def close(self) -> None:
        """Free weights and engines; further calls are refused."""
        with self._exclusively():
            self._closed = True
            del self._decoder, self._encoder

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._closed:
            self.close()

    def _run(
        self,
        requests: Iterable[Request],
        work: Callable[[list[PreparedRequest]], list[Result | VlmcError]],
    ) -> Generator[Result | VlmcError, None, None]:
        """Prepare ahead, group, check, run."""
        self._check_open()
        # Closed by name: a traceback that someone keeps would keep the preparing thread alive.
        with closing(prefetch(requests, self._prepare)) as prepared:
            for group in group_by_images(prepared):
                if isinstance(group, VlmcError):
                    yield group
                    continue
                with self._exclusively():
                    results = work(group)
                yield from results

    def _prepare(self, request: object) -> PreparedRequest:
        prepared = self._preparer.request(request)
        limit = self._language.max_positions
        if len(prepared.prompt_ids) > limit and self._language.rope_scaling.kind != "dynamic":
            raise PromptError(
                f"the prompt has {len(prepared.prompt_ids)} tokens, {prepared.image_tokens} of "
                f"them for images, and the model's context ends at {limit}. Use fewer images, or "
                "a tile rule with fewer tiles."
            )
        return prepared

    def _prefill(
        self, group: list[PreparedRequest], reserve_tokens: int
    ) -> tuple[Prefilled, Callable[[PreparedRequest, float], Timings]]:
        begin = time.perf_counter()
        features = self._encoder.encode(group[0].images)
        encoded = time.perf_counter()
        rows = [
            reference_loop.embed(
                self._decoder, request.prompt_ids, request.image_token_id, features
            )
            for request in group
        ]
        start = reference_loop.prefill(
            self._decoder, rows, group[0].prefix_length, reserve_tokens=reserve_tokens
        )
        prefilled = time.perf_counter()

        def timings(request: PreparedRequest, decode_ms: float) -> Timings:
            return Timings(
                prepare_ms=request.prepare_ms,
                vision_ms=(encoded - begin) * 1e3,
                prefill_ms=(prefilled - encoded) * 1e3,
                decode_ms=decode_ms,
            )

        return start, timings

    def _count(self, group: list[PreparedRequest], start: Prefilled, *, new_tokens: int) -> None:
        reused = start.shared * (len(group) - 1)
        prompts = sum(len(request.prompt_ids) for request in group)
        before = self._tokens
        self._tokens = Statistics(
            prompt_tokens_computed=before.prompt_tokens_computed + prompts - reused,
            prompt_tokens_reused=before.prompt_tokens_reused + reused,
            new_tokens=before.new_tokens + new_tokens,
        )

    def _not_finite(self) -> VlmcError:
        return reference_loop.not_finite_error(self._decoder.embed_tokens.weight.dtype)

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("this model is closed; load the artifact again")

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise UsageError(
                "this model is in use by another thread. One model serves one thread at a time: "
                "send it all requests through one `stream`, or load a second model."
            )
        try:
            self._check_open()
            with torch.inference_mode():
                yield
        finally:
            self._busy.release()
