"""Compare the resamplers: `taskset -c 0 python -m benchmarks.preprocessing [PICTURE …]`.

From pixels to tiles, and from JPEG bytes to tiles, Pillow and OpenCV in turn on one core. Prints
the median milliseconds of this thread's CPU time a picture, so that other work on the machine
counts little, and their ratio. Pillow's side is `resampler: pillow`, which is the published
pipeline without a copy of the decoded picture.

Then the mean difference of the tiles, in levels of 255, over the pictures: those named, or the
quickstart's evaluation images. `--threads 2` also prints how much faster two threads are than one;
do not pin it.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vlmc.image.decode import decode
from vlmc.image.preprocess import make_tiles, read_tiles
from vlmc.image.resize import RESAMPLERS
from vlmc.image.source import Pixels
from vlmc.image.tiles import TileRule

IMAGES = Path(__file__).parents[1] / "recipes" / "quickstart" / "images"
ORIGINAL, NATIVE = TileRule("original"), TileRule("native")
# Name, width, height, rule.
CASES = (
    ("640x480, 13 tiles", 640, 480, ORIGINAL),
    ("480x320, 7 tiles", 480, 320, ORIGINAL),
    ("480x320, 2 tiles", 480, 320, NATIVE),
    ("480x320, 1 tile", 480, 320, TileRule("single")),
    ("12 MP, 13 tiles", 4000, 3000, ORIGINAL),
    ("12 MP, 4 tiles", 4000, 3000, TileRule("native", max=4)),
    ("12 MP, 1 tile", 4000, 3000, TileRule("single")),
)
RULES = (ORIGINAL, NATIVE, TileRule("native", max=2), TileRule("single"))
QUALITY = 90


def resized(picture: Path, width: int, height: int) -> Pixels:
    """A picture stretched to a size, with the grain of a camera where it grows."""
    pixels = np.array(Image.fromarray(decode(picture)).resize((width, height)))
    if width > Image.open(picture).width:
        grain = np.random.default_rng(0).normal(0, 3, (height, width, 1))
        pixels = np.clip(pixels + grain, 0, 255).astype(np.uint8)
    return pixels


def encoded(pixels: Pixels) -> bytes:
    """The pixels as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def in_turn(works: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Median milliseconds of CPU time of each, after one run that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for run in range(runs + 1):
        for name, work in works.items():
            start = time.thread_time()
            work()
            if run:
                times[name].append((time.thread_time() - start) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def compare_speed(picture: Path, runs: int) -> None:
    """A line for each case."""
    print(f"{'':20}{'tiles: Pillow':>15}{'OpenCV':>9}{'ratio':>7}", end="")
    print(f"{'with JPEG: Pillow':>20}{'OpenCV':>9}{'ratio':>7}")
    for name, width, height, rule in CASES:
        pixels = resized(picture, width, height)
        content = encoded(pixels)
        works: dict[str, Callable[[], object]] = {}
        for kind in RESAMPLERS:
            works[kind] = partial(make_tiles, pixels, rule, kind)
            works[f"{kind} jpeg"] = partial(read_tiles, content, rule, kind)
        ms = in_turn(works, max(3, runs // 5) if width > 1000 else runs)
        print(f"{name:20}{ms['pillow']:15.1f}{ms['opencv']:9.1f}", end="")
        print(f"{ms['pillow'] / ms['opencv']:6.1f}x", end="")
        print(f"{ms['pillow jpeg']:20.1f}{ms['opencv jpeg']:9.1f}", end="")
        print(f"{ms['pillow jpeg'] / ms['opencv jpeg']:6.1f}x", flush=True)


def compare_pixels(pictures: list[Path]) -> None:
    """Mean difference to Pillow over the pictures, and that of the worst picture, by rule."""
    for rule in RULES:
        found = []
        for picture in pictures:
            one, other = (read_tiles(picture, rule, kind).tiles for kind in RESAMPLERS)
            found.append((float(np.abs(one.astype(np.int16) - other).mean()), picture.name))
        mean, (worst, name) = statistics.mean(value for value, _ in found), max(found)
        print(f"{rule}: mean {mean:.2f} over {len(found)} pictures, worst {worst:.2f} ({name})")


def compare_threads(picture: Path, threads: int, runs: int) -> None:
    """Pictures a second of one thread and of several, in turn."""
    content = encoded(resized(picture, 640, 480))
    ratios = []
    for _ in range(5):
        rates = []
        for count in (1, threads):
            with ThreadPoolExecutor(count) as pool:
                start = time.perf_counter()
                for _ in pool.map(lambda _: read_tiles(content, ORIGINAL, "opencv"), range(runs)):
                    pass
                rates.append(runs / (time.perf_counter() - start))
        ratios.append(rates[1] / rates[0])
    print(f"{threads} threads: {statistics.median(ratios):.2f} times one, 640x480 to 13 tiles")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("pictures", nargs="*", type=Path, help="for the differences")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pictures = options.pictures or sorted(IMAGES.glob("eval-*.jpg"))[::5]
    compare_speed(pictures[0], options.runs)
    compare_pixels(pictures)
    if options.threads:
        compare_threads(pictures[0], options.threads, options.runs)


if __name__ == "__main__":
    main()
