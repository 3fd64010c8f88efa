"""Splitting text on added tokens, as slow tokenizers do before any piece is looked up."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from vlmc.errors import TokenizerError
from vlmc.text.special_tokens import AddedToken


class Splitter:
    """Finds added tokens in text: leftmost first, of several at one place the longest.

    Slow tokenizers do the same unless tokens overlap, where their rule is irregular.
    """

    def __init__(self, added: Mapping[int, AddedToken]) -> None:
        """Raises TokenizerError for tokens that overlap other than by their beginnings."""
        _check_overlaps([token.content for token in added.values()])
        self._ids = {token.content: number for number, token in added.items()}
        self._strips_left = {t.content for t in added.values() if t.lstrip}
        self._strips_right = {t.content for t in added.values() if t.rstrip}
        longest_first = sorted(self._ids, key=len, reverse=True)
        # An empty alternation would match everywhere.
        pattern = "|".join(map(re.escape, longest_first)) or r"(?!)"
        self._pattern = re.compile(f"({pattern})")

    def split(self, text: str) -> list[str | int]:
        """Texts between added tokens, none empty, and the ids of the added tokens, in order.

        Whitespace is taken off the texts beside tokens with `lstrip` or `rstrip`.
        """
        parts = self._pattern.split(text)  # texts at even places, added tokens at odd ones
        for place in range(1, len(parts), 2):
            if parts[place] in self._strips_right:
                parts[place + 1] = parts[place + 1].lstrip()
            if parts[place] in self._strips_left:
                parts[place - 1] = parts[place - 1].rstrip()
        return [self._ids[part] if place % 2 else part for place, part in enumerate(parts) if part]


def _check_overlaps(names: Sequence[str]) -> None:
    for first in names:
        for second in names:
            shared = range(1, min(len(first), len(second)))
            if second.find(first, 1) >= 0 or any(first[-n:] == second[:n] for n in shared):
                raise TokenizerError(
                    f"the added tokens {first!r} and {second!r} overlap, so text that holds both "
                    "can be split in two ways; no released InternVL2 tokenizer has such tokens"
                )
