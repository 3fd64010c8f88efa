"""What a tokenizer.json says, for tokenizers whose original files are missing.

transformers 5 saves a tokenizer as tokenizer.json alone. Run as it is, that file gives other ids
than the original tokenizer, which the released models were trained with: spaces and the prefix
move. So vlmc takes the vocabulary and the rules from it, and tokenizes as the original does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from vlmc.errors import TokenizerError
from vlmc.text.json_file import read_json_object

SPACE = "▁"
Prefix = Literal["none", "first", "always"]


class FastFile:
    """A tokenizer.json whose model is a BPE; each part is checked on access.

    Raises:
        TokenizerError: the file is damaged, or its model is of another kind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values = read_json_object(path)
        model = self._values.get("model")
        vocab = model.get("vocab") if isinstance(model, Mapping) else None
        if not isinstance(model, Mapping) or not isinstance(vocab, Mapping):
            raise TokenizerError(f"{path}: it has no model with a vocab; copy the file again")
        if model.get("type", "BPE") != "BPE" or model.get("dropout"):
            raise TokenizerError(
                f"{path}: its model is {model.get('type')!r} with dropout {model.get('dropout')!r},"
                " InternVL2's tokenizers are BPE without. Copy the original tokenizer files"
            )
        self._model, self._vocab = model, vocab
        self.is_sentencepiece = model.get("byte_fallback") is True

    @property
    def vocab(self) -> Mapping[str, int]:
        """The pieces, with the ids 0 to their number - 1."""
        if {n for n in self._vocab.values() if type(n) is int} != set(range(len(self._vocab))):
            raise TokenizerError(
                f"{self.path}: the ids of its {len(self._vocab)} pieces are not 0 to "
                f"{len(self._vocab) - 1}; the file is damaged. Copy it again"
            )
        return self._vocab

    @property
    def merges(self) -> list[tuple[str, str]]:
        """Pairs of pieces, the first to be joined first."""
        return [_merge(entry, self.path) for entry in self._model.get("merges") or []]

    def around(self, bos: str | None, eos: str | None) -> tuple[bool, bool]:
        """Whether `bos` is put before every text, and `eos` after it.

        Raises:
            TokenizerError: something else is.
        """
        found = [
            part
            for part in _parts(self._values.get("post_processor"), "processors")
            if not (isinstance(part, Mapping) and part.get("type") == "ByteLevel")
        ]
        if not found:
            return False, False
        names: list[str | None] = []
        if len(found) == 1 and isinstance(found[0], Mapping):
            for item in found[0].get("single") or []:
                token = item.get("SpecialToken") if isinstance(item, Mapping) else None
                names.append(token.get("id") if isinstance(token, Mapping) else None)
        for before in (False, True):
            for after in (False, True):
                if names == [*([bos] if before else []), None, *([eos] if after else [])]:
                    return before, after
        raise TokenizerError(
            f"{self.path}: its post_processor puts {names} around a text, where None is the text; "
            f"BOS is {bos!r} and EOS {eos!r}. Copy the tokenizer files of the original checkpoint"
        )

    def prefix(self) -> Prefix:
        """Where a space is put in front: nowhere, at the text's start, or after each added token.

        Raises:
            TokenizerError: the file changes texts in another way.
        """
        kinds: list[str] = []
        normalizer, metaspace = self._values.get("normalizer"), self._values.get("pre_tokenizer")
        if normalizer is not None:
            parts = _parts(normalizer, "normalizers")
            *before, last = parts or [None]
            if last != {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}:
                raise self._unknown("normalizer")
            if before not in ([], [{"type": "Prepend", "prepend": SPACE}]):
                raise self._unknown("normalizer")
            kinds.append("always" if before else "never")
        if metaspace is not None:
            if not isinstance(metaspace, Mapping):
                raise self._unknown("pre_tokenizer")
            if metaspace.get("type") != "Metaspace" or metaspace.get("replacement") != SPACE:
                raise self._unknown("pre_tokenizer")
            if metaspace.get("split") is not False:
                raise self._unknown("pre_tokenizer.split")
            kinds.append(str(metaspace.get("prepend_scheme")))
        match kinds:
            case ["never"]:
                return "none"
            case ["first"]:
                return "first"
            case ["always"]:
                return "always"
        raise self._unknown("pre_tokenizer")

    def check_byte_level(self, pattern: str) -> None:
        """Refuse another split than Qwen2's into words, or another change of the text than NFC.

        Raises:
            TokenizerError: names the part.
        """
        if self._values.get("normalizer") != {"type": "NFC"}:
            raise self._unknown("normalizer")
        split, *rest = _parts(self._values.get("pre_tokenizer"), "pretokenizers") or [None]
        if not isinstance(split, Mapping) or split.get("pattern") != {"Regex": pattern}:
            raise self._unknown("pre_tokenizer")
        if split.get("behavior") != "Isolated" or split.get("invert") or len(rest) != 1:
            raise self._unknown("pre_tokenizer")
        last = rest[0] if isinstance(rest[0], Mapping) else {}
        if last.get("type") != "ByteLevel" or last.get("add_prefix_space") or last.get("use_regex"):
            raise self._unknown("pre_tokenizer")

    def _unknown(self, part: str) -> TokenizerError:
        return TokenizerError(
            f"{self.path}: its {part} is not one that transformers writes for this tokenizer, so "
            "the ids of the original cannot be derived from it. Copy the tokenizer files of the "
            "original checkpoint"
        )


def _merge(entry: Any, path: Path) -> tuple[str, str]:
    pair = entry.split(" ") if isinstance(entry, str) else entry
    if isinstance(pair, list) and len(pair) == 2 and all(isinstance(half, str) for half in pair):
        return pair[0], pair[1]
    raise TokenizerError(f"{path}: the merge {entry!r:.100} is not a pair of pieces")


def _parts(value: Any, key: str) -> list[Any]:
    """The parts of a sequence in the file, or the one thing that is not a sequence."""
    if value is None:
        return []
    if isinstance(value, Mapping) and value.get("type") == "Sequence":
        parts = value.get(key)
        return list(parts) if isinstance(parts, list) else []
    return [value]
