"""A stand-in for a tokenizer, where no checkpoint with one is on disk."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

from vlmc.errors import TokenizerError
from vlmc.text.prompt import IMAGE_END, IMAGE_START, IMAGE_TOKEN

_CHAT = ("<|im_start|>", "<|im_end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
_SPECIAL = (IMAGE_START, IMAGE_END, IMAGE_TOKEN, *_CHAT)
# About as many tokens as the released tokenizers make: a word, or one other character.
_PIECES = re.compile(
    "|".join(map(re.escape, _SPECIAL)) + r"|[A-Za-z0-9]+ ?|.", re.ASCII | re.DOTALL
)


class StandInTokenizer:
    """Gives each piece of text an id by its checksum; special tokens have the last ids."""

    bos_id: int | None = None
    pad_id: int | None = None

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        first = vocab_size - len(_SPECIAL)
        self._ids = {token: first + place for place, token in enumerate(_SPECIAL)}
        self._pieces = first

    @property
    def special_ids(self) -> frozenset[int]:
        """What `decode` skips."""
        return frozenset(self._ids.values())

    def encode(self, text: str) -> list[int]:
        """Ids of a text; the same text has the same ids everywhere."""
        pieces = _PIECES.findall(text)
        return [self._ids.get(piece, zlib.crc32(piece.encode()) % self._pieces) for piece in pieces]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Numbers in place of the text, which the ids do not hold."""
        kept = (i for i in ids if not (skip_special_tokens and i >= self._pieces))
        return " ".join(map(str, kept))

    def token_id(self, token: str) -> int:
        """The id of a special token.

        Raises:
            TokenizerError: it has none.
        """
        if token not in self._ids:
            raise TokenizerError(f"the stand-in tokenizer has no token {token!r}")
        return self._ids[token]
