"""What a random model computes in, and which engine runs its tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from vlmc.bench.synthetic.tower import DTYPES
from vlmc.errors import HardwareError, UsageError
from vlmc.models.language.random_weights import LanguagePrecision

EngineKind = Literal["inductor", "eager"]
EAGER: EngineKind = "eager"


@dataclass(frozen=True, slots=True)
class Precisions:
    """Of the language model, and of the vision tower beside it."""

    language: LanguagePrecision
    vision: str


def read_precisions(language: str, vision: str) -> list[Precisions]:
    """Pairs from lists with commas; one tower precision goes with every language model's.

    Raises:
        UsageError: a precision is unknown, or the lists do not fit.
    """
    languages: list[Any] = _listed("--language", language, get_args(LanguagePrecision))
    towers = _listed("--vision", vision, tuple(DTYPES))
    if len(towers) == 1:
        towers *= len(languages)
    if len(towers) != len(languages):
        raise UsageError(
            f"--language has {len(languages)} precisions and --vision {len(towers)}; give one "
            "--vision, or one for each"
        )
    return [Precisions(*pair) for pair in zip(languages, towers, strict=True)]


def engine_kind(name: str | None, device: torch.device) -> EngineKind:
    """The engine of a random tower: compiled on a GPU, plain torch on a CPU.

    Raises:
        UsageError: random towers have no such engine.
        HardwareError: the device cannot run it.
    """
    if name is None:
        return "inductor" if device.type == "cuda" else "eager"
    if name not in get_args(EngineKind):
        raise UsageError(
            f"--engine is {name!r}, and a random tower runs in {' or '.join(get_args(EngineKind))}"
        )
    if name == "inductor" and device.type != "cuda":
        raise HardwareError(
            f"inductor runs on GPUs, and the device is {device}. Give --engine eager, or another "
            "--device."
        )
    return "inductor" if name == "inductor" else "eager"


def _listed(option: str, text: str, known: tuple[str, ...]) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if part not in known:
            raise UsageError(f"{option} is {part!r}; it takes {', '.join(known)}")
    return parts
