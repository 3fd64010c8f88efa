"""What a job on Ray costs beside the local one, with a stand-in model of fixed CPU cost a row.

    python -m benchmarks.ray_job [--rows 2000] [--cost-ms 20] [--pairs 3]

Runs, several times and in turn, each in a process of its own: the local job and one worker on Ray,
both with all that they start pinned to one core; and one and two workers on two cores. Counted is
from the first eighth of the lines to the last line; the start of Ray is stated apart. Prints the
ratios of runs that follow each other: of rows a second, which other work on the machine disturbs,
and on one core of the CPU time of all processes, which is the same where nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.job_marks import Marks
from tests.jobs.fake import write_images
from tests.jobs.ray.jobs import run_local, run_ray
from tests.jobs.ray.standin import StandIn
from vlmc.jobs.input.prompts import Prompt
from vlmc.progress.channel import receiving

# More than the caches of tiles hold, so that every row is decoded.
IMAGES = 400
PROMPTS = [Prompt("door", "A door?")]


def measure(kind: str, table: Path, out: Path, cost_s: float) -> dict[str, float]:
    """One run in this process."""
    model, marks = StandIn(seconds=cost_s), Marks()
    with receiving(marks.receive):
        if kind == "local":
            run_local(table, out, PROMPTS, model=model)
        else:
            run_ray(table, out, PROMPTS, model=model, workers=int(kind))
    return marks.figures()


def run(kind: str, cores: int, arguments: argparse.Namespace, table: Path) -> dict[str, float]:
    """One run in a process of its own on so many cores."""
    out = table.with_name(f"{time.monotonic_ns()}.jsonl")
    command = [sys.executable, "-m", "benchmarks.ray_job", "--one", kind, str(table), str(out)]
    available = sorted(os.sched_getaffinity(0))[:cores]
    os.sched_setaffinity(0, available)
    try:
        done = subprocess.run(
            [*command, "--cost-ms", str(arguments.cost_ms)],
            check=True,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    finally:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{kind:>6} on {cores} core(s): {found}", file=sys.stderr)
    return found


def main() -> None:
    """Run the pairs and print their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--cost-ms", type=float, default=20.0)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--one", nargs=3, metavar=("KIND", "TABLE", "OUT"))
    arguments = parser.parse_args()
    if arguments.one:
        kind, table, out = arguments.one
        print(json.dumps(measure(kind, Path(table), Path(out), arguments.cost_ms / 1e3)))
        return
    overheads, cpu, gains, starts = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        images = write_images(Path(folder) / "images", IMAGES)
        table = Path(folder) / "rows.jsonl"
        lines = (json.dumps({"image": str(images[n % IMAGES])}) for n in range(arguments.rows))
        table.write_text("\n".join(lines) + "\n")
        for _ in range(arguments.pairs):
            local, pinned = run("local", 1, arguments, table), run("1", 1, arguments, table)
            one, two = run("1", 2, arguments, table), run("2", 2, arguments, table)
            overheads.append(local["rows_per_second"] / pinned["rows_per_second"] - 1)
            cpu.append(pinned["cpu_ms_per_row"] / local["cpu_ms_per_row"] - 1)
            gains.append(two["rows_per_second"] / one["rows_per_second"])
            starts.append(two["start_seconds"])
    figures = {
        "overhead_on_one_core": overheads,
        "overhead_in_cpu_time": cpu,
        "two_workers_against_one": gains,
        "start_seconds": starts,
    }
    for name, values in figures.items():
        each = ", ".join(f"{value:.3f}" for value in values)
        print(f"{name}: median {statistics.median(values):.3f} ({each})")


if __name__ == "__main__":
    main()
