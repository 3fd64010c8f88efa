"""Rotary positions in a config.json, as transformers 4 and 5 write them.

Transformers 4 has `rope_theta` and `rope_scaling` side by side; 5 has `rope_parameters` with both
in one object, and its remote classes still write `rope_theta` beside it. Values that are given
twice have to agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from vlmc.checkpoint.config_section import Section
from vlmc.errors import CheckpointError

_KINDS = ("linear", "dynamic", "su", "longrope", "default")


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """`dynamic` is the NTK rule of InternLM2, `longrope` the `su` factors of Phi-3."""

    kind: Literal["none", "linear", "dynamic", "longrope"] = "none"
    factor: float = 1.0
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()
    original_positions: int = 0


def read_rope(section: Section, head_dim: int, max_positions: int) -> tuple[float, RopeScaling]:
    """Base and scaling of the language model in `section`.

    Raises:
        CheckpointError: a value is missing, given twice with different values, or of a kind that
            vlmc does not compute.
    """
    rope = _rope_section(section)
    theta = _shared(section, rope, "rope_theta")
    partial = _shared(section, rope, "partial_rotary_factor")
    if partial.get("partial_rotary_factor") not in (None, 1):
        found = partial.get("partial_rotary_factor")
        raise partial.fail("partial_rotary_factor", found, "1, which is whole heads that rotate")
    scaling = RopeScaling() if rope is None else _scaling(section, rope, head_dim, max_positions)
    if rope is not None:
        rope.refuse_unread(())
    return theta.number("rope_theta"), scaling


def attention_factor(max_positions: int, original_positions: int) -> float:
    """What Phi-3 scales cosines and sines by, whichever factors are in use."""
    if max_positions <= original_positions:
        return 1.0
    ratio = max_positions / original_positions
    return math.sqrt(1 + math.log(ratio) / math.log(original_positions))


def _rope_section(section: Section) -> Section | None:
    """The object of either name. Both may be given if they agree in what both say."""
    given = [
        key for key in ("rope_scaling", "rope_parameters") if section.get(key) not in (None, {})
    ]
    if len(given) < 2:
        return section.section(given[0]) if given else None
    first, second = section.section("rope_scaling"), section.section("rope_parameters")
    differing = sorted(
        key
        for key in first.values.keys() & second.values.keys()
        if first.values[key] != second.values[key]
    )
    if differing:
        key = differing[0]
        raise _contradiction(first, second, key)
    return Section({**first.values, **second.values}, second.path, second.prefix)


def _shared(section: Section, rope: Section | None, key: str) -> Section:
    """Where a key is that may be beside the rope's object, in it, or in both with one value."""
    beside = section.get(key)
    if rope is None or rope.get(key) is None:
        return section
    if beside is not None and beside != rope.get(key):
        raise _contradiction(section, rope, key)
    return rope


def _scaling(section: Section, rope: Section, head_dim: int, max_positions: int) -> RopeScaling:
    given = [key for key in ("type", "rope_type") if key in rope.values]
    kinds = {rope.choice(key, _KINDS) for key in given or ["rope_type"]}
    # The old and the new name of Phi-3's rule; the newer file has both.
    kinds = {"longrope" if kind == "su" else kind for kind in kinds}
    if len(kinds) > 1:
        raise CheckpointError(
            f"{rope.path}: {rope.prefix}type is {rope.values['type']!r}, but its rope_type is "
            f"{rope.values['rope_type']!r}. Which one the model was trained with cannot be known. "
            "Remove the wrong one."
        )
    kind = kinds.pop()
    if kind == "default":
        return RopeScaling()
    if kind == "longrope":
        return _longrope(section, rope, head_dim, max_positions)
    original = rope.get("original_max_position_embeddings")
    if original not in (None, max_positions):
        expected = f"{max_positions} as max_position_embeddings, which the rule is computed from"
        raise rope.fail("original_max_position_embeddings", original, expected)
    return RopeScaling(
        kind="linear" if kind == "linear" else "dynamic", factor=rope.number("factor")
    )


def _longrope(section: Section, rope: Section, head_dim: int, max_positions: int) -> RopeScaling:
    holder = _shared(section, rope, "original_max_position_embeddings")
    original = holder.integer("original_max_position_embeddings", least=2)
    scaled = attention_factor(max_positions, original)
    for key, expected in (("factor", max_positions / original), ("attention_factor", scaled)):
        found = rope.get(key)
        if found is not None and not (
            isinstance(found, int | float) and math.isclose(found, expected, rel_tol=1e-6)
        ):
            raise rope.fail(
                key,
                found,
                f"{expected:.7g}, as max_position_embeddings {max_positions} and "
                f"original_max_position_embeddings {original} make it, or no such key",
            )
    return RopeScaling(
        kind="longrope",
        short_factor=rope.numbers("short_factor", head_dim // 2),
        long_factor=rope.numbers("long_factor", head_dim // 2),
        original_positions=original,
    )


def _contradiction(first: Section, second: Section, key: str) -> CheckpointError:
    return CheckpointError(
        f"{first.path}: {first.prefix}{key} is {first.values[key]!r:.200}, but "
        f"{second.prefix}{key} is {second.values[key]!r:.200}. Which one the model was trained "
        "with cannot be known. Remove the wrong one."
    )
