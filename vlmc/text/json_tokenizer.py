"""Tokenizers that a tokenizer.json describes completely (76B: Llama 3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import tokenizers

from vlmc.errors import TokenizerError
from vlmc.files.bounded_read import read_bytes
from vlmc.text.json_file import MAX_BYTES
from vlmc.text.sentencepiece_model import tidy_spaces
from vlmc.text.special_tokens import AddedToken, SpecialTokens
from vlmc.text.vocabulary_checks import check_added_tokens, check_ids, unknown_token_error

_CACHED_TEXTS = 1024
_LONGEST_CACHED_CHARACTERS = 8192


class JsonTokenizer:
    """The `tokenizers` library runs the file; see `vlmc.text.tokenizer.Tokenizer`.

    Its post-processor adds BOS, and decoding skips the tokens that the file marks special.
    """

    def __init__(self, path: Path, tokens: SpecialTokens, *, tidy: bool) -> None:
        """`tidy` cleans decoded text. Raises TokenizerError if the files do not fit."""
        self.path = path
        self._tokenizer = _load(path)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.size: int = self._tokenizer.get_vocab_size(with_added_tokens=False)
        self._tidy = tidy
        # tokenizer_config.json has the last word on how added tokens are matched.
        self._add(tokens.added.values())
        known = {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}
        self._add(token for token in tokens.special if token.content not in known)
        added = {
            number: AddedToken(token.content, special=token.special)
            for number, token in self._tokenizer.get_added_tokens_decoder().items()
        }
        for number, token in tokens.added.items():
            if number not in added or added[number].content != token.content:
                raise TokenizerError(
                    f"{path.parent}: tokenizer_config.json gives {token.content!r} the id "
                    f"{number}, {path.name} does not; copy both from one checkpoint"
                )
        check_added_tokens(self, added)
        self.vocab_size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
        if max(self._tokenizer.get_vocab().values()) >= self.vocab_size:
            raise TokenizerError(
                f"{path}: a piece has an id beyond its {self.vocab_size} tokens; the file is "
                "damaged. Copy it from the checkpoint again"
            )
        self._names = [token.content for token in added.values()]
        self._cached_ids = lru_cache(maxsize=_CACHED_TEXTS)(self._encode)
        self.special_ids = frozenset(n for n, token in added.items() if token.special)
        bos, pad = tokens.role("bos_token"), tokens.role("pad_token")
        self.bos_id = None if bos is None else self.token_id(bos)
        self.pad_id = None if pad is None else self.token_id(pad)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, with what the post-processor puts around it."""
        if len(text) > _LONGEST_CACHED_CHARACTERS:
            return list(self._encode(text))
        return list(self._cached_ids(text))

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of `ids`. Raises TokenizerError for an id outside the vocabulary."""
        check_ids(ids, self.vocab_size, self.path)
        text = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return tidy_spaces(text) if self._tidy else text

    def token_id(self, token: str) -> int:
        """The id of an added token or piece by its name; TokenizerError if there is none."""
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise unknown_token_error(token, self._names, self.path)
        return number

    def to_json(self) -> str:
        """The tokenizer.json that this tokenizer runs, with all added tokens."""
        text: str = self._tokenizer.to_str()
        return text

    def find(self, piece: str) -> int | None:
        """The id of a base piece by its exact name."""
        number = self._tokenizer.token_to_id(piece)
        return number if number is not None and number < self.size else None

    def piece(self, number: int) -> str:
        """The name of piece `number` < `size`."""
        return self._tokenizer.id_to_token(number) or ""

    def is_free(self, number: int) -> bool:
        """No piece may be renamed: the file itself gives every id its name."""
        return False

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text).ids)

    def _add(self, tokens: Iterable[AddedToken]) -> None:
        for special, group in groupby(tokens, key=lambda token: token.special):
            batch = [
                tokenizers.AddedToken(
                    token.content,
                    lstrip=token.lstrip,
                    rstrip=token.rstrip,
                    normalized=token.normalized,
                    special=token.special,
                )
                for token in group
            ]
            if special:
                self._tokenizer.add_special_tokens(batch)
            else:
                self._tokenizer.add_tokens(batch)


def _load(path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(read_bytes(path, MAX_BYTES).decode())
    except Exception as error:  # the library raises Exception itself
        raise TokenizerError(
            f"{path}: cannot be loaded as a tokenizer.json ({error}); the file is missing, cut "
            "off or a Git LFS pointer. Copy it from the checkpoint again"
        ) from error
