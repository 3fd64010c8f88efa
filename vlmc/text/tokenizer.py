"""Loading the tokenizer of a checkpoint or an artifact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from vlmc.errors import TokenizerError
from vlmc.text.byte_level import ByteLevelVocabulary
from vlmc.text.json_file import read_flag, read_json_object
from vlmc.text.json_tokenizer import JsonTokenizer
from vlmc.text.piece_tokenizer import PieceTokenizer
from vlmc.text.sentencepiece_model import InternLM2Vocabulary, LlamaVocabulary
from vlmc.text.special_tokens import (
    ADDED_TOKENS_FILE,
    CONFIG_FILE,
    FAST_FILE,
    SPECIAL_TOKENS_FILE,
    SpecialTokens,
    read_special_tokens,
)
from vlmc.text.vocabulary_checks import check_image_tokens

PIECES_FILE = "tokenizer.model"
VOCAB_FILE = "vocab.json"
MERGES_FILE = "merges.txt"
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

_CLASS_FILES = {
    "InternLM2Tokenizer": (PIECES_FILE,),
    "LlamaTokenizer": (PIECES_FILE,),
    "Qwen2Tokenizer": (VOCAB_FILE, MERGES_FILE),
    "Qwen2TokenizerFast": (FAST_FILE,),
    "PreTrainedTokenizerFast": (FAST_FILE,),
}
_LLAMA_ROLES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_CLASS_ROLES = {
    "InternLM2Tokenizer": {**_LLAMA_ROLES, "pad_token": "</s>"},
    "LlamaTokenizer": _LLAMA_ROLES,
    "Qwen2Tokenizer": dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
    "Qwen2TokenizerFast": dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
    "PreTrainedTokenizerFast": {},
}


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
    """Loads the tokenizer whose files lie in `folder`, without running any code from there.

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
    if not isinstance(name, str) or name not in _CLASS_FILES:
        raise TokenizerError(
            f"{path}: tokenizer_class is {name!r}; vlmc supports {', '.join(_CLASS_FILES)}. Use "
            "the tokenizer files of the original checkpoint"
        )
    missing = [file for file in _CLASS_FILES[name] if not (folder / file).is_file()]
    if missing:
        raise TokenizerError(
            f"{folder}: {' and '.join(missing)} missing, which {name} needs; copy them from the "
            "checkpoint"
        )
    for key in ("do_lower_case", "split_special_tokens", "sp_model_kwargs"):
        if config.get(key):
            raise TokenizerError(
                f"{path}: {key} is {config[key]!r}; no InternVL2 tokenizer sets it and vlmc does "
                "not support it. Use the tokenizer files of the original checkpoint"
            )
    tokens = read_special_tokens(folder, config, _CLASS_ROLES[name])
    tokenizer = _build(name, folder, config, tokens)
    check_image_tokens(tokenizer, folder)
    return tokenizer


def _build(name: str, folder: Path, config: dict[str, Any], tokens: SpecialTokens) -> Tokenizer:
    path = folder / CONFIG_FILE
    fast = name.endswith("Fast")
    tidy = read_flag(config, "clean_up_tokenization_spaces", fast, path)
    if fast:
        return JsonTokenizer(folder / FAST_FILE, tokens, tidy=tidy)
    if name == "Qwen2Tokenizer":
        errors = config.get("errors") or "replace"
        if errors not in ("replace", "ignore"):
            raise TokenizerError(f"{path}: errors is {errors!r}; it must be replace or ignore")
        bytes_ = ByteLevelVocabulary(folder / VOCAB_FILE, folder / MERGES_FILE, errors=errors)
        return PieceTokenizer(bytes_, tokens, adds_bos=False, adds_eos=False, tidy=tidy)
    return PieceTokenizer(
        _sentencepiece(name, folder, config, tokens),
        tokens,
        adds_bos=read_flag(config, "add_bos_token", True, path),
        adds_eos=read_flag(config, "add_eos_token", False, path),
        tidy=tidy,
    )


def _sentencepiece(
    name: str, folder: Path, config: dict[str, Any], tokens: SpecialTokens
) -> InternLM2Vocabulary | LlamaVocabulary:
    path = folder / CONFIG_FILE
    if name == "InternLM2Tokenizer":
        return InternLM2Vocabulary(
            folder / PIECES_FILE, bos=tokens.role("bos_token"), eos=tokens.role("eos_token")
        )
    unknown = tokens.role("unk_token")
    if unknown is None:
        raise TokenizerError(f"{path}: unk_token is missing, which LlamaTokenizer needs")
    return LlamaVocabulary(
        folder / PIECES_FILE,
        legacy=read_flag(config, "legacy", True, path),
        unknown_token=unknown,
    )
