"""A loaded artifact that answers questions about images."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TypeAlias, TypeVar

from torch import Tensor

from vlmc.artifact.integrity import Artifact
from vlmc.artifact.manifest import EngineRecord, PrefixCachePolicy
from vlmc.checkpoint.config import LanguageConfig
from vlmc.errors import UsageError, VlmcError
from vlmc.image.source import ImageSource, is_image_source
from vlmc.image.tiles import TileRule
from vlmc.runtime.dispatcher import Dispatcher
from vlmc.runtime.engines.engine import VisionEngine
from vlmc.runtime.images.encoder import ImageEncoder
from vlmc.runtime.images.prepare import PreparedRequest, Preparer
from vlmc.runtime.requests.answer import Answer, FinishReason, Timings
from vlmc.runtime.requests.outcome import in_order, raising
from vlmc.runtime.requests.request import PreparedImage, Request
from vlmc.runtime.requests.scores import Scored, ScoreMeasure, Scores, check_choices
from vlmc.runtime.requests.statistics import Statistics
from vlmc.runtime.sampling_options import make_sampling
from vlmc.runtime.scheduler.choice_trie import ChoiceTrie
from vlmc.runtime.scheduler.loop import ServingLoop
from vlmc.runtime.scheduler.sequence import ChoiceScores, Generated, Sampling, Spent
from vlmc.runtime.scheduler.sequence import Result as LoopResult
from vlmc.text.prompt import PromptBuilder

Result = TypeVar("Result")
TokenScores: TypeAlias = Mapping[tuple[int, ...], float]


class Model:
    """One loaded artifact. Its streams serve one thread at a time, and say so when misused;
    `submit` may be called from any thread.

    All requests share one loop: their images are encoded in batches, their prompts and answers run
    together, and what their prompts have in common is computed once.
    """

    def __init__(
        self,
        artifact: Artifact,
        *,
        tiles: TileRule,
        prompts: PromptBuilder,
        encoder: ImageEncoder,
        config: LanguageConfig,
        loop: ServingLoop,
        prefix_cache: PrefixCachePolicy,
        engine: str,
        chosen: EngineRecord,
    ) -> None:
        self.artifact = artifact
        self.tiles = tiles
        self.engine = engine
        self.chosen = chosen
        self._prompts, self._encoder = prompts, encoder
        self._preparer = Preparer(artifact.manifest.image, tiles, prompts)
        self._dispatcher = Dispatcher(
            self._preparer,
            loop,
            config,
            prefix_cache=prefix_cache,
            salt=f"{artifact.identity} {tiles}".encode(),
        )
        # A model that nobody holds any more ends its threads too.
        self._end = weakref.finalize(self, self._dispatcher.close)
        self._busy = threading.Lock()
        self._closed = False

    def generate(
        self,
        requests: Iterable[Request],
        *,
        max_new_tokens: int = 5,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[Answer]:
        """Answers to all requests, in order.

        Raises:
            VlmcError: a request, an image or a prompt is not usable; `try_stream` goes on instead.

        >>> requests = [("room.jpg", "A door?"), (["a.jpg", "b.jpg"], "The same room?")]
        >>> [answer.image_tokens for answer in model.generate(requests, max_new_tokens=5)]
        [256, 512]
        """
        return list(
            self.stream(
                requests,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                top_p=top_p,
                seed=seed,
            )
        )

    def stream(
        self,
        requests: Iterable[Request],
        *,
        max_new_tokens: int = 5,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Iterator[Answer]:
        """Answers in order, while `requests` is read at most `MOST_AHEAD` ahead.

        Raises:
            VlmcError: as `generate`, when its turn comes.

        >>> requests = ((path, "A door?") for path in ["a.jpg", "b.jpg"])
        >>> [answer.image_tokens for answer in model.stream(requests)]
        [256, 256]
        """
        return raising(
            self.try_stream(
                requests,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                top_p=top_p,
                seed=seed,
            )
        )

    def try_stream(
        self,
        requests: Iterable[Request],
        *,
        max_new_tokens: int = 5,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Generator[Answer | VlmcError, None, None]:
        """As `stream`, but an unusable request comes back as its error, in its place.

        >>> first, second = model.try_stream([("missing.jpg", "A door?"), ("a.jpg", "A door?")])
        >>> type(first).__name__, type(second).__name__
        ('ImageError', 'Answer')
        """
        sampling = make_sampling(max_new_tokens, temperature, top_p, seed)
        return self._stream(requests, lambda request: self._answer(request, sampling))

    def submit(
        self,
        request: Request,
        *,
        max_new_tokens: int = 5,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Future[Answer]:
        """Answer one request, from any thread; it shares batches with everything else.

        The future raises what `generate` would raise for this request.

        >>> future = model.submit(("room.jpg", "A door?"), max_new_tokens=1)
        >>> len(future.result().token_ids)
        1
        """
        self._check_open()
        sampling = make_sampling(max_new_tokens, temperature, top_p, seed)
        return self._answer(request, sampling)

    def score(self, requests: Iterable[Request], *, choices: Sequence[str]) -> list[Scores]:
        """For each request, the log-probability of every choice as the answer.

        `Scores` has the means per token and the probabilities over the choices too. Where the
        tokens of one choice begin another, the end of the answer is scored for all choices.

        Raises:
            VlmcError: as `generate`.

        >>> (scores,) = model.score([("room.jpg", "A door?")], choices=["yes", "no"])
        >>> scores["yes"] == scores.means["yes"] * scores.tokens["yes"]
        True
        >>> round(sum(scores.probabilities.values()), 6)
        1.0
        """
        results = self.try_score(requests, choices=choices)
        return [scored.scores for scored in raising(results)]

    def try_score(
        self,
        requests: Iterable[Request],
        *,
        choices: Sequence[str],
        measure: ScoreMeasure = "logprob",
    ) -> Generator[Scored | VlmcError, None, None]:
        """Scores of each request and the best choice by `measure`, in order; an unusable request
        as its error.

        Raises:
            UsageError: there are no choices, one is given twice, or there is no such measure.

        >>> (scored,) = model.try_score([("room.jpg", "?")], choices=["a", "b c"], measure="mean")
        >>> scored.answer.text == scored.scores.best("mean")
        True
        """
        check_choices(choices, measure)
        ids = [self._prompts.choice_ids(choice) for choice in choices]
        trie = ChoiceTrie(ids, self._prompts.stop_id)
        tokens = dict(zip(choices, map(len, trie.choices), strict=True))

        def scored(prepared: PreparedRequest, result: LoopResult, spent: Spent) -> Scored:
            if not isinstance(result, ChoiceScores):
                raise TypeError(f"the loop gave {result!r} for a score")
            scores = Scores(dict(zip(choices, result.logprobs, strict=True)), tokens)
            best = scores.best(measure)
            best_ids = ids[list(choices).index(best)]
            return Scored(scores, self._made(prepared, best, best_ids, "choice", spent, ()))

        return self._stream(requests, lambda request: self._dispatcher.run(request, trie, scored))

    def try_score_tokens(
        self, requests: Iterable[tuple[Request, Sequence[tuple[int, ...]]]]
    ) -> Generator[TokenScores | VlmcError, None, None]:
        """For each request and its continuations, the log-probability of the last token of every
        beginning of a continuation, given the tokens before it; an unusable request as its error.

        Args:
            requests: each with token ids that may follow its prompt, none the beginning of another.

        >>> (found,) = model.try_score_tokens([(("room.jpg", "?"), [(9, 10), (9, 11)])])
        >>> sorted(found)
        [(9,), (9, 10), (9, 11)]
        """

        def scored(_: PreparedRequest, result: LoopResult, spent: Spent) -> TokenScores:
            if not isinstance(result, ChoiceScores):
                raise TypeError(f"the loop gave {result!r} for a score")
            return result.conditional

        def start(pair: tuple[Request, Sequence[tuple[int, ...]]]) -> Future[TokenScores]:
            request, continuations = pair
            trie = ChoiceTrie(continuations, self._prompts.stop_id)
            return self._dispatcher.run(request, trie, scored)

        self._check_open()
        return in_order(requests, start, lambda: self._dispatcher.ahead, self._exclusively)

    def encode(self, images: Iterable[ImageSource]) -> list[Tensor]:
        """Vision features of each image, (tokens · tiles, hidden) on the device.

        Raises:
            ImageError: an image cannot be read.
            UsageError: `images` is a single image.

        >>> (features,) = model.encode(["room.jpg"])
        >>> features.shape[0]
        256
        """
        if is_image_source(images):
            raise UsageError("encode takes a list of images; write encode([image])")
        features: list[Tensor] = []
        for source in images:
            with self._exclusively():
                image = self._preparer.image(source)
                features += self._dispatcher.loop.call(
                    partial(self._encoder.encode, [image])
                ).result()
        return features

    def prepare_image(self, source: ImageSource) -> PreparedImage:
        """The tiles that the vision engine is given for an image.

        Raises:
            ImageError: the image is missing, damaged or too large.

        >>> model.prepare_image("room.jpg").tiles.shape
        (1, 448, 448, 3)
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
        """What this model has computed so far.

        >>> model.statistics.images_decoded > 0
        True
        """
        self._check_open()
        return replace(
            self._dispatcher.statistics,
            images_decoded=self._preparer.images_decoded,
            tiles_encoded=self._encoder.tiles_encoded,
        )

    def close(self) -> None:
        """Free weights and engines; further calls are refused, closing again is not.

        >>> from vlmc import load
        >>> model = load("artifacts/quickstart", device="cpu")
        >>> model.close()
        """
        if self._closed:
            return
        with self._exclusively():
            self._closed = True
            self._end()
            self._encoder.engine.close()
            del self._dispatcher, self._encoder

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _stream(
        self, requests: Iterable[Request], start: Callable[[Request], Future[Result]]
    ) -> Generator[Result | VlmcError, None, None]:
        """Start requests ahead, and yield their results in order."""
        self._check_open()
        if not isinstance(requests, Iterable) or isinstance(requests, str | bytes):
            raise UsageError(
                f"requests are an iterable of (image, prompt), got {type(requests).__name__}"
            )
        return in_order(requests, start, lambda: self._dispatcher.ahead, self._exclusively)

    def _answer(self, request: Request, sampling: Sampling) -> Future[Answer]:
        def answered(prepared: PreparedRequest, result: LoopResult, spent: Spent) -> Answer:
            if not isinstance(result, Generated):
                raise TypeError(f"the loop gave {result!r} for an answer")
            ids = result.token_ids
            reason: FinishReason = "stop" if ids[-1] == self._prompts.stop_id else "length"
            text = self._prompts.answer_text(ids)
            return self._made(prepared, text, ids, reason, spent, result.logprobs)

        return self._dispatcher.run(request, sampling, answered)

    def _made(
        self,
        request: PreparedRequest,
        text: str,
        ids: tuple[int, ...],
        reason: FinishReason,
        spent: Spent,
        logprobs: tuple[float, ...],
    ) -> Answer:
        return Answer(
            text=text,
            token_ids=ids,
            token_logprobs=logprobs,
            prompt_token_ids=request.prompt_ids,
            finish_reason=reason,
            image_tokens=request.image_tokens,
            image_notes=request.image_notes,
            prompt_tokens_reused=spent.reused_tokens,
            engine=self.engine,
            timings=Timings(
                prepare_ms=request.prepare_ms,
                vision_ms=spent.vision_ms,
                prefill_ms=spent.prefill_ms,
                decode_ms=spent.decode_ms,
            ),
        )

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("this model is closed; load the artifact again")
        self._dispatcher.check_process()

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise UsageError(
                "this model is in use by another thread. One model serves one thread at a time: "
                "send it all requests through one `stream`, use `submit`, or load a second model."
            )
        try:
            self._check_open()
            yield
        finally:
            self._busy.release()
