"""One request on its way through the language model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vlmc.runtime.requests.request import PreparedImage
from vlmc.runtime.scheduler.choice_trie import ChoiceTrie, TrieNode

if TYPE_CHECKING:
    # Who only describes requests does without torch.
    import torch
    from torch import Tensor

    from vlmc.runtime.cache.block_key import ImageRun


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is generated.

    `temperature` 0 takes the likeliest token. Above it, tokens are drawn from the likeliest ones
    whose probabilities add up to `top_p`, and `seed` makes the draw repeatable.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    top_logprobs: int = 0  # of the likeliest tokens at each position, to be returned


TopTokens = tuple[tuple[int, ...], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Generated:
    """New tokens, with the stop token if it came, and the log-probability of each.

    `top` has, for each of them, ids and log-probabilities of the likeliest tokens, the likeliest
    first; nothing where none were asked for.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    top: tuple[TopTokens, ...] = ()


@dataclass(frozen=True, slots=True)
class ChoiceScores:
    """Log-probability of the tokens of each choice, in the order of the request.

    `conditional` has that of the last token of every beginning of a choice, given those before.
    """

    logprobs: tuple[float, ...]
    conditional: Mapping[tuple[int, ...], float]


@dataclass(slots=True)
class Spent:
    """What a sequence took: milliseconds, and tokens of its prompt computed and reused."""

    vision_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    computed_tokens: int = 0
    reused_tokens: int = 0


Result = Generated | ChoiceScores | Exception
OnDone = Callable[[Result, Spent], None]


@dataclass(eq=False, slots=True)
class LiveSequence:
    """A request in the scheduler; `images`, `sources` and `features` are of the same images.

    `computed` tokens of `ids` and of what was generated are in the cache. `lane` is the row of the
    device's table of last tokens while the sequence decodes.
    """

    ids: tuple[int, ...]
    images: Sequence[ImageRun]
    work: Sampling | ChoiceTrie
    on_done: OnDone
    cancelled: Callable[[], bool] = lambda: False
    keys: Sequence[bytes] = ()
    sources: Sequence[PreparedImage] = ()
    features: list[Tensor | None] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    spare_pages: list[int] = field(default_factory=list)  # that its forks will write to
    computed: int = 0
    published: int = 0  # pages
    scheduled: int = 0  # new tokens whose step has been planned
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top: list[TopTokens] = field(default_factory=list)
    lane: int = -1
    answered: bool = False
    generator: torch.Generator | None = None
    spent: Spent = field(default_factory=Spent)
    started: float = 0.0
    first_token: float = 0.0
    # Of a fork that scores a node of a trie: who asked, and which node.
    parent: LiveSequence | None = None
    node: TrieNode | None = None
    node_logprobs: dict[tuple[int, ...], float] = field(default_factory=dict)

    @property
    def prompt_length(self) -> int:
        """Tokens of the prompt."""
        return len(self.ids)

    @property
    def is_prefilling(self) -> bool:
        """Whether a part of the prompt has yet to be computed."""
        return self.computed < len(self.ids)

    def restart(self) -> None:
        """Forget what was computed and generated, to begin again."""
        self.computed = self.published = self.scheduled = 0
        self.pages, self.spare_pages, self.lane = [], [], -1
        self.tokens, self.logprobs, self.top, self.generator = [], [], [], None
        self.node_logprobs = {}

    def unencoded(self, after: int) -> list[int]:
        """Indices of the images that reach beyond the first `after` tokens and lack features."""
        return [
            index
            for index, image in enumerate(self.images)
            if self.features[index] is None and image.start + image.tokens > after
        ]

    @property
    def reserved_tokens(self) -> int:
        """Tokens that the cache must hold for it at most."""
        if isinstance(self.work, Sampling):
            return len(self.ids) + self.work.max_new_tokens
        return len(self.ids)
