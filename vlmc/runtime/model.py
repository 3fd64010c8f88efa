"""A loaded artifact that answers questions about images."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TypeVar

from torch import Tensor

from vlmc.artifact.integrity import Artifact
from vlmc.artifact.manifest import EngineRecord, PrefixCachePolicy
from vlmc.checkpoint.config import LanguageConfig
from vlmc.errors import UsageError, VlmcError
from vlmc.image.source import ImageSource, is_image_source
from vlmc.image.tiles import TileRule
from vlmc.runtime.answering import Answering, TokenScores
from vlmc.runtime.dispatcher import Dispatcher
from vlmc.runtime.engines.engine import VisionEngine
from vlmc.runtime.images.encoder import ImageEncoder
from vlmc.runtime.images.prepare import ImagePreparer, Preparer
from vlmc.runtime.reference_path import ReferencePath
from vlmc.runtime.requests.answer import Answer
from vlmc.runtime.requests.outcome import in_order, raising
from vlmc.runtime.requests.request import PreparedImage, Request, TileOrigin
from vlmc.runtime.requests.scores import Choose, Scored, ScoreMeasure, Scores, make_choose
from vlmc.runtime.requests.statistics import Statistics
from vlmc.runtime.sampling_options import make_sampling
from vlmc.runtime.scheduler.loop import ServingLoop
from vlmc.runtime.scheduler.sequence import Sampling, Spent
from vlmc.text.prompt import PromptBuilder

Asked = TypeVar("Asked")
Result = TypeVar("Result")


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
        reference: ReferencePath,
    ) -> None:
        self.artifact = artifact
        self.tiles = tiles
        self.engine = engine
        self.chosen = chosen
        self._prompts, self._encoder, self._reference = prompts, encoder, reference
        salt = f"{artifact.identity} {tiles}".encode()
        origin = TileOrigin(artifact.identity, str(tiles))
        self._images = ImagePreparer(artifact.manifest.image, tiles, origin)
        self._preparer = Preparer(self._images, prompts)
        self._dispatcher = Dispatcher(
            self._preparer,
            loop,
            config,
            prefix_cache=prefix_cache,
            salt=lambda _: salt,
        )
        self._answering = Answering(self._dispatcher, prompts, engine)
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
        return self._stream(requests, lambda request: self._answering.generate(request, sampling))

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
        return self._answering.generate(request, sampling)

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
        choose = make_choose(choices, measure)
        self._check_open()
        self._answering.trie(choose)  # choices without tokens are refused before the first request
        return self._stream(requests, lambda request: self._answering.score(request, choose))

    def try_each(
        self, requests: Iterable[tuple[Request, Sampling | Choose]]
    ) -> Generator[Answer | Scored | VlmcError, None, None]:
        """As `try_stream` and `try_score` in one stream: each request comes with its own work.

        >>> from vlmc.runtime.requests.scores import make_choose
        >>> from vlmc.runtime.sampling_options import make_sampling
        >>> request = ("room.jpg", "A door?")
        >>> works = [make_sampling(max_new_tokens=2), make_choose(["yes", "no"])]
        >>> [type(found).__name__ for found in model.try_each((request, w) for w in works)]
        ['Answer', 'Scored']
        """
        return self._stream(requests, lambda request: self._answering.start(*request))

    def reference_answer(self, request: Request, work: Sampling | Choose) -> Answer | Scored:
        """Answer one request alone, by the engine without graphs and the plain reference loop.

        It takes nothing from caches and is slow. Sampling is greedy here, whatever `work` says.

        Raises:
            VlmcError: the request is not usable, or its scores are NaN or infinite.

        >>> from vlmc.runtime.sampling_options import make_sampling
        >>> request = ("room.jpg", "A door?")
        >>> reference = model.reference_answer(request, make_sampling(max_new_tokens=5))
        >>> reference.text == model.generate([request])[0].text
        True
        """
        self._check_open()
        prepared = self._preparer.request(request)
        asked = work if isinstance(work, Sampling) else self._answering.trie(work)
        run = partial(self._reference.run, prepared, asked)
        result = self._dispatcher.loop.call(run).result()
        if isinstance(work, Sampling):
            return self._answering.answer(prepared, result, Spent())
        return self._answering.scored(prepared, work, result, Spent())

    def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """The text of each token by itself.

        >>> (answer,) = model.generate([("room.jpg", "A door?")])
        >>> len(model.token_texts(answer.token_ids)) == len(answer.token_ids)
        True
        """
        return self._prompts.token_texts(token_ids)

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
        return self._stream(requests, lambda request: self._answering.score_tokens(*request))

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
                image = self._images.image(source)
                features += self._dispatcher.loop.call(
                    partial(self._encoder.encode, [image])
                ).result()
        return features

    def prepare_image(self, source: ImageSource) -> PreparedImage:
        """The tiles that the vision engine is given for an image.

        The result may replace the image in requests to any model of the same artifact and tile
        rule, in this process or another.

        Raises:
            ImageError: the image is missing, damaged or too large.

        >>> model.prepare_image("room.jpg").tiles.shape
        (1, 448, 448, 3)
        """
        self._check_open()
        return self._images.image(source)

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
            images_decoded=self._images.images_decoded,
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
            del self._dispatcher, self._encoder, self._answering, self._reference

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
        self, requests: Iterable[Asked], start: Callable[[Asked], Future[Result]]
    ) -> Generator[Result | VlmcError, None, None]:
        """Start requests ahead, and yield their results in order."""
        self._check_open()
        if not isinstance(requests, Iterable) or isinstance(requests, str | bytes):
            raise UsageError(
                f"requests are an iterable of (image, prompt), got {type(requests).__name__}"
            )
        return in_order(requests, start, lambda: self._dispatcher.ahead, self._exclusively)

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
