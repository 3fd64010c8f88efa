"""Start requests, and make answers of what the loop gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import lru_cache
from typing import TypeAlias

from vlmc.runtime.dispatcher import Dispatcher
from vlmc.runtime.images.prepare import PreparedRequest
from vlmc.runtime.requests.answer import Answer, FinishReason, Timings
from vlmc.runtime.requests.request import Request
from vlmc.runtime.requests.scores import Choose, Scored, Scores
from vlmc.runtime.scheduler.choice_trie import ChoiceTrie
from vlmc.runtime.scheduler.sequence import ChoiceScores, Generated, Result, Sampling, Spent
from vlmc.text.prompt import PromptBuilder

TokenScores: TypeAlias = Mapping[tuple[int, ...], float]
_KEPT_CHOICES = 256


class Answering:
    """Turns requests into futures of their answers. Any thread may use it."""

    def __init__(self, dispatcher: Dispatcher, prompts: PromptBuilder, engine: str) -> None:
        self._dispatcher, self._prompts, self._engine = dispatcher, prompts, engine
        self._compiled = lru_cache(_KEPT_CHOICES)(self._compile)

    def _compile(
        self, choices: tuple[str, ...]
    ) -> tuple[list[tuple[int, ...]], ChoiceTrie, dict[str, int]]:
        """Token ids of each choice, their trie, and the number of scored tokens by choice."""
        ids = [self._prompts.choice_ids(choice) for choice in choices]
        trie = ChoiceTrie(ids, self._prompts.stop_id)
        return ids, trie, dict(zip(choices, map(len, trie.choices), strict=True))

    def trie(self, choose: Choose) -> ChoiceTrie:
        """The choices as the loop takes them.

        Raises:
            PromptError: a choice makes no tokens of its own.
        """
        return self._compiled(choose.choices)[1]

    def start(self, request: Request, work: Sampling | Choose) -> Future[Answer | Scored]:
        """Start one request of either kind."""
        future: Future[Answer | Scored]
        if isinstance(work, Sampling):
            future = self.generate(request, work)  # type: ignore[assignment]
        else:
            future = self.score(request, work)  # type: ignore[assignment]
        return future

    def generate(self, request: Request, sampling: Sampling) -> Future[Answer]:
        """Start a request whose answer is generated."""

        def answered(prepared: PreparedRequest, result: Result, spent: Spent) -> Answer:
            if not isinstance(result, Generated):
                raise TypeError(f"the loop gave {result!r} for an answer")
            return self.answer(prepared, result, spent)

        return self._dispatcher.run(request, sampling, answered)

    def score(self, request: Request, choose: Choose) -> Future[Scored]:
        """Start a request whose answer is the best of given choices.

        Raises:
            PromptError: a choice makes no tokens of its own.
        """

        def scored(prepared: PreparedRequest, result: Result, spent: Spent) -> Scored:
            if not isinstance(result, ChoiceScores):
                raise TypeError(f"the loop gave {result!r} for a score")
            return self.scored(prepared, choose, result, spent)

        return self._dispatcher.run(request, self.trie(choose), scored)

    def score_tokens(
        self, request: Request, continuations: Sequence[tuple[int, ...]]
    ) -> Future[TokenScores]:
        """Start a request that scores the tokens of continuations of its prompt."""

        def scored(_: PreparedRequest, result: Result, spent: Spent) -> TokenScores:
            if not isinstance(result, ChoiceScores):
                raise TypeError(f"the loop gave {result!r} for a score")
            return result.conditional

        trie = ChoiceTrie(continuations, self._prompts.stop_id)
        return self._dispatcher.run(request, trie, scored)

    def answer(self, request: PreparedRequest, result: Generated, spent: Spent) -> Answer:
        """The answer of generated tokens."""
        ids = result.token_ids
        reason: FinishReason = "stop" if ids[-1] == self._prompts.stop_id else "length"
        text = self._prompts.answer_text(ids)
        answer = self._made(request, text, ids, reason, spent, result.logprobs)
        return replace(answer, top_logprobs=result.top)

    def scored(
        self, request: PreparedRequest, choose: Choose, result: ChoiceScores, spent: Spent
    ) -> Scored:
        """The scores by choice, and the best choice as an answer."""
        choices = choose.choices
        ids, _, tokens = self._compiled(choices)
        scores = Scores(dict(zip(choices, result.logprobs, strict=True)), tokens)
        best = scores.best(choose.measure)
        best_ids = ids[choices.index(best)]
        return Scored(scores, self._made(request, best, best_ids, "choice", spent, ()))

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
            engine=self._engine,
            timings=Timings(
                prepare_ms=request.prepare_ms,
                vision_ms=spent.vision_ms,
                prefill_ms=spent.prefill_ms,
                decode_ms=spent.decode_ms,
            ),
        )
