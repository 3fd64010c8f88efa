"""CPU time of the driver of a job on Ray: what a part costs it, and what each row of a part.

    python -m benchmarks.ray_driver [--rows 20000] [--sizes 64,320]

Runs the same job in parts of two sizes, on two workers with a stand-in model of 0.5 ms a row,
and solves for both costs. Counted is from the first eighth of the lines to the last line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from tests.jobs.fake import write_images
from tests.jobs.ray.jobs import run_ray
from tests.jobs.ray.standin import StandIn
from vlmc.jobs.input.prompts import Prompt
from vlmc.jobs.ray import job
from vlmc.progress.channel import receiving
from vlmc.progress.events import Event, Progress

IMAGES = 40
ROW_SECONDS = 0.0005


def cpu_ms_per_row(table: Path, out: Path, part_rows: int) -> float:
    """CPU time of this process, which is the driver, for each row of a job in such parts."""
    marks: list[tuple[int, float]] = []

    def receive(event: Event) -> None:
        if isinstance(event, Progress) and event.total and (event.done or 0) >= event.total / 8:
            marks.append((event.done or 0, time.process_time()))

    job.MOST_LINES["cpu"] = part_rows
    with receiving(receive):
        run_ray(table, out, [Prompt("door", "A door?")], model=StandIn(ROW_SECONDS), workers=2)
    (first, begin), (last, end) = marks[0], marks[-1]
    return 1e3 * (end - begin) / (last - first)


def main() -> None:
    """Measure both sizes and print the costs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--sizes", default="64,320", help="rows of a part; two with a comma")
    arguments = parser.parse_args()
    small, large = (int(size) for size in arguments.sizes.split(","))
    with tempfile.TemporaryDirectory() as name:
        images = write_images(Path(name) / "images", IMAGES)
        table = Path(name) / "rows.jsonl"
        lines = (json.dumps({"image": str(images[n % IMAGES])}) for n in range(arguments.rows))
        table.write_text("\n".join(lines) + "\n")
        found = {
            size: cpu_ms_per_row(table, Path(name) / f"{size}.jsonl", size)
            for size in (small, large)
        }
    # A part of n rows costs part + n · row.
    part = (found[small] - found[large]) / (1 / small - 1 / large)
    row = found[small] - part / small
    print(json.dumps({"ms_per_row": found, "part_ms": part, "row_ms": row}))


if __name__ == "__main__":
    main()
