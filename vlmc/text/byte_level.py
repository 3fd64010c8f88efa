"""Qwen2's byte-level BPE (1B), from vocab.json and merges.txt."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from vlmc.errors import TokenizerError
from vlmc.files.bounded_read import read_bytes
from vlmc.text.json_file import MAX_BYTES, read_json_object

# Qwen2's own rule: contractions, words with one leading mark, single digits, punctuation with
# the line ends after it, line ends, spaces up to the last before a word.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_characters() -> dict[int, str]:
    """The printable character that represents each byte in the vocabulary (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    table = {byte: chr(byte) for byte in printable}
    return table | {byte: chr(256 + place) for place, byte in enumerate(others)}


_CHARACTER_BYTES = {character: byte for byte, character in byte_characters().items()}


class ByteLevelVocabulary:
    """Pieces are byte strings spelled in printable characters; every text can be encoded."""

    joiner = ""
    drops_lone_space = False

    def __init__(
        self,
        pieces: tuple[Path, Mapping[str, int]],
        pairs: tuple[Path, Sequence[tuple[str, str]]],
        *,
        errors: str,
    ) -> None:
        """Pieces and merges, each with the file that they come from.

        `errors` is how bytes are decoded.

        Raises TokenizerError if pieces and merges do not fit each other.
        """
        self.path, ids = pieces
        self._ids = dict(ids)
        _check_bytes(self._ids, self.path)
        # The slow tokenizer takes every line of merges.txt that begins with "#" for a comment, so
        # merges whose first half begins with "#" never happen. InternVL2-1B was trained with that.
        merges_path = pairs[0]
        merges = [pair for pair in pairs[1] if not pair[0].startswith("#")]
        self._pieces = {number: piece for piece, number in self._ids.items()}
        self.size = len(self._ids)
        self._errors = errors
        _check_complete(self._ids, merges, merges_path)
        try:
            self.model = models.BPE(vocab=self._ids, merges=merges)
        except Exception as error:
            raise TokenizerError(
                f"{merges_path}: does not belong to {self.path.name} ({error}); copy the tokenizer "
                "files from the checkpoint again"
            ) from error
        self._tokenizer = Tokenizer(self.model)
        self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )

    def find(self, piece: str) -> int | None:
        """The id of a piece by its exact name."""
        return self._ids.get(piece)

    def piece(self, number: int) -> str:
        """The name of piece `number` < `size`."""
        return self._pieces[number]

    def is_free(self, number: int) -> bool:
        """Whether a piece may be renamed: never, since each one is a byte string."""
        return False

    def prepare(self, text: str) -> str:
        """NFC over the whole text, so also across the ends of added tokens."""
        return unicodedata.normalize("NFC", text)

    def encode(self, segment: str) -> list[int]:
        """Ids of a text between added tokens."""
        return self._tokenizer.encode(segment, add_special_tokens=False).ids

    def text(self, tokens: Sequence[str], special: frozenset[str]) -> str:
        """Text of names of pieces and special tokens; broken UTF-8 becomes U+FFFD."""
        joined = bytearray()
        for token in tokens:
            if token in special:
                joined += token.encode()
            else:
                joined += bytes(_CHARACTER_BYTES[character] for character in token)
        return joined.decode("utf-8", errors=self._errors)


def read_vocabulary(path: Path) -> dict[str, int]:
    """The pieces of vocab.json. Raises TokenizerError if it is damaged."""
    ids = read_json_object(path)
    numbers = {number for number in ids.values() if isinstance(number, int)}
    if numbers != set(range(len(ids))):
        raise TokenizerError(
            f"{path}: the ids of its {len(ids)} pieces are not 0 to {len(ids) - 1}; the file is "
            "damaged. Copy it from the checkpoint again"
        )
    return ids


def _check_bytes(ids: Mapping[str, int], path: Path) -> None:
    """Every byte is a piece, and every piece is spelled in bytes."""
    missing = [character for character in _CHARACTER_BYTES if character not in ids]
    if missing:
        raise TokenizerError(
            f"{path}: {len(missing)} of the 256 bytes have no piece, first {missing[0]!r}; the "
            "file is damaged or is not a byte-level vocabulary. Copy it from the checkpoint again"
        )
    strange = next((piece for piece in ids if not _CHARACTER_BYTES.keys() >= set(piece)), None)
    if strange is not None:
        raise TokenizerError(
            f"{path}: the piece {strange!r} is not spelled in byte characters; the file is "
            "damaged or is not a byte-level vocabulary. Copy it from the checkpoint again"
        )


def read_merges(path: Path) -> list[tuple[str, str]]:
    """The pairs of merges.txt. Raises TokenizerError if it is damaged."""
    try:
        lines = read_bytes(path, MAX_BYTES).decode().split("\n")
    except (OSError, ValueError) as error:
        raise TokenizerError(
            f"{path}: cannot be read as text ({error}); copy it from the checkpoint again"
        ) from error
    merges: list[tuple[str, str]] = []
    for number, line in enumerate(lines, start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        pair = line.split()
        if len(pair) != 2:
            raise TokenizerError(
                f"{path}:{number}: {line!r} is not a pair of pieces; copy the file again"
            )
        merges.append((pair[0], pair[1]))
    return merges


def _check_complete(ids: Mapping[str, int], merges: Sequence[tuple[str, str]], path: Path) -> None:
    """Each piece longer than a byte is made by a merge, but for those the "#" rule leaves out."""
    made = {left + right for left, right in merges}
    never = [piece for piece in ids if len(piece) > 1 and piece not in made and piece[0] != "#"]
    if never:
        raise TokenizerError(
            f"{path}: no merge makes {len(never)} of the vocabulary's pieces, first "
            f"{never[0]!r}; the file is cut off. Copy it from the checkpoint again"
        )
