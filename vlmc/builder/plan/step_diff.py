"""Why a step is not in the cache: what it is made of against the most similar earlier step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vlmc.builder.steps.step import Step
from vlmc.builder.store.step_cache import CachedStep

_PARTS = ("inputs", "parameters", "tools")


def nearest(step: Step, earlier: Iterable[CachedStep]) -> CachedStep | None:
    """The entry that differs in the fewest places; of equal ones the newest."""
    return min(
        earlier,
        key=lambda entry: (len(_differences(step.key_parts, entry.key_parts)), -entry.created),
        default=None,
    )


def changes(step: Step, earlier: CachedStep, names: Mapping[str, str]) -> list[str]:
    """What changed since `earlier`, each as a text. `names` are steps by key: an input that is
    another step's key changed because that step did.
    """
    return [
        _text(part, label, before, now, names)
        for part, label, before, now in _differences(step.key_parts, earlier.key_parts)
    ]


def _differences(
    now: Mapping[str, Any], before: Mapping[str, Any]
) -> list[tuple[str, str, object, object]]:
    """Part, label, value before and value now; None where it is absent."""
    return [*_walk(now, before)]


def _walk(
    now: Mapping[str, Any], before: Mapping[str, Any]
) -> Iterator[tuple[str, str, object, object]]:
    if before.get("version") != now["version"]:
        yield "version", "", before.get("version"), now["version"]
    for part in _PARTS:
        ours, theirs = now[part], before.get(part, {})
        for label in sorted({*ours, *theirs}):
            if ours.get(label) != theirs.get(label):
                yield part, label, theirs.get(label), ours.get(label)


def _text(part: str, label: str, before: object, now: object, names: Mapping[str, str]) -> str:
    if part == "version":
        return f"the step itself changed, version {before} → {now}"
    if part == "inputs":
        if isinstance(now, str) and now in names:
            return f"{names[now]} is rebuilt"
        verb = "is new" if before is None else "is gone" if now is None else "changed"
        return f"{label} {verb}"
    if isinstance(now, dict) or isinstance(before, dict):
        return f"{label} changed"
    return f"{label} {before} → {now}"
