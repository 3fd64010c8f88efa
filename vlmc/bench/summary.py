"""What a measurement found, as values of its JSON and as lines for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vlmc.bench.measure import Measured
from vlmc.bench.peak import Peaks
from vlmc.runtime.images.worker_pool import thread_count

_LABELS = {
    "language_prefill": "prefill",
    "language_decode": "decode",
    "vision": "vision",
    "copy": "copy",
    "idle": "idle",
}


def summarize(measured: Measured, peaks: Peaks, price_per_hour: float | None) -> dict[str, Any]:
    """Rates, latencies, stages and counts. Times and counts are sums over all runs; the shares of
    `stages` add up to 1."""
    runs, subject, workload = measured.runs, measured.subject, measured.workload
    wall = sum(run.wall for run in runs)
    requests = sum(run.requests for run in runs)
    stages = {name: sum(run.stages[name] for run in runs) for name in runs[0].stages}
    worker_seconds = sum(run.worker_seconds for run in runs)
    latencies = sorted(value for run in runs for value in run.latencies)
    computed = sum(run.tokens_computed for run in runs)
    reused = sum(run.tokens_reused for run in runs)
    values: dict[str, Any] = {
        "name": subject.name,
        "subject": subject.description,
        "workload": {
            "images": len(workload.images),
            "questions": list(workload.questions),
            "requests": workload.requests,
            "choices": None if workload.choices is None else list(workload.choices),
            "max_new_tokens": None if workload.choices else workload.max_new_tokens,
            "tiles_an_image": _ratio(
                sum(r.tiles for r in runs), sum(r.images_decoded for r in runs)
            ),
            "prompt_tokens_a_request": (computed + reused) / requests,
        },
        "runs": [{"requests": run.requests, "seconds": run.wall, "qpm": run.qpm} for run in runs],
        "qpm": {
            "median": measured.qpm,
            "min": min(run.qpm for run in runs),
            "max": max(run.qpm for run in runs),
        },
        "latency_ms": {f"p{p}": 1e3 * percentile(latencies, p) for p in (50, 95, 99)},
        "stages": {
            name: {"seconds": seconds, "share": seconds / wall} for name, seconds in stages.items()
        },
        "image_workers": {
            "threads": thread_count(),
            "seconds": worker_seconds,
            "share": worker_seconds / (wall * thread_count()),
        },
        "counts": {
            "requests": requests,
            "steps": sum(run.steps for run in runs),
            "images_decoded": sum(run.images_decoded for run in runs),
            "tiles_encoded": sum(run.tiles for run in runs),
            "prompt_tokens_computed": computed,
            "prompt_tokens_reused": reused,
            "new_tokens": sum(run.new_tokens for run in runs),
        },
        "rate": _rates(measured, peaks, stages, wall),
        "peak_memory_bytes": measured.peak_memory_bytes,
    }
    if price_per_hour is not None:
        an_hour = 60 * measured.qpm / len(workload.questions)
        values["cost_per_million_images"] = 1e6 * price_per_hour / an_hour
    return values


def _rates(
    measured: Measured, peaks: Peaks, stages: Mapping[str, float], wall: float
) -> dict[str, Any]:
    """TFLOP/s of each half while it runs, of both over the whole time, and the shares of the peak.

    The halves may have peaks of their own; the whole is the time that all products would take at
    these peaks, as a share of the time that they took.
    """
    subject, runs = measured.subject, measured.runs
    seconds = {
        "vision": stages["vision"],
        "language": stages["language_prefill"] + stages["language_decode"],
    }
    flops = {
        "vision": sum(run.vision_flops for run in runs),
        "language": sum(run.language_flops for run in runs),
    }
    dtypes = {"vision": subject.vision_peak, "language": subject.language_peak}
    values: dict[str, Any] = {}
    at_peak = 0.0
    for half in ("vision", "language"):
        peak = peaks.of(dtypes[half])
        tflops = _ratio(flops[half] / 1e12, seconds[half])
        values[half] = {
            "flops": flops[half],
            "tflops": tflops,
            "peak_dtype": dtypes[half],
            "peak_tflops": peak,
            "of_peak": None if tflops is None else tflops / peak,
        }
        at_peak += flops[half] / 1e12 / peak
    total = sum(flops.values())
    values["whole"] = {
        "flops": total,
        "tflops": total / 1e12 / wall,
        "of_peak": at_peak / wall,
    }
    return values


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The nearest-rank percentile of values in ascending order."""
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def case_lines(values: Mapping[str, Any]) -> Iterator[str]:
    """A case for people."""
    qpm, latency, rate = values["qpm"], values["latency_ms"], values["rate"]
    counts = values["counts"]
    yield (
        f"{values['name']}: {qpm['median']:,.0f} questions a minute "
        f"({qpm['min']:,.0f} to {qpm['max']:,.0f} in {len(values['runs'])} runs of "
        f"{values['workload']['requests']:,})"
    )
    yield f"  latency   p50 {latency['p50']:,.0f}, p95 {latency['p95']:,.0f}, p99 " + (
        f"{latency['p99']:,.0f} ms"
    )
    stages = ", ".join(
        f"{label} {values['stages'][name]['share']:.1%}" for name, label in _LABELS.items()
    )
    yield f"  device    {stages}"
    workers = values["image_workers"]
    yield f"  images    {workers['share']:.1%} of {workers['threads']} threads"
    yield (
        f"  rate      {rate['whole']['tflops']:,.2f} TFLOP/s, {rate['whole']['of_peak']:.1%} of "
        f"the peak; vision {_share(rate['vision'])}, language {_share(rate['language'])}"
    )
    yield (
        f"  tokens    {counts['prompt_tokens_computed']:,} of prompts computed, "
        f"{counts['prompt_tokens_reused']:,} reused, {counts['new_tokens']:,} new"
    )
    if "cost_per_million_images" in values:
        yield f"  cost      {values['cost_per_million_images']:,.2f} per million images"


def _share(rate: Mapping[str, Any]) -> str:
    return "-" if rate["of_peak"] is None else f"{rate['of_peak']:.1%}"


def _ratio(value: float, by: float) -> float | None:
    return value / by if by else None
