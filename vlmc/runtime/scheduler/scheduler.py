"""Decide which sequences run in the next step, and which pages they hold."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from vlmc.errors import PromptError
from vlmc.models.flops import RowWork
from vlmc.models.language.paged_cache import PAGE_TOKENS, pages_for
from vlmc.runtime.cache.page_pool import PagePool
from vlmc.runtime.scheduler.choice_trie import ChoiceTrie, TrieNode
from vlmc.runtime.scheduler.sequence import LiveSequence, Sampling


@dataclass(frozen=True, slots=True)
class Share:
    """What a sequence computes in a step: `count` tokens after the `start` that are cached."""

    sequence: LiveSequence
    start: int
    count: int

    @property
    def ends_prompt(self) -> bool:
        """Whether a token or a score follows from the last of these tokens."""
        return self.start + self.count >= self.sequence.prompt_length

    @property
    def work(self) -> RowWork:
        """What is counted of it."""
        is_decode = self.start >= self.sequence.prompt_length
        return RowWork(self.start, self.count, is_decode, self.ends_prompt)


class Scheduler:
    """First come, first served, under a budget of tokens a step.

    Every sequence that runs holds all pages that it can ever need, so that nothing is computed
    twice and nothing that has begun has to give way. A sequence waits while another computes the
    page that it would reuse next.
    """

    def __init__(self, pool: PagePool, max_batch_tokens: int, lanes: int) -> None:
        self.pool = pool
        self.max_batch_tokens = max_batch_tokens
        self.waiting: deque[LiveSequence] = deque()
        self.prefilling: list[LiveSequence] = []
        self.decoding: list[LiveSequence] = []
        self._lane_count = lanes
        self._lanes = list(range(lanes - 1, -1, -1))
        self._computing: set[bytes] = set()
        self._live: dict[LiveSequence, None] = {}  # requests without an answer, by arrival

    @property
    def is_idle(self) -> bool:
        """Whether every request is answered."""
        return not self._live

    def add(self, sequence: LiveSequence) -> None:
        """Queue a sequence.

        Raises:
            PromptError: it can never fit in the cache.
        """
        needed = pages_for(sequence.reserved_tokens) + _fork_pages(sequence)
        if needed > self.pool.pages:
            raise PromptError(
                f"the request needs room for {sequence.reserved_tokens:,} tokens, and the KV cache "
                f"holds {self.pool.pages * PAGE_TOKENS:,}. Use fewer images, fewer tiles or a "
                "smaller max_new_tokens, or load on a device with more free memory."
            )
        self._live[sequence] = None
        self.waiting.append(sequence)

    def forget(self, sequence: LiveSequence) -> None:
        """Let an answered request go, wherever it is."""
        self._live.pop(sequence, None)
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        self.finish(sequence)
        for fork in [fork for fork in self.prefilling if fork.parent is sequence]:
            self.finish(fork)
        self.pool.release(sequence.spare_pages)
        sequence.spare_pages = []

    def reusable(self, sequence: LiveSequence) -> list[int]:
        """Pages with the beginning of its prompt. The last prompt token is always computed."""
        most = (sequence.prompt_length - 1) // PAGE_TOKENS
        return self.pool.find(sequence.keys[:most])

    def has_room(self, taken: int, tokens: int) -> bool:
        """Whether a step of `taken` tokens takes a prompt of so many more.

        A prompt is split between steps only if it is longer than a step: a part that attends to
        pages is slower than a whole prompt.
        """
        return taken == 0 or taken + tokens <= self.max_batch_tokens

    def plan(self) -> list[Share]:
        """The next step's shares, those of one token first; empty where nothing can run."""
        left = self.max_batch_tokens
        shares = []
        for sequence in self.decoding:
            if self._has_more(sequence):
                shares.append(Share(sequence, sequence.computed, 1))
                left -= 1
        for sequence in self.prefilling:
            if left <= 0:
                break
            count = min(left, sequence.prompt_length - sequence.computed)
            shares.append(Share(sequence, sequence.computed, count))
            left -= count
        for sequence in self._admit(left):
            count = min(left, sequence.prompt_length - sequence.computed)
            shares.append(Share(sequence, sequence.computed, count))
            left -= count
        for share in shares:
            self._advance(share)
        return sorted(shares, key=lambda share: share.count > 1)

    def fork(self, parent: LiveSequence, node: TrieNode) -> tuple[int, int] | None:
        """Queue a sequence that computes the last token of a trie's node, after `parent`'s.

        Returns:
            The page of `parent` with the tokens that the fork's last page begins with, and that
            page; None where it begins with none.
        """
        root = parent if parent.parent is None else parent.parent
        computed = len(parent.ids)
        shared = parent.pages[: computed // PAGE_TOKENS]
        self.pool.hold(shared)
        own = root.spare_pages.pop()
        fork = LiveSequence(
            ids=(*parent.ids, node.tokens[-1]),
            images=(),
            work=root.work,
            on_done=root.on_done,
            pages=[*shared, own],
            computed=computed,
            parent=root,
            node=node,
        )
        self.prefilling.insert(0, fork)
        return (parent.pages[len(shared)], own) if computed % PAGE_TOKENS else None

    def finish(self, sequence: LiveSequence) -> None:
        """Let go of the pages that a sequence has used; a request keeps those of its forks."""
        if sequence in self.decoding:
            self.decoding.remove(sequence)
        if sequence in self.prefilling:
            self.prefilling.remove(sequence)
        self._computing.difference_update(sequence.keys)
        if sequence.lane >= 0:
            self._lanes.append(sequence.lane)
            sequence.lane = -1
        self.pool.release(sequence.pages)
        sequence.pages = []

    def restart(self) -> None:
        """Put every request without an answer back in the queue, to begin again.

        Pages are taken back from everything, forks and sequences between two steps included, and
        nothing is reused: a step that failed may have left pages unwritten that count as computed.
        """
        self.pool = PagePool(self.pool.pages)
        self._lanes = list(range(self._lane_count - 1, -1, -1))
        self._computing.clear()
        self.decoding, self.prefilling = [], []
        self.waiting = deque(self._live)
        for sequence in self.waiting:
            sequence.restart()

    def drop_all(self) -> list[LiveSequence]:
        """Take every request out, as after a failure."""
        self.restart()
        found = list(self._live)
        self._live.clear()
        self.waiting.clear()
        return found

    def _admit(self, left: int) -> list[LiveSequence]:
        """Begin waiting sequences of `left` tokens, in order, up to the first that lacks memory."""
        admitted: list[LiveSequence] = []
        passed: deque[LiveSequence] = deque()
        taken = 0
        while self.waiting and taken < left:
            sequence = self.waiting.popleft()
            found = self.reusable(sequence)
            following = sequence.keys[len(found) : len(found) + 1]
            if (following and following[0] in self._computing) or sequence.unencoded(
                len(found) * PAGE_TOKENS
            ):
                passed.append(sequence)
                continue
            tokens = sequence.prompt_length - len(found) * PAGE_TOKENS
            if not self.has_room(self.max_batch_tokens - left + taken, tokens):
                passed.append(sequence)
                break
            needed = pages_for(sequence.reserved_tokens) - len(found)
            self.pool.hold(found)
            if needed + _fork_pages(sequence) > self.pool.available or (
                isinstance(sequence.work, Sampling) and not self._lanes
            ):
                self.pool.release(found)
                passed.append(sequence)
                break
            sequence.pages = found + self.pool.take(needed)
            sequence.spare_pages = self.pool.take(_fork_pages(sequence))
            sequence.published = len(found)
            sequence.computed = len(found) * PAGE_TOKENS
            sequence.spent.reused_tokens = sequence.computed
            sequence.spent.computed_tokens = sequence.prompt_length - sequence.computed
            self._computing.update(sequence.keys[len(found) :])
            if isinstance(sequence.work, Sampling):
                sequence.lane = self._lanes.pop()
            self.prefilling.append(sequence)
            taken += sequence.prompt_length - sequence.computed
            admitted.append(sequence)
        self.waiting.extendleft(reversed(passed))
        return admitted

    def _advance(self, share: Share) -> None:
        """Count a planned share as computed: later steps follow it on the device."""
        sequence = share.sequence
        sequence.computed += share.count
        full = min(sequence.computed // PAGE_TOKENS, len(sequence.keys))
        for index in range(sequence.published, full):
            self.pool.publish(sequence.pages[index], sequence.keys[index])
            self._computing.discard(sequence.keys[index])
        sequence.published = max(sequence.published, full)
        if not share.ends_prompt:
            return
        if sequence in self.prefilling:
            self.prefilling.remove(sequence)
            if isinstance(sequence.work, Sampling):
                self.decoding.append(sequence)
        sequence.scheduled += 1

    @staticmethod
    def _has_more(sequence: LiveSequence) -> bool:
        work = sequence.work
        return isinstance(work, Sampling) and sequence.scheduled < work.max_new_tokens


def _fork_pages(sequence: LiveSequence) -> int:
    """Pages that the forks of a scored request take, at most."""
    if isinstance(sequence.work, ChoiceTrie) and sequence.node is None:
        return len(sequence.work.inner_nodes())
    return 0
