"""Choices as a trie of tokens, so that what several share is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(slots=True)
class TrieNode:
    """A beginning of choices: `tokens` lead to it, `children` are the tokens that may follow."""

    tokens: tuple[int, ...]
    children: dict[int, TrieNode] = field(default_factory=dict)

    @property
    def is_inner(self) -> bool:
        """Whether something follows, so that the model has to be asked after it."""
        return bool(self.children)


class ChoiceTrie:
    """All choices of a request.

    Where the tokens of one choice begin another, no comparison of the two is fair without the end
    of the shorter: the stop token is then part of every choice.
    """

    def __init__(self, choices: Sequence[tuple[int, ...]], stop_id: int) -> None:
        ordered = sorted(choices)
        self.with_end = any(later[: len(one)] == one for one, later in pairwise(ordered))
        end = (stop_id,) if self.with_end else ()
        self.choices = tuple((*choice, *end) for choice in choices)
        self.root = TrieNode(())
        self.edges = 0
        for choice in self.choices:
            node = self.root
            for token in choice:
                if token not in node.children:
                    node.children[token] = TrieNode((*node.tokens, token))
                    self.edges += 1
                node = node.children[token]

    def inner_nodes(self) -> list[TrieNode]:
        """Nodes but the root after which something follows, parents before children."""
        found, level = [], [self.root]
        while level:
            level = [child for node in level for child in node.children.values()]
            found += [node for node in level if node.is_inner]
        return found
