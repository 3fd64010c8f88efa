"""What a build tells whoever watches it, as values; a live view and plain lines both show them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepsPlanned:
    """The steps that follow, in order; told once, first."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepWaiting:
    """Another build is making the step; this one waits, and takes over if that one ends."""

    name: str


@dataclass(frozen=True, slots=True)
class StepDamaged:
    """The cache's entry is not what was stored; it is dropped and made again."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class StepStarted:
    """The work begins."""

    name: str


@dataclass(frozen=True, slots=True)
class StepProgress:
    """How far the work is, such as `layer 3 of 32`."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class StepCached:
    """The cache has the step: it took `seconds` and a peak of so many bytes when it was made."""

    name: str
    seconds: float
    peak_memory_bytes: int | None
    bytes: int  # on disk


@dataclass(frozen=True, slots=True)
class StepDone:
    """The work is done and stored; `peak_memory_bytes` is None where the system does not tell."""

    name: str
    seconds: float
    peak_memory_bytes: int | None
    bytes: int  # on disk


@dataclass(frozen=True, slots=True)
class Note:
    """Anything else worth a line."""

    text: str


Event = (
    StepsPlanned
    | StepWaiting
    | StepDamaged
    | StepStarted
    | StepProgress
    | StepCached
    | StepDone
    | Note
)
Report = Callable[[Event], None]


def plain_line(event: Event) -> str:
    """The event as one line of text."""
    match event:
        case StepsPlanned(names):
            return f"steps: {', '.join(names)}"
        case StepWaiting(name):
            return f"{name}: another build is making it, waiting"
        case StepDamaged(name, reason):
            return f"{name}: the cache's entry is damaged ({reason}), making it again"
        case StepStarted(name):
            return f"{name}: started"
        case StepProgress(name, text):
            return f"{name}: {text}"
        case StepCached(name, seconds, _, size):
            return f"{name}: cached, {_mebibytes(size)} (took {seconds:.1f} s)"
        case StepDone(name, seconds, peak, size):
            memory = "" if peak is None else f", memory peak {_mebibytes(peak)}"
            return f"{name}: done in {seconds:.1f} s, {_mebibytes(size)}{memory}"
        case Note(text):
            return text


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"
