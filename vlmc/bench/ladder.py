"""The six levers of the public report, one after another, each on top of those before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from vlmc.image.tiles import TileRule

Lever = Literal["baseline", "resampler", "engine", "features", "graphs", "tiles", "quantization"]


@dataclass(frozen=True, slots=True)
class Setting:
    """How a model is assembled."""

    tiles: TileRule
    resampler: Literal["opencv", "pillow"] = "pillow"
    eager: bool = True
    through_cpu: bool = True
    cuda_graphs: bool = False
    quantized: bool = False


@dataclass(frozen=True, slots=True)
class Rung:
    """A lever, the setting once it is pulled, and why it cannot be shown here, if so."""

    lever: Lever
    title: str
    setting: Setting
    missing: str | None


_TITLES: dict[Lever, str] = {
    "baseline": "Pillow, eager tower, features through the CPU, no CUDA graphs, original tiles",
    "resampler": "OpenCV instead of Pillow",
    "engine": "engine instead of the eager tower",
    "features": "features stay on the device",
    "graphs": "CUDA graphs",
    "tiles": "fewer tiles",
    "quantization": "quantized",
}


def rungs(first: TileRule, last: TileRule, missing: Mapping[Lever, str]) -> list[Rung]:
    """The whole ladder from the tile rule `first` to `last`; `missing` are levers that cannot be
    pulled here, with the reason. What follows stands on the others."""
    setting = Setting(tiles=first)
    changes: dict[Lever, dict[str, Any]] = {
        "baseline": {},
        "resampler": {"resampler": "opencv"},
        "engine": {"eager": False},
        "features": {"through_cpu": False},
        "graphs": {"cuda_graphs": True},
        "tiles": {"tiles": last},
        "quantization": {"quantized": True},
    }
    found = []
    for lever, change in changes.items():
        if lever not in missing:
            setting = replace(setting, **change)
        title = f"{_TITLES[lever]}: {last}" if lever == "tiles" else _TITLES[lever]
        found.append(Rung(lever, title, setting, missing.get(lever)))
    return found


def ladder_values(
    ladder: Sequence[Rung], cases: Mapping[Lever, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The JSON form: each lever with its rate, and that as a multiple of the one before and of the
    baseline. `cases` are the summaries of the levers that were measured."""
    values: list[dict[str, Any]] = []
    first = before = None
    for rung in ladder:
        case = cases.get(rung.lever)
        qpm = None if case is None else case["qpm"]["median"]
        values.append(
            {
                "lever": rung.lever,
                "title": rung.title,
                "missing": rung.missing,
                "qpm": qpm,
                "of_previous": qpm / before if qpm and before else None,
                "of_baseline": qpm / first if qpm and first else None,
            }
        )
        if qpm is not None:
            before = qpm
            first = first or qpm
    return values


def ladder_lines(values: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The ladder for people."""
    yield "ladder: questions a minute, times the lever before, times the baseline"
    for rung in values:
        if rung["qpm"] is None:
            yield f"  not shown: {rung['title']}: {rung['missing']}"
            continue
        ratios = "".join(
            f"  {rung[key]:.2f} ×" if rung[key] else "" for key in ("of_previous", "of_baseline")
        )
        yield f"  {rung['qpm']:10,.0f}{ratios}  {rung['title']}"
