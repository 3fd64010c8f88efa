"""From a caller's request to a future of its result: prepared on workers, served by the loop."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import TypeVar

from vlmc.artifact.manifest import PrefixCachePolicy
from vlmc.checkpoint.config import LanguageConfig
from vlmc.errors import PromptError, UsageError, VlmcError
from vlmc.runtime.images.prepare import PreparedRequest, Preparer
from vlmc.runtime.images.worker_pool import WorkerPool
from vlmc.runtime.memory_plan import STEPS_HELD, context_limit
from vlmc.runtime.requests.statistics import Statistics
from vlmc.runtime.requests.timeline import follow, span
from vlmc.runtime.scheduler.choice_trie import ChoiceTrie
from vlmc.runtime.scheduler.loop import ServingLoop
from vlmc.runtime.scheduler.requests import make_sequence
from vlmc.runtime.scheduler.sequence import Generated, Result, Sampling, Spent

Finished = TypeVar("Finished")

LEAST_AHEAD, MOST_AHEAD = 16, 512
"""Requests of a stream that are prepared or run ahead of the answer that is taken."""


class Dispatcher:
    """Hands requests to the loop and counts what they took. Any thread may use it."""

    def __init__(
        self,
        preparer: Preparer,
        loop: ServingLoop,
        config: LanguageConfig,
        *,
        prefix_cache: PrefixCachePolicy,
        salt: Callable[[PreparedRequest], bytes],
    ) -> None:
        """`salt` gives everything that keys and values depend on beside prompt and images."""
        self._preparer, self.loop, self._config = preparer, loop, config
        self._prefix_cache, self._salt = prefix_cache, salt
        self._limit = context_limit(config)
        self._workers = WorkerPool()
        self._lock = threading.Lock()
        self._counts = Statistics()
        self._prompts, self._prompt_tokens = 0, 0
        self._process = os.getpid()

    @property
    def statistics(self) -> Statistics:
        """Counts of tokens so far."""
        with self._lock:
            return self._counts

    @property
    def ahead(self) -> int:
        """As many requests as fill `STEPS_HELD` steps, by the mean length of the prompts so far."""
        step = self.loop.max_batch_tokens
        with self._lock:
            mean = self._prompt_tokens / self._prompts if self._prompts else step
        return max(LEAST_AHEAD, min(MOST_AHEAD, int(STEPS_HELD * step / mean)))

    def check_process(self) -> None:
        """Raise UsageError in a forked child, which has none of the parent's threads."""
        if os.getpid() != self._process:
            raise UsageError(
                "this model was loaded before the process was forked, and does not work in the "
                "child. Load it in the child, or start the child with the spawn method."
            )

    def run(
        self,
        request: object,
        work: Sampling | ChoiceTrie,
        finish: Callable[[PreparedRequest, Result, Spent], Finished],
    ) -> Future[Finished]:
        """Start a request; `finish` makes the future's result of what the loop gives.

        Raises:
            UsageError: in a forked child.
        """
        self.check_process()
        future: Future[Finished] = Future()
        follow(future)

        def prepare() -> None:
            if future.cancelled():
                return
            try:
                with span("prepare"):
                    prepared = self._prepare(request)
            except Exception as error:
                _fail(future, error)
                return

            def done(result: Result, spent: Spent) -> None:
                try:
                    if isinstance(result, Exception):
                        raise result
                    self._count(result, spent)
                    finished = finish(prepared, result, spent)
                except Exception as error:
                    _fail(future, error)
                else:
                    if future.set_running_or_notify_cancel():
                        future.set_result(finished)

            try:
                self.loop.submit(
                    make_sequence(
                        prepared,
                        _within(work, self._limit - len(prepared.prompt_ids)),
                        done,
                        policy=self._prefix_cache,
                        salt=self._salt(prepared),
                        config=self._config,
                        cancelled=future.cancelled,
                    )
                )
            except VlmcError as error:
                _fail(future, error)

        self._workers.submit(prepare)
        return future

    def close(self) -> None:
        """End the workers and the loop; requests that wait fail."""
        self._workers.close()
        self.loop.close()

    def _prepare(self, request: object) -> PreparedRequest:
        prepared = self._preparer.request(request)
        tokens = len(prepared.prompt_ids)
        if tokens > self._limit:
            raise PromptError(
                f"the prompt has {tokens} tokens, {prepared.image_tokens} of them for images, and "
                f"the model's context ends at {self._limit}. Use fewer images, or a tile rule with "
                "fewer tiles."
            )
        with self._lock:
            self._prompts += 1
            self._prompt_tokens += tokens
        return prepared

    def _count(self, result: Result, spent: Spent) -> None:
        new = len(result.token_ids) if isinstance(result, Generated) else 0
        with self._lock:
            before = self._counts
            self._counts = replace(
                before,
                prompt_tokens_computed=before.prompt_tokens_computed + spent.computed_tokens,
                prompt_tokens_reused=before.prompt_tokens_reused + spent.reused_tokens,
                new_tokens=before.new_tokens + new,
            )


def _within(work: Sampling | ChoiceTrie, left: int) -> Sampling | ChoiceTrie:
    """Answers end with the model's context; the first token needs no room of its own."""
    if isinstance(work, Sampling) and work.max_new_tokens > left + 1:
        return replace(work, max_new_tokens=left + 1)
    return work


def _fail(future: Future[Finished], error: Exception) -> None:
    if future.set_running_or_notify_cancel():
        future.set_exception(error)
