"""Reads the expected values under data/oracle, which the original implementation produced."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "data" / "oracle"
IMAGES = FOLDER.parent / "images"


@dataclass(frozen=True, slots=True)
class Encoding:
    """`tokenizer(text).input_ids`, BOS included, and these decoded without special tokens."""

    text: str
    ids: list[int]
    decoded: str


@dataclass(frozen=True, slots=True)
class Decoding:
    """`tokenizer.decode(ids, skip_special_tokens=True)` of arbitrary ids."""

    ids: list[int]
    decoded: str


@cache
def _read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def encodings(tokenizer: str) -> list[Encoding]:
    """The texts of one tokenizer: internlm2, qwen2, phi3, yi or llama3."""
    return [Encoding(**entry) for entry in _read("tokenization.json")[f"{tokenizer}/encode"]]


def decodings(tokenizer: str) -> list[Decoding]:
    """Random ids of one tokenizer."""
    return [Decoding(**entry) for entry in _read("tokenization.json")[f"{tokenizer}/decode"]]
