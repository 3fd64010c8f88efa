"""The slow tokenizers: split on added tokens, look up pieces, join them again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from vlmc.text.fast_file import SPACE
from vlmc.text.sentencepiece_model import tidy_spaces
from vlmc.text.special_tokens import AddedToken, SpecialTokens
from vlmc.text.splitter import Splitter
from vlmc.text.vocabulary_checks import check_added_tokens, check_ids, unknown_token_error

# Prompts repeat their system message and questions; longer texts are too rare to be kept.
_CACHED_SEGMENTS = 4096
_LONGEST_CACHED_CHARACTERS = 2048


class Vocabulary(Protocol):
    """The base pieces of a tokenizer, whose ids are 0 to `size` - 1."""

    @property
    def path(self) -> Path: ...
    @property
    def size(self) -> int: ...
    @property
    def joiner(self) -> str:
        """What decoding puts between text and added tokens."""
        ...

    @property
    def drops_lone_space(self) -> bool:
        """Whether the space in front of a special token that begins the text is dropped."""
        ...

    def find(self, piece: str) -> int | None: ...
    def piece(self, number: int) -> str: ...
    def is_free(self, number: int) -> bool: ...
    def prepare(self, text: str) -> str: ...
    def encode(self, segment: str) -> list[int]: ...
    def text(self, tokens: Sequence[str], special: frozenset[str]) -> str: ...


class PieceTokenizer:
    """A vocabulary with its added tokens; see `vlmc.text.tokenizer.Tokenizer`."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        tokens: SpecialTokens,
        *,
        adds_bos: bool,
        adds_eos: bool,
        tidy: bool,
    ) -> None:
        """`adds_bos` and `adds_eos`: around every text; `tidy` cleans decoded text.

        Raises TokenizerError if the added tokens do not fit the vocabulary.
        """
        self.added = added = complete_added_tokens(vocabulary, tokens)
        check_added_tokens(vocabulary, added)
        self.vocabulary = vocabulary
        self._tidy = tidy
        self._names = {number: token.content for number, token in added.items()}
        self._ids = {content: number for number, content in self._names.items()}
        self._splitter = Splitter(added)
        self._special_names = frozenset(token.content for token in tokens.special)
        # What decoding sets apart from the pieces around it.
        self._apart = (self._ids.keys() - self._special_names) | {
            token.content
            for token in tokens.additional
            if self._ids[token.content] >= vocabulary.size
        }
        self._cached_segment = lru_cache(maxsize=_CACHED_SEGMENTS)(self._encode_segment)
        self.vocab_size = vocabulary.size + sum(number >= vocabulary.size for number in added)
        self.special_ids = frozenset(self._ids[name] for name in self._special_names)
        self.bos_id = self._role_id(tokens, "bos_token")
        self.pad_id = self._role_id(tokens, "pad_token")
        eos_id = self._role_id(tokens, "eos_token")
        self.adds_bos = adds_bos
        self._before = (self.bos_id,) if adds_bos and self.bos_id is not None else ()
        self._after = (eos_id,) if adds_eos and eos_id is not None else ()

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, with what the tokenizer puts around it."""
        segments = self._splitter.split(self.vocabulary.prepare(text))
        if (
            self.vocabulary.drops_lone_space
            and len(segments) > 1
            and segments[0] == SPACE
            and segments[1] in self.special_ids
        ):
            segments = segments[1:]
        ids = list(self._before)
        for segment in segments:
            if isinstance(segment, int):
                ids.append(segment)
            elif len(segment) > _LONGEST_CACHED_CHARACTERS:
                ids.extend(self._encode_segment(segment))
            else:
                ids.extend(self._cached_segment(segment))
        ids.extend(self._after)
        return ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of `ids`. Raises TokenizerError for an id outside the vocabulary."""
        check_ids(ids, self.vocab_size, self.vocabulary.path)
        parts: list[str] = []
        pending: list[str] = []
        for number in ids:
            if skip_special_tokens and number in self.special_ids:
                continue
            name = self._names.get(number)
            if name in self._apart:
                parts += [*self._text(pending), name]
                pending = []
            else:
                pending.append(self.vocabulary.piece(number) if name is None else name)
        if pending:
            # An empty last text still gets the joiner before it.
            parts.append(self.vocabulary.text(pending, self._special_names))
        text = self.vocabulary.joiner.join(parts)
        return tidy_spaces(text) if self._tidy else text

    def token_id(self, token: str) -> int:
        """The id of an added token or piece by its name; TokenizerError if there is none."""
        number = self._ids.get(token)
        if number is None:
            number = self.vocabulary.find(token)
        if number is None or self._names.get(number, token) != token:
            raise unknown_token_error(token, self._ids, self.vocabulary.path)
        return number

    def _role_id(self, tokens: SpecialTokens, role: str) -> int | None:
        name = tokens.role(role)
        return None if name is None else self._ids[name]

    def _encode_segment(self, segment: str) -> tuple[int, ...]:
        return tuple(self.vocabulary.encode(segment))

    def _text(self, pending: list[str]) -> list[str]:
        text = self.vocabulary.text(pending, self._special_names) if pending else ""
        return [text] if text else []


def complete_added_tokens(vocabulary: Vocabulary, tokens: SpecialTokens) -> dict[int, AddedToken]:
    """The declared added tokens and, by their ids in the vocabulary or at its end, every other
    special token."""
    added = dict(tokens.added)
    known = {token.content for token in added.values()}
    end = vocabulary.size + sum(number >= vocabulary.size for number in added)
    for token in tokens.special:
        if token.content in known:
            continue
        number = vocabulary.find(token.content)
        if number is None or number in added:
            number, end = end, end + 1
        added[number] = token
        known.add(token.content)
    return added
