"""The events that long work reports, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepsPlanned:
    """The steps of a build that follow, in order; reported once, first."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepWaiting:
    """Another build runs the step; this one waits, and runs it if the other one ends without."""

    name: str


@dataclass(frozen=True, slots=True)
class StepDamaged:
    """The cache's entry differs from what was stored; it is removed and the step runs again."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class StepStarted:
    """The work begins."""

    name: str


@dataclass(frozen=True, slots=True)
class StepCached:
    """The cache holds the step: it took `seconds` and a peak of so many bytes when it ran."""

    name: str
    seconds: float
    peak_memory_bytes: int | None
    bytes: int  # on disk


@dataclass(frozen=True, slots=True)
class StepDone:
    """The step ran and is stored; `peak_memory_bytes` is None where the system has no figure."""

    name: str
    seconds: float
    peak_memory_bytes: int | None
    bytes: int  # on disk


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work is; each event replaces the one before of the same step or `text`.

    Counted work has `done` of `total` things, which `text` names in the plural, such as `tiles`;
    `errors` of them failed. `step` is the step of a build that reports it. `shares` are how many
    things each of several workers has done.
    """

    text: str
    done: int | None = None
    total: int | None = None
    errors: int = 0
    step: str | None = None
    shares: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Note:
    """A line that you have to read, such as that work takes long or runs in another way."""

    text: str
    step: str | None = None


Event = (
    StepsPlanned | StepWaiting | StepDamaged | StepStarted | StepCached | StepDone | Progress | Note
)
