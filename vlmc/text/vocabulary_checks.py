"""Checks at load that tokenizer files fit each other and the InternVL2 family."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from vlmc.errors import TokenizerError
from vlmc.text.special_tokens import AddedToken

# Added in this order after the base tokenizer of every released model.
IMAGE_TOKENS = (
    "<img>",
    "</img>",
    "<IMG_CONTEXT>",
    "<quad>",
    "</quad>",
    "<ref>",
    "</ref>",
    "<box>",
    "</box>",
)
# Comparing each with each takes seconds beyond; the family's have at most 265, of 30 characters.
_MOST_ADDED_TOKENS = 1024
_LONGEST_ADDED_TOKEN = 256
_QWEN_CHAT = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645}
# By the size of a released vocabulary, added tokens included: further ids read in its files.
RELEASED_IDS: Mapping[int, Mapping[str, int]] = {
    92553: {"<s>": 1, "</s>": 2, "<|im_end|>": 92542, "<|im_start|>": 92543},  # 2B, 8B, 26B
    151655: _QWEN_CHAT,  # 1B
    151674: _QWEN_CHAT,  # Qwen2.5, in InternVL2.5 and 3
    32020: {  # 4B
        "<s>": 1,
        "<|endoftext|>": 32000,
        "<|assistant|>": 32001,
        "<|system|>": 32006,
        "<|end|>": 32007,
        "<|user|>": 32010,
    },
    64009: {},  # 40B
    128265: {},  # 76B
}


class _Vocabulary(Protocol):
    @property
    def path(self) -> Path: ...
    @property
    def size(self) -> int: ...
    def find(self, piece: str) -> int | None: ...
    def piece(self, number: int) -> str: ...
    def is_free(self, number: int) -> bool: ...


class _Tokenizer(Protocol):
    @property
    def vocab_size(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def token_id(self, token: str) -> int: ...


def check_added_tokens(vocabulary: _Vocabulary, added: Mapping[int, AddedToken]) -> None:
    """Added ids below the pieces are pieces of that name or free ones, which they rename; the
    others follow the pieces without a gap; no name has two ids. Raises TokenizerError.
    """
    path, size = vocabulary.path, vocabulary.size
    longest = max((len(token.content) for token in added.values()), default=0)
    if len(added) > _MOST_ADDED_TOKENS or longest > _LONGEST_ADDED_TOKEN:
        raise TokenizerError(
            f"{path.parent}: {len(added)} added tokens of up to {longest} characters; vlmc takes "
            f"{_MOST_ADDED_TOKENS} of up to {_LONGEST_ADDED_TOKEN}. Copy the tokenizer files from "
            "an InternVL2 checkpoint"
        )
    names = Counter(token.content for token in added.values())
    twice = next((name for name, count in names.items() if count > 1), None)
    if twice is not None:
        raise TokenizerError(
            f"{path.parent}: the added token {twice!r} has two ids; copy the tokenizer files again"
        )
    for number, token in added.items():
        if number >= size:
            if vocabulary.find(token.content) is not None:
                raise TokenizerError(
                    f"{path.parent}: {token.content!r} is added with id {number}, but is piece "
                    f"{vocabulary.find(token.content)} of {path.name} already; the files belong "
                    "to different tokenizers. Copy all of them from one checkpoint"
                )
        elif vocabulary.piece(number) != token.content and not vocabulary.is_free(number):
            raise TokenizerError(
                f"{path.parent}: {token.content!r} is added with id {number}, which is the piece "
                f"{vocabulary.piece(number)!r} of {path.name}; the files belong to different "
                "tokenizers. Copy all of them from one checkpoint"
            )
    beyond = sorted(number for number in added if number >= size)
    if beyond != list(range(size, size + len(beyond))):
        raise TokenizerError(
            f"{path.parent}: added ids do not follow the {size} pieces of {path.name} without a "
            f"gap: {_shortened(beyond)}; the vocabulary is cut off or belongs to another "
            "tokenizer. Copy all tokenizer files from one checkpoint"
        )


def check_image_tokens(tokenizer: _Tokenizer, folder: Path) -> None:
    """The nine tokens of InternVL exist and are single tokens; where the vocabulary has a
    released size, their ids and the chat tokens' are the released ones. Raises TokenizerError.
    """
    size = tokenizer.vocab_size
    expected: dict[str, int] = {}
    if size in RELEASED_IDS:
        start = size - len(IMAGE_TOKENS)
        expected = {name: start + place for place, name in enumerate(IMAGE_TOKENS)}
        expected |= RELEASED_IDS[size]
    for name in dict.fromkeys([*IMAGE_TOKENS, *expected]):
        if not is_single(tokenizer, name):
            raise TokenizerError(
                f"{folder}: {name!r} is in the vocabulary but text is not split on it; it must be "
                "an added token. Copy the tokenizer files from an InternVL2 checkpoint"
            )
        if tokenizer.token_id(name) != expected.get(name, tokenizer.token_id(name)):
            raise TokenizerError(
                f"{folder}: {name!r} has id {tokenizer.token_id(name)}; in the released "
                f"vocabulary of {size} tokens it is {expected[name]}. Embeddings would be mixed "
                "up; copy the tokenizer files from the model's own checkpoint"
            )


def is_single(tokenizer: _Tokenizer, token: str) -> bool:
    """Whether `token` becomes its one id anywhere in a text. Raises TokenizerError if
    it has no id.
    """
    number = tokenizer.token_id(token)
    once, thrice = tokenizer.encode(f"a{token}a"), tokenizer.encode(f"a{token}{token}{token}a")
    place = once.index(number) if number in once else len(once)
    return thrice == [*once[:place], number, number, *once[place:]] and once.count(number) == 1


def check_ids(ids: Sequence[int], vocab_size: int, path: Path) -> None:
    """Raises TokenizerError if an id is not in the vocabulary."""
    if ids and not (min(ids) >= 0 and max(ids) < vocab_size):
        strange = next(number for number in ids if not 0 <= number < vocab_size)
        raise TokenizerError(
            f"{path}: id {strange} is outside the vocabulary of {vocab_size} tokens; the model "
            "and its tokenizer files do not belong together"
        )


def unknown_token_error(token: str, added: Iterable[str], path: Path) -> TokenizerError:
    """The error for a token that has no id."""
    near = difflib.get_close_matches(token, list(added), n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return TokenizerError(
        f"{path}: the vocabulary has no token {token!r}{meant} Copy the tokenizer files from an "
        "InternVL2 checkpoint, or choose the template that fits the model"
    )


def _shortened(ids: Sequence[int]) -> str:
    listed = ", ".join(map(str, ids[:4]))
    return f"{listed}, …, {ids[-1]}" if len(ids) > 4 else listed
