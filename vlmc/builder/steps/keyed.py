"""A checkpoint that a step may read, and the same values in the step's key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, is_dataclass, replace
from typing import Any, TypeVar

from vlmc.checkpoint.source import Checkpoint

T = TypeVar("T")

TOWER = ("vision", "select_layer", "pixel_shuffle", "language.hidden_size")
"""What the vision tower and its projector are made of, beside weights."""
LANGUAGE_WEIGHTS = (
    "quantization",
    *(
        f"language.{name}"
        for name in (
            "architecture",
            "hidden_size",
            "layers",
            "heads",
            "kv_heads",
            "head_dim",
            "intermediate_size",
            "vocab_size",
            "qkv_bias",
            "output_bias",
        )
    ),
)
"""What the language model's weights are laid out by; how it computes is in its settings."""


def keyed(checkpoint: Checkpoint, names: Iterable[str]) -> tuple[Checkpoint, dict[str, object]]:
    """The checkpoint with these values of its configuration alone, and the values for the key.

    A step whose work reads another value fails with an AttributeError, so that no value can
    change what a step writes and leave its key. Names such as `language.layers` are nested.
    """
    listed = tuple(names)
    values = {name.rpartition(".")[2]: _plain(_value(checkpoint.config, name)) for name in listed}
    return replace(checkpoint, config=_only(checkpoint.config, listed)), values


def _value(config: object, name: str) -> Any:
    for part in name.split("."):
        config = getattr(config, part)
    return config


def _plain(value: Any) -> object:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _only(value: T, names: Iterable[str]) -> T:
    """A copy of a frozen dataclass in which the other fields are not set."""
    below: dict[str, list[str]] = {}
    for name in names:
        first, _, rest = name.partition(".")
        below.setdefault(first, []).extend([rest] if rest else [])
    made = object.__new__(type(value))
    for name, nested in below.items():
        whole = getattr(value, name)
        object.__setattr__(made, name, _only(whole, nested) if nested else whole)
    return made
