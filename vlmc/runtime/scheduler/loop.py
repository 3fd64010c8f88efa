"""The one loop that serves all requests of a loaded model, on a thread of its own."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any, Protocol

import torch
from torch import Tensor

from vlmc.errors import HardwareError, ModelLostError, UsageError, VlmcError
from vlmc.models.language.paged_cache import PAGE_TOKENS
from vlmc.models.language.reference_loop import not_finite_error
from vlmc.progress.channel import report
from vlmc.progress.events import Note
from vlmc.runtime.requests.request import PreparedImage
from vlmc.runtime.scheduler.choice_trie import ChoiceTrie
from vlmc.runtime.scheduler.scheduler import Scheduler, Share
from vlmc.runtime.scheduler.sequence import (
    ChoiceScores,
    Generated,
    LiveSequence,
    Result,
    Sampling,
)
from vlmc.runtime.scheduler.step_runner import StepResult, StepRunner

THREAD_NAME = "vlmc-loop"
_LEAST_TOKENS = 256


class Encoder(Protocol):
    """What the loop needs of the vision side."""

    @property
    def batch_tiles(self) -> int:
        """Tiles that fill a batch."""

    def encode(self, images: Sequence[PreparedImage]) -> list[Tensor]:
        """Features of each image, (256 · tiles, hidden) on the language model's device."""


