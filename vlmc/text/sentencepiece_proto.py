"""A SentencePiece model from the pieces and merges of a tokenizer.json.

The library then encodes and decodes it by the same rules as the original `tokenizer.model`. It is
written as protobuf by hand (field numbers of sentencepiece_model.proto), which saves a dependency.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection

from vlmc.text.fast_file import FastFile

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6
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
        kind = _NORMAL
        if piece == unknown:
            kind = _UNKNOWN
        elif piece in added:
            kind = _CONTROL
        elif _BYTE_PIECE.match(piece):
            kind = _BYTE
        elif piece.startswith(UNUSED_PIECE):
            kind = _USER_DEFINED
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
