"""Run a workload through models several times, and record what happens."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from vlmc.bench.stages import Bar, device_bars, stage_seconds
from vlmc.bench.subject import Subject
from vlmc.bench.workload import Workload
from vlmc.machine.memory import MemoryPeak
from vlmc.models.flops import language_flops
from vlmc.progress.channel import report
from vlmc.progress.events import Progress
from vlmc.runtime.requests.timeline import Span, recording

_WARM_UP_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a workload; times in seconds, operations as counted from shapes."""

    requests: int
    wall: float
    latencies: tuple[float, ...]
    stages: dict[str, float]
    worker_seconds: float
    steps: int
    images_decoded: int
    tiles: int
    tokens_computed: int
    tokens_reused: int
    new_tokens: int
    vision_flops: int
    language_flops: int
    spans: tuple[Span, ...]

    @property
    def qpm(self) -> float:
        """Requests a minute."""
        return 60 * self.requests / self.wall

    @property
    def bars(self) -> list[Bar]:
        """What the device did."""
        return device_bars(self.spans)


@dataclass(slots=True)
class Measured:
    """All runs of one subject."""

    subject: Subject
    workload: Workload
    runs: list[Run] = field(default_factory=list)
    peak_memory_bytes: int | None = None

    @property
    def median_run(self) -> Run:
        """The run in the middle by its rate."""
        return sorted(self.runs, key=lambda run: run.qpm)[len(self.runs) // 2]

    @property
    def qpm(self) -> float:
        """The median of the runs' requests a minute."""
        return statistics.median(run.qpm for run in self.runs)


def measure(subjects: Sequence[Subject], workload: Workload, runs: int) -> list[Measured]:
    """Warm every subject up, then run them in turns, `runs` times each.

    Peak memory is the device's, of everything that is loaded; on a CPU that of the process.

    Raises:
        VlmcError: a request has no answer.
    """
    found = [Measured(subject, workload) for subject in subjects]
    device = subjects[0].device
    process = MemoryPeak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for number in range(runs + 1):
        for one in found:
            text = f"{one.subject.name}: {'runs' if number else 'warming up'}"
            report(Progress(text, number, runs) if number else Progress(text))
            if number == 0:
                workload.answer(one.subject.model, number, _WARM_UP_SHARE)
            else:
                one.runs.append(_run(one.subject, workload, number))
    peak = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else process.read()
    for one in found:
        one.peak_memory_bytes = peak
    return found


def _run(subject: Subject, workload: Workload, number: int) -> Run:
    model = subject.model
    before = model.statistics
    with recording(subject.device) as recorder:
        begin = time.perf_counter()
        requests = workload.answer(model, number)
        wall = time.perf_counter() - begin
        spans = tuple(recorder.spans())
    after = model.statistics
    steps = [span.rows for span in spans if span.name == "language"]
    tiles = after.tiles_encoded - before.tiles_encoded
    return Run(
        requests=requests,
        wall=wall,
        latencies=tuple(span.end - span.start for span in spans if span.name == "request"),
        stages=stage_seconds(device_bars(spans), wall),
        worker_seconds=sum(span.end - span.start for span in spans if span.name == "prepare"),
        steps=len(steps),
        images_decoded=after.images_decoded - before.images_decoded,
        tiles=tiles,
        tokens_computed=after.prompt_tokens_computed - before.prompt_tokens_computed,
        tokens_reused=after.prompt_tokens_reused - before.prompt_tokens_reused,
        new_tokens=after.new_tokens - before.new_tokens,
        vision_flops=tiles * subject.tile_flops,
        language_flops=sum(language_flops(subject.language, rows) for rows in steps),
        spans=spans,
    )