class ServingLoop:
    """Takes sequences from any thread, and answers each through its `on_done`, called on the loop's
    thread. What happens on one step's results overlaps the next step where a GPU runs it."""

    def __init__(
        self,
        scheduler: Scheduler,
        runner: StepRunner,
        encoder: Encoder,
        *,
        stop_id: int,
    ) -> None:
        self._scheduler, self._runner, self._encoder = scheduler, runner, encoder
        self.stop_id = stop_id
        self._inbox: deque[LiveSequence | Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._pending: deque[StepResult] = deque()
        # On a GPU the results of a step are read while the next one runs.
        self._lag = 1 if runner.device.type == "cuda" else 0
        # Notes reach whoever receives those of the loading.
        context = copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._serve,), name=THREAD_NAME, daemon=True
        )
        self._thread.start()

    @property
    def max_batch_tokens(self) -> int:
        """Tokens that a step takes at most."""
        return self._scheduler.max_batch_tokens

    def submit(self, sequence: LiveSequence) -> None:
        """Queue a sequence.

        Raises:
            UsageError: the loop is closed.
        """
        self._put(sequence)

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Run a function between two steps, on the loop's thread."""
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        self._put(run)
        return future

    def close(self) -> None:
        """Refuse what comes, fail what waits, and end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        # The last reference may go on the loop's own thread.
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._runner.close()

    def _put(self, item: LiveSequence | Callable[[], None]) -> None:
        with self._wake:
            if self._closing:
                raise UsageError("this model is closed; load the artifact again")
            self._inbox.append(item)
            self._wake.notify()

    def _serve(self) -> None:
        with torch.inference_mode():
            while self._take():
                try:
                    self._step()
                except Exception as error:  # every waiting caller has to hear of it
                    self._fail(self._scheduler.drop_all(), self._runner.lead.explain(error))
                    self._pending.clear()
        closed = UsageError("this model was closed before the request was answered")
        self._fail(self._scheduler.drop_all(), closed)

    def _take(self) -> bool:
        """Wait for work, and move what was submitted to the scheduler; False when closing."""
        with self._wake:
            while not (self._inbox or self._closing or self._pending or self._is_busy()):
                self._wake.wait()
            if self._closing:
                return False
            items = list(self._inbox)
            self._inbox.clear()
        for item in items:
            if not isinstance(item, LiveSequence):
                item()
                continue
            try:
                self._scheduler.add(item)
            except VlmcError as error:
                self._answer(item, error)
        return True

    def _is_busy(self) -> bool:
        return not self._scheduler.is_idle

    def _step(self) -> None:
        """Encode ahead, launch a step, and read the results of the one before."""
        self._drop_cancelled()
        self._encode_ahead()
        shares = self._scheduler.plan()
        if shares:
            now = time.perf_counter()
            for share in shares:
                share.sequence.started = share.sequence.started or now
            try:
                result = self._runner.run(shares)
                self._fork(shares)
            except (RuntimeError, MemoryError) as error:
                # Followers cannot tell how far this step came.
                if not _is_out_of_memory(error) or not self._runner.lead.is_alone:
                    raise
                self._split(shares, error)
                return
            self._pending.append(result)
        elif not self._pending and self._scheduler.waiting:
            stuck = self._scheduler.waiting[0]
            self._answer(stuck, VlmcError("the request could not be scheduled; report this"))
        while len(self._pending) > (self._lag if shares else 0):
            self._read(self._pending.popleft())

    def _drop_cancelled(self) -> None:
        waiting = self._scheduler.waiting
        for sequence in [sequence for sequence in waiting if sequence.cancelled()]:
            self._answer(sequence, VlmcError("the request was cancelled"))

    def _encode_ahead(self) -> None:
        """Encode the images of waiting sequences, in whole batches, until a step could be filled.

        What is encoded beyond that waits for the next step.
        """
        scheduler, most = self._scheduler, self._encoder.batch_tiles
        ready, tiles = 0, 0
        full = False
        chosen: dict[bytes, PreparedImage] = {}
        takers: list[tuple[LiveSequence, int]] = []
        for sequence in list(scheduler.waiting):
            reused = PAGE_TOKENS * len(scheduler.reusable(sequence))
            needed = sequence.prompt_length - reused
            full = full or not scheduler.has_room(ready, needed)
            if full and not chosen:
                break
            missing = sequence.unencoded(reused)
            sources = {sequence.sources[index].digest: sequence.sources[index] for index in missing}
            added = sum(len(new.tiles) for key, new in sources.items() if key not in chosen)
            # The rest of a batch that ran over would make a small one, which is slower a tile.
            if chosen and added and tiles + added > most:
                self._encode_batch(chosen, takers)
                chosen, takers, tiles = {}, [], 0
                if full:
                    break
            tiles += added
            chosen |= sources
            takers += [(sequence, index) for index in missing]
            ready += needed
        if chosen:
            self._encode_batch(chosen, takers)

    def _encode_batch(
        self, images: Mapping[bytes, PreparedImage], takers: Sequence[tuple[LiveSequence, int]]
    ) -> None:
        """Encode images by their digest, and give each taker the features of its image."""
        begin = time.perf_counter()
        features = self._encode(list(images.values()))
        spent_ms = (time.perf_counter() - begin) * 1e3
        for sequence, index in takers:
            found = features[sequence.sources[index].digest]
            if isinstance(found, Exception):
                if not sequence.answered:
                    self._answer(sequence, found)
            else:
                sequence.features[index] = found
                sequence.spent.vision_ms = spent_ms

    def _encode(self, images: list[PreparedImage]) -> dict[bytes, Tensor | Exception]:
        """Features by digest; where a batch fails its images are tried one by one."""
        try:
            found = self._encoder.encode(images)
        except (VlmcError, RuntimeError, MemoryError) as error:
            if isinstance(error, ModelLostError):
                return {image.digest: error for image in images}
            if len(images) == 1:
                reason = error if isinstance(error, VlmcError) else _too_large(error)
                return {images[0].digest: reason}
            if not isinstance(error, VlmcError) and not _is_out_of_memory(error):
                raise
            report(Note(f"{len(images)} images could not be encoded together ({error})"))
            return {digest: part for one in images for digest, part in self._encode([one]).items()}
        return {image.digest: part for image, part in zip(images, found, strict=True)}

    def _fork(self, shares: Sequence[Share]) -> None:
        """Begin the sequences of the choices' inner nodes; of a prompt nothing else is needed."""
        for share in shares:
            sequence = share.sequence
            if not share.ends_prompt or not isinstance(sequence.work, ChoiceTrie):
                continue
            node = sequence.node or sequence.work.root
            for child in node.children.values():
                if child.is_inner:
                    copied = self._scheduler.fork(sequence, child)
                    if copied is not None:
                        self._runner.copy_page(*copied)
            self._scheduler.finish(sequence)

    def _split(self, shares: Sequence[Share], error: Exception) -> None:
        """After memory ran out: everything that runs begins again, with half of the tokens a step;
        a request that did not fit alone is answered with that."""
        scheduler = self._scheduler
        self._pending.clear()
        alone = shares[0].sequence if len(shares) == 1 else None
        scheduler.restart()
        if self._runner.device.type == "cuda":
            torch.cuda.empty_cache()
        if alone is not None and scheduler.max_batch_tokens <= _LEAST_TOKENS:
            self._answer(alone.parent or alone, _too_large(error))
            return
        most = max(share.count for share in shares)
        halved = max(_LEAST_TOKENS, min(scheduler.max_batch_tokens, most * len(shares)) // 2)
        scheduler.max_batch_tokens = halved
        tokens = sum(share.count for share in shares)
        report(
            Note(
                f"memory ran out in a step of {tokens:,} tokens; steps hold at most {halved:,} "
                "from now on"
            )
        )

    def _read(self, result: StepResult) -> None:
        """Take over the tokens and scores of a step."""
        if result.ready is not None:
            result.ready.synchronize()
        self._runner.lead.check()
        now = time.perf_counter()
        finite = result.finite.tolist()
        tokens, logprobs = result.tokens.tolist(), result.logprobs.tolist()
        for index, sequence in enumerate(result.generating):
            if sequence.answered:
                continue  # a step that was launched before its stop token was read
            if not finite[index]:
                self._refuse_not_finite(sequence)
                continue
            sequence.tokens.append(tokens[index])
            sequence.logprobs.append(logprobs[index])
            if isinstance(sequence.work, Sampling) and sequence.work.top_logprobs:
                asked = sequence.work.top_logprobs
                sequence.top.append(
                    (
                        tuple(result.top_tokens[index, :asked].tolist()),
                        tuple(result.top_logprobs[index, :asked].tolist()),
                    )
                )
            sequence.first_token = sequence.first_token or now
            work = sequence.work
            stopped = tokens[index] == self.stop_id
            if stopped or (
                isinstance(work, Sampling) and len(sequence.tokens) == work.max_new_tokens
            ):
                sequence.spent.decode_ms = (now - sequence.first_token) * 1e3
                self._answer(
                    sequence,
                    Generated(
                        tuple(sequence.tokens), tuple(sequence.logprobs), tuple(sequence.top)
                    ),
                )
        for index, sequence in enumerate(result.scoring):
            root = sequence.parent or sequence
            if root.answered:
                continue
            if not finite[len(result.generating) + index]:
                self._refuse_not_finite(root)
                continue
            self._score(root, sequence, result.scores[index].tolist(), now)

    def _refuse_not_finite(self, sequence: LiveSequence) -> None:
        # Attention multiplies masked values by zero, so NaN of an image reaches the text before it,
        # whose pages other images would reuse.
        self._scheduler.pool.forget(sequence.keys)
        self._answer(sequence, not_finite_error(self._runner.dtype))

    def _score(
        self, root: LiveSequence, sequence: LiveSequence, scores: list[float], now: float
    ) -> None:
        trie = root.work
        if not isinstance(trie, ChoiceTrie):
            return
        node = sequence.node or trie.root
        for child, value in zip(node.children.values(), scores, strict=True):
            root.node_logprobs[child.tokens] = value
        root.first_token = root.first_token or now
        if len(root.node_logprobs) == trie.edges:
            root.spent.decode_ms = (now - root.first_token) * 1e3
            sums = tuple(
                sum(root.node_logprobs[choice[: end + 1]] for end in range(len(choice)))
                for choice in trie.choices
            )
            self._answer(root, ChoiceScores(sums, root.node_logprobs))

    def _fail(self, sequences: Sequence[LiveSequence], error: Exception) -> None:
        for sequence in sequences:
            if not sequence.answered:
                self._answer(sequence, error)
        with self._wake:
            left = [item for item in self._inbox if isinstance(item, LiveSequence)]
            self._inbox = deque(i for i in self._inbox if not isinstance(i, LiveSequence))
        for sequence in left:
            self._answer(sequence, error)

    def _answer(self, sequence: LiveSequence, result: Result) -> None:
        sequence.answered = True
        self._scheduler.forget(sequence)
        sequence.features = []
        sequence.images = sequence.sources = ()
        spent = sequence.spent
        if sequence.first_token:
            spent.prefill_ms = (sequence.first_token - sequence.started) * 1e3
        sequence.on_done(result, spent)


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or (
        "can't allocate memory" in str(error)
    )


def _too_large(error: BaseException) -> HardwareError:
    return HardwareError(
        f"the request does not fit in memory, not even alone ({error}). Use fewer images or a tile "
        "rule with fewer tiles, or free memory."
    )
