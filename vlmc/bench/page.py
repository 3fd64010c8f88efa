"""The results as a page for people: one file, no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vlmc.files.units import bytes_text
from vlmc.report import html

_STAGES = {
    "vision": "vision",
    "language_prefill": "prefill",
    "language_decode": "decode",
    "copy": "copy",
    "idle": "idle",
}


def draw_page(values: Mapping[str, Any], pictures: Sequence[str]) -> str:
    """The page of a report's JSON; `pictures` are the timelines of its cases, as SVG."""
    return html.page("vlmc bench", [*_parts(values, pictures)])


def _parts(values: Mapping[str, Any], pictures: Sequence[str]) -> Iterator[str]:
    here = values["environment"]
    device = "CPU" if here["gpu"] is None else f"{here['gpu']['name']}, driver {here['driver']}"
    yield html.paragraph(
        f"{device}; {here['cpu']}, {here['cores']} cores; vlmc {here['vlmc']}, torch "
        f"{here['torch']}, Python {here['python']}",
        dim=True,
    )
    cases = values["cases"]
    yield html.table(
        ("case", "questions a minute", "from", "to", "p50 ms", "p95 ms", "p99 ms", "memory"),
        (_rate_row(case) for case in cases),
    )
    if values["ladder"] is not None:
        yield html.heading("Levers, each on top of those before")
        yield html.table(
            ("lever", "questions a minute", "× before", "× baseline"),
            (_ladder_row(rung) for rung in values["ladder"]),
        )
    yield html.heading("Where the time goes")
    yield html.paragraph(
        "Shares of the wall time on the device; decoding and tiling of images is the share of its "
        "threads. Idle is the time without launched work."
    )
    yield html.table(
        ("case", *_STAGES.values(), "decode and tile"),
        (_stage_row(case) for case in cases),
    )
    yield html.heading("Rates")
    yield html.paragraph(
        "TFLOP/s while each half runs, and over the whole time; in brackets the share of a matrix "
        "product of the same dtype that was measured in this run."
    )
    yield html.table(
        ("case", "vision", "language", "whole", "tokens computed", "reused", "per million images"),
        (_flops_row(case) for case in cases),
    )
    yield from map(html.picture, pictures)
    yield html.heading("Options")
    yield html.table(
        ("option", "value"),
        ((name, str(value)) for name, value in values["options"].items()),
        texts=True,
    )


def _rate_row(case: Mapping[str, Any]) -> list[str]:
    qpm, latency, memory = case["qpm"], case["latency_ms"], case["peak_memory_bytes"]
    return [
        case["name"],
        *(f"{qpm[key]:,.0f}" for key in ("median", "min", "max")),
        *(f"{latency[key]:,.0f}" for key in ("p50", "p95", "p99")),
        "-" if memory is None else bytes_text(memory),
    ]


def _ladder_row(rung: Mapping[str, Any]) -> list[str]:
    if rung["qpm"] is None:
        return [f"{rung['title']} (not shown: {rung['missing']})", "-", "-", "-"]
    ratios = (rung["of_previous"], rung["of_baseline"])
    texts = ("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios)
    return [rung["title"], f"{rung['qpm']:,.0f}", *texts]


def _stage_row(case: Mapping[str, Any]) -> list[str]:
    shares = (f"{case['stages'][name]['share']:.1%}" for name in _STAGES)
    return [case["name"], *shares, f"{case['image_workers']['share']:.1%}"]


def _flops_row(case: Mapping[str, Any]) -> list[str]:
    rates = []
    for half in ("vision", "language", "whole"):
        rate = case["rate"][half]
        known = rate["tflops"] is not None
        rates.append(f"{rate['tflops']:,.2f} ({rate['of_peak']:.1%})" if known else "-")
    cost = case.get("cost_per_million_images")
    return [
        case["name"],
        *rates,
        f"{case['counts']['prompt_tokens_computed']:,}",
        f"{case['counts']['prompt_tokens_reused']:,}",
        "-" if cost is None else f"{cost:,.2f}",
    ]
