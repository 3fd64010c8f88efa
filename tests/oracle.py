"""Reads the expected values under data/oracle, which the original implementation produced."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent / "data" / "oracle"
IMAGES = FOLDER.parent / "images"
FEATURE_PICTURES = (("480x320.jpg", 1), ("320x480.jpg", 2), ("480x320.jpg", 6))


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


@dataclass(frozen=True, slots=True)
class Tiles:
    """The tiles of one picture: `sha256` is of the uint8 HWC bytes of all tiles in order."""

    image: str
    width: int
    height: int
    max_num: int
    thumbnail: bool
    tiles: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Grid:
    """The grid of an image of a size in pixels, the thumbnail left out."""

    width: int
    height: int
    min_num: int
    max_num: int
    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class Chat:
    """One `chat()` call; README.md beside the data says what each value is."""

    case: str
    pictures: list[tuple[str, int]]
    question: str
    history: list[tuple[str, str]]
    joined: bool
    tiles: list[int]
    prompt: str
    prompt_sha256: str
    ids: list[int]
    new_ids: list[int]
    gaps: list[float]
    answer: str
    positions: NDArray[np.int32]
    logits: NDArray[np.float32]
    top_ids: NDArray[np.int32]
    top_logits: NDArray[np.float32]
    final_logits: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Batch:
    """One `batch_chat()` call: `new_ids` are rows, padded after their stop token."""

    pictures: list[tuple[str, int]]
    questions: list[str]
    tiles: list[int]
    prompt_tokens: int
    new_ids: list[list[int]]
    answers: list[str]


@dataclass(frozen=True, slots=True)
class Features:
    """Parts of the tower's output and of the features of one picture; T is its tiles."""

    tower_rows: NDArray[np.float32]  # (T, 4, C), positions 0 (class), 1, 500, 1024
    rows: NDArray[np.float32]  # (T, 3, H), tokens 0, 17, 255
    token_means: NDArray[np.float32]  # (T, 256), over channels
    channel_means: NDArray[np.float32]  # (T, H), over tokens
    sums: NDArray[np.float64]  # (T,)
    square_sums: NDArray[np.float64]  # (T,)


def encodings(tokenizer: str) -> list[Encoding]:
    """The texts of one tokenizer: internlm2, qwen2, phi3, yi or llama3."""
    return [Encoding(**entry) for entry in _read("tokenization.json")[f"{tokenizer}/encode"]]


def decodings(tokenizer: str) -> list[Decoding]:
    """Random ids of one tokenizer."""
    return [Decoding(**entry) for entry in _read("tokenization.json")[f"{tokenizer}/decode"]]


def tiles() -> list[Tiles]:
    """The tiles of every picture under data/images at several limits."""
    return [Tiles(**entry) for entry in _read("tiles.json")["tiles"]]


def grids() -> list[Grid]:
    """The grids of many sizes at several limits."""
    return [Grid(*entry) for entry in _read("tiles.json")["grids"]]


def chats(miniature: str) -> list[Chat]:
    """The conversations with one miniature of `tests.miniature.MINIATURES`."""
    result = []
    for entry in _read("chats.json")[miniature]:
        if entry["case"] == "batch":
            continue
        fields = {key: entry[key] for key in entry if key not in ("runs", "prompt_tokens")}
        fields["pictures"] = [(name, maximum) for name, maximum in entry["pictures"]]
        fields["history"] = [(question, answer) for question, answer in entry["history"]]
        fields["ids"] = [number for number, count in entry["runs"] for _ in range(count)]
        fields |= _arrays(miniature, f"chats/{entry['case']}/")
        result.append(Chat(**fields))
    return result


def chat(miniature: str, case: str) -> Chat:
    """One conversation by its name."""
    return next(entry for entry in chats(miniature) if entry.case == case)


def batch(miniature: str) -> Batch:
    """The `batch_chat()` call of a miniature of a released family."""
    entry = next(entry for entry in _read("chats.json")[miniature] if entry["case"] == "batch")
    return Batch(
        pictures=[(name, maximum) for name, maximum in entry["pictures"]],
        questions=entry["questions"],
        tiles=entry["tiles"],
        prompt_tokens=entry["prompt_tokens"],
        new_ids=entry["new_ids"],
        answers=entry["answer"],
    )


def features(miniature: str, image: str, max_num: int) -> Features:
    """The features of one of FEATURE_PICTURES by a miniature."""
    return Features(**_arrays(miniature, f"features/{image}@{max_num}/"))


@cache
def _read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def _arrays(miniature: str, prefix: str) -> dict[str, NDArray[Any]]:
    with np.load(FOLDER / f"{miniature}.npz", allow_pickle=False) as archive:
        names = [name for name in archive.files if name.startswith(prefix)]
        return {name.removeprefix(prefix): archive[name] for name in names}
