"""Loading the tokenizer of a checkpoint or an artifact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from vlmc.errors import TokenizerError
from vlmc.text.json_file import read_json_object
from vlmc.text.special_tokens import (
    ADDED_TOKENS_FILE,
    CONFIG_FILE,
    FAST_FILE,
    SPECIAL_TOKENS_FILE,
    read_special_tokens,
)
from vlmc.text.tokenizer_class import (
    CLASS_ROLES,
    MERGES_FILE,
    PIECES_FILE,
    VOCAB_FILE,
    build_tokenizer,
)
from vlmc.text.vocabulary_checks import check_image_tokens

# A folder holds tokenizer_config.json, the files of its class, and any of the others.
TOKENIZER_FILES: tuple[str, ...] = (
    CONFIG_FILE,
    SPECIAL_TOKENS_FILE,
    ADDED_TOKENS_FILE,
    PIECES_FILE,
    VOCAB_FILE,
    MERGES_FILE,
    FAST_FILE,
)


class Tokenizer(Protocol):
    """Text to ids and back, exactly as the checkpoint's own tokenizer does it."""

    @property
    def vocab_size(self) -> int:
        """Base pieces and added tokens together."""
        ...

    @property
    def bos_id(self) -> int | None: ...
    @property
    def pad_id(self) -> int | None: ...
    @property
    def special_ids(self) -> frozenset[int]:
        """What `decode` skips. Not every added token is one of them."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, with BOS in front if the tokenizer adds it."""
        ...

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of `ids`. Raises TokenizerError for an id outside the vocabulary."""
        ...

    def token_id(self, token: str) -> int:
        """The id of an added token or piece by its name; TokenizerError if there is none."""
        ...


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer files in `folder` without running any code from there.

    Raises TokenizerError if files are missing, damaged, disagree, or lack the image tokens.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise TokenizerError(
            f"{folder}: {CONFIG_FILE} is missing, so the tokenizer is unknown; a checkpoint has "
            f"it beside its weights. Copy all of these that exist: {', '.join(TOKENIZER_FILES)}"
        )
    config = read_json_object(path)
    name = config.get("tokenizer_class")
    if not isinstance(name, str) or name not in CLASS_ROLES:
        raise TokenizerError(
            f"{path}: tokenizer_class is {name!r}; vlmc supports {', '.join(CLASS_ROLES)}. Use "
            "the tokenizer files of the original checkpoint"
        )
    for key in ("do_lower_case", "split_special_tokens", "sp_model_kwargs"):
        if config.get(key):
            raise TokenizerError(
                f"{path}: {key} is {config[key]!r}; no InternVL2 tokenizer sets it and vlmc does "
                "not support it. Use the tokenizer files of the original checkpoint"
            )
    tokens = read_special_tokens(folder, config, CLASS_ROLES[name])
    tokenizer = build_tokenizer(name, folder, config, tokens)
    check_image_tokens(tokenizer, folder)
    return tokenizer
