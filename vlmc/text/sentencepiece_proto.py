"""SentencePiece models as protobuf: written from a tokenizer.json, and read for its pieces.

The library encodes and decodes a written model by the same rules as the original
`tokenizer.model`. Field numbers are those of sentencepiece_model.proto; reading and writing them
here saves a dependency.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from vlmc.text.fast_file import FastFile

NORMAL, USER_DEFINED = 1, 4
_UNKNOWN, _CONTROL, _BYTE = 2, 3, 6
_BPE = 2
_BYTE_PIECE = re.compile(r"^<0x[0-9A-F]{2}>$")
UNUSED_PIECE = "[UNUSED_TOKEN_"


def sentencepiece_model(
    fast: FastFile, added: Collection[str], *, unknown: str, bos: str | None, eos: str | None
) -> bytes:
    """The serialized model, which adds no space in front and keeps every space.

    Args:
        added: names of added tokens. Those among the pieces never come from text.
    """
    # The rule joins the pair whose piece has the highest score; merges are in that order.
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(fast.merges):
        ranks.setdefault(left + right, rank)
    data = bytearray()
    for piece, number in sorted(fast.vocab.items(), key=lambda item: item[1]):
        kind = NORMAL
        if piece == unknown:
            kind = _UNKNOWN
        elif piece in added:
            kind = _CONTROL
        elif _BYTE_PIECE.match(piece):
            kind = _BYTE
        elif piece.startswith(UNUSED_PIECE):
            kind = USER_DEFINED
        score = -float(ranks.get(piece, len(ranks) + number))
        data += _field(1, _field(1, piece.encode()) + _float(2, score) + _number(3, kind))
    trainer = _number(3, _BPE) + _number(35, 1)  # byte_fallback
    for field, piece_field, name in ((40, 45, unknown), (41, 46, bos), (42, 47, eos)):
        number_or_none = None if name is None else fast.vocab.get(name)
        if name is None or number_or_none is None:
            trainer += _number(field, -1)
        else:
            trainer += _number(field, number_or_none) + _field(piece_field, name.encode())
    normalizer = _field(1, b"identity") + _number(3, 0) + _number(4, 0)
    return bytes(data + _field(2, trainer) + _field(3, normalizer))


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a SentencePiece model; `kind` is its type in the protobuf."""

    text: str
    score: float
    kind: int


def read_pieces(model: bytes) -> list[Piece]:
    """The pieces of a serialized model that the library has loaded, by id."""
    pieces = []
    for field, value in _fields(model):
        if field == 1 and isinstance(value, bytes):
            parts = dict(_fields(value))
            text, score, kind = parts.get(1, b""), parts.get(2, b"\0" * 4), parts.get(3, NORMAL)
            if isinstance(text, bytes) and isinstance(score, bytes) and isinstance(kind, int):
                pieces.append(Piece(text.decode(), struct.unpack("<f", score)[0], kind))
    return pieces


def changes_text(model: bytes) -> bool:
    """Whether the model replaces or drops characters before it looks up pieces."""
    normalizer = b"".join(
        value for field, value in _fields(model) if field == 3 and isinstance(value, bytes)
    )
    parts = dict(_fields(normalizer))
    # Replacements of characters; spaces dropped, which is the default; spaces kept as they are.
    return bool(parts.get(2, b"") or parts.get(4, 1) or not parts.get(5, 1))


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a message's fields; a value is a varint or its bytes."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        size = varint() if kind == 2 else {1: 8, 5: 4}[kind]
        yield key >> 3, data[place : place + size]
        place += size


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers are written as 64 bits
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _field(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value
