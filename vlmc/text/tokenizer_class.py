"""The tokenizer classes of the family: which files each is read from, and how it is built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmc.errors import TokenizerError
from vlmc.text.byte_level import SPLIT_PATTERN, ByteLevelVocabulary, read_merges, read_vocabulary
from vlmc.text.fast_file import FastFile
from vlmc.text.json_file import read_flag
from vlmc.text.json_tokenizer import JsonTokenizer
from vlmc.text.piece_tokenizer import PieceTokenizer
from vlmc.text.sentencepiece_model import InternLM2Vocabulary, LlamaVocabulary, read_model
from vlmc.text.sentencepiece_proto import sentencepiece_model
from vlmc.text.special_tokens import CONFIG_FILE, FAST_FILE, SpecialTokens

PIECES_FILE = "tokenizer.model"
VOCAB_FILE = "vocab.json"
MERGES_FILE = "merges.txt"

_LLAMA_ROLES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_INTERNLM2_ROLES = {**_LLAMA_ROLES, "pad_token": "</s>"}
_QWEN2_ROLES = dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")
# By class: its default roles. TokenizersBackend is transformers 5's name of
# PreTrainedTokenizerFast.
CLASS_ROLES: Mapping[str, Mapping[str, str]] = {
    "InternLM2Tokenizer": _INTERNLM2_ROLES,
    "InternLM2TokenizerFast": _INTERNLM2_ROLES,
    "LlamaTokenizer": _LLAMA_ROLES,
    "LlamaTokenizerFast": _LLAMA_ROLES,
    "Qwen2Tokenizer": _QWEN2_ROLES,
    "Qwen2TokenizerFast": _QWEN2_ROLES,
    "PreTrainedTokenizerFast": {},
    "TokenizersBackend": {},
}
_ORIGINAL = "Copy the tokenizer files of the original checkpoint"


def build_tokenizer(
    name: str, folder: Path, config: Mapping[str, Any], tokens: SpecialTokens
) -> PieceTokenizer | JsonTokenizer:
    """The tokenizer of class `name` from the files in `folder`, `config` being its settings.

    Raises TokenizerError if files are missing, damaged or do not fit each other, or if the ids of
    the original tokenizer cannot be derived from them.
    """
    path = folder / CONFIG_FILE
    family = name.removesuffix("Fast")
    runs_json = family == "PreTrainedTokenizer" or name in (
        "Qwen2TokenizerFast",
        "TokenizersBackend",
    )
    # Cleaning is transformers 4's default for fast tokenizers alone.
    cleans = runs_json and name != "TokenizersBackend"
    tidy = read_flag(config, "clean_up_tokenization_spaces", cleans, path)
    if runs_json:
        if not (folder / FAST_FILE).is_file():
            raise TokenizerError(
                f"{folder}: {FAST_FILE} missing, which {name} needs; copy it from the checkpoint"
            )
        _check_runs_alike(folder / FAST_FILE)
        return JsonTokenizer(folder / FAST_FILE, tokens, tidy=tidy)
    if family == "Qwen2Tokenizer":
        vocabulary = _byte_level(folder, config)
        return PieceTokenizer(vocabulary, tokens, adds_bos=False, adds_eos=False, tidy=tidy)
    return _sentencepiece(family, folder, config, tokens, tidy=tidy)


def _fast_file(folder: Path, name: str, files: str) -> FastFile:
    """The tokenizer.json that replaces the original `files` of class `name`."""
    path = folder / FAST_FILE
    if not path.is_file():
        raise TokenizerError(
            f"{folder}: {files} missing, which {name} needs, and {FAST_FILE} is missing "
            f"too. {_ORIGINAL}"
        )
    return FastFile(path)


def _byte_level(folder: Path, config: Mapping[str, Any]) -> ByteLevelVocabulary:
    errors = config.get("errors") or "replace"
    if errors not in ("replace", "ignore"):
        raise TokenizerError(
            f"{folder / CONFIG_FILE}: errors is {errors!r}; it must be replace or ignore"
        )
    vocab, merges = folder / VOCAB_FILE, folder / MERGES_FILE
    missing = [path.name for path in (vocab, merges) if not path.is_file()]
    if not missing:
        return ByteLevelVocabulary(
            (vocab, read_vocabulary(vocab)), (merges, read_merges(merges)), errors=errors
        )
    fast = _fast_file(folder, "Qwen2Tokenizer", " and ".join(missing))
    fast.check_byte_level(SPLIT_PATTERN)
    return ByteLevelVocabulary((fast.path, fast.vocab), (fast.path, fast.merges), errors=errors)


def _sentencepiece(
    family: str, folder: Path, config: Mapping[str, Any], tokens: SpecialTokens, *, tidy: bool
) -> PieceTokenizer:
    bos, eos, unknown = (tokens.role(f"{role}_token") for role in ("bos", "eos", "unk"))
    path, source = folder / CONFIG_FILE, folder / PIECES_FILE
    if unknown is None:
        raise TokenizerError(f"{path}: unk_token is missing, which {family} needs. {_ORIGINAL}")
    llama, alone = family == "LlamaTokenizer", not source.is_file()
    keys = ("add_bos_token", "add_eos_token", *(("legacy",) if llama else ()))
    flags: dict[str, bool | None] = {
        key: None if config.get(key) is None else read_flag(config, key, False, path)
        for key in keys
    }
    # Beside a tokenizer.model whose settings are whole, tokenizer.json is another class's file.
    if alone or (None in flags.values() and (folder / FAST_FILE).is_file()):
        fast = _fast_file(folder, family, PIECES_FILE)
        adds_bos, adds_eos = fast.around(bos, eos)
        derived = {"add_bos_token": adds_bos, "add_eos_token": adds_eos}
        if llama:
            derived["legacy"] = fast.prefix() != "first"
        _fill_flags(flags, derived, path, strict=alone)
    if alone:
        source, added = fast.path, {token.content for token in tokens.added.values()}
        model = sentencepiece_model(fast, added, unknown=unknown, bos=bos, eos=eos)
        if not llama and fast.prefix() != "none":
            raise _prefix_error(source, "InternLM2's adds none")
        if fast.prefix() == "always":
            raise _prefix_error(source, f"the original {PIECES_FILE} may not, as Yi's")
    else:
        model = read_model(source)
    vocabulary: InternLM2Vocabulary | LlamaVocabulary
    if llama:
        for key, what in (("legacy", "spaces are added"), ("add_bos_token", f"{bos} is added")):
            if flags[key] is None:
                raise TokenizerError(
                    f"{path}: {key} is missing, so where {what} is unknown. {_ORIGINAL}"
                )
        vocabulary = LlamaVocabulary(
            source, model, legacy=bool(flags["legacy"]), unknown_token=unknown
        )
    else:
        vocabulary = InternLM2Vocabulary(source, model, bos=bos, eos=eos)
    return PieceTokenizer(
        vocabulary,
        tokens,
        # transformers 5 drops the key; every InternLM2 of the family has it on.
        adds_bos=flags["add_bos_token"] is not False,
        adds_eos=flags["add_eos_token"] is True,
        tidy=tidy,
    )


def _fill_flags(
    flags: dict[str, bool | None], derived: Mapping[str, bool], path: Path, *, strict: bool
) -> None:
    """Fill flags that tokenizer_config.json lacks with those of tokenizer.json.

    Raises:
        TokenizerError: `strict`, and the two contradict each other.
    """
    for key, value in derived.items():
        if strict and flags[key] is not None and flags[key] != value:
            raise TokenizerError(
                f"{path}: {key} is {str(flags[key]).lower()}, but {FAST_FILE} says "
                f"{str(value).lower()}. Which one the model was trained with cannot be known. "
                f"{_ORIGINAL}"
            )
        if flags[key] is None:
            flags[key] = value


def _check_runs_alike(path: Path) -> None:
    """Refuse SentencePiece's pieces under a class that runs tokenizer.json as it is."""
    fast = FastFile(path)
    if fast.is_sentencepiece and fast.prefix() != "none":
        raise _prefix_error(path, "the original's class, which decides it, is unknown")


def _prefix_error(path: Path, other: str) -> TokenizerError:
    return TokenizerError(
        f"{path}: transformers wrote it to add a space before texts; {other}. The two give "
        f"different ids, and which the model was trained with cannot be known. Copy {PIECES_FILE} "
        "of the original checkpoint beside it"
    )
