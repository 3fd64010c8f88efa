"""CPU time of the driver of a job on Ray: what a part costs it, each row, and images in shards.

    python -m benchmarks.ray_driver [--rows 16000]

Runs jobs on two workers with a stand-in model of 0.5 ms a row: images named by path in parts of two
sizes, and shards with images of two sizes, and solves for the costs. Counted is from the first
eighth of the lines to the last line.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
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
SMALL_PART, LARGE_PART = 64, 320
SMALL_IMAGE, LARGE_IMAGE = 40_000, 400_000


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


def write_shard(path: Path, image: Path, images: int, size: int) -> Path:
    """One image again and again, filled up to `size` bytes behind its end."""
    content = image.read_bytes().ljust(size, b"\0")
    with tarfile.open(path, "w") as shard:
        for number in range(images):
            entry = tarfile.TarInfo(f"{number:08d}{image.suffix}")
            entry.size = size
            shard.addfile(entry, io.BytesIO(content))
    return path


def main() -> None:
    """Measure the four jobs and print the costs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=16_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = write_images(folder / "images", IMAGES)
        table = folder / "rows.jsonl"
        lines = (json.dumps({"image": str(images[n % IMAGES])}) for n in range(rows))
        table.write_text("\n".join(lines) + "\n")
        small = cpu_ms_per_row(table, folder / "small.jsonl", SMALL_PART)
        large = cpu_ms_per_row(table, folder / "large.jsonl", LARGE_PART)
        in_shards = []
        for size in (SMALL_IMAGE, LARGE_IMAGE):
            shard = write_shard(folder / f"{size}.tar", images[0], rows // 4, size)
            out = folder / f"{size}.jsonl"
            in_shards.append(cpu_ms_per_row(shard, out, SMALL_PART))
            shard.unlink()
    # A part of n rows costs part + n · row.
    part = (small - large) / (1 / SMALL_PART - 1 / LARGE_PART)
    byte = (in_shards[1] - in_shards[0]) / (LARGE_IMAGE - SMALL_IMAGE)
    found = {
        "part_ms": part,
        "row_ms": small - part / SMALL_PART,
        "image_ms": in_shards[0] - byte * SMALL_IMAGE - small,
        "megabyte_ms": 1e6 * byte,
    }
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))


if __name__ == "__main__":
    main()
