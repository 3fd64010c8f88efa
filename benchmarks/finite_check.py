"""What checking weights for NaN and infinity adds to reading: `python -m benchmarks.finite_check`.

Writes random weights, and copies every tensor from its file into memory with the check and without,
in turns. Prints the shortest seconds and what the check adds; the limit is 10 %. CPU seconds are of
all threads. Files are in the page cache, where reading is the fastest; `--cold` drops them from it
before each run.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import save_file

from vlmc.checkpoint import weights
from vlmc.checkpoint.weights import Weights

LIMIT = 0.10
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
SHAPE = (14336, 4096)  # the largest linear of InternVL2-8B's language model


def write_weights(folder: Path, size: int, dtype: torch.dtype) -> None:
    """Write one file of about `size` bytes."""
    generator = torch.Generator().manual_seed(0)
    count = max(1, round(size / (SHAPE[0] * SHAPE[1] * dtype.itemsize)))
    values = torch.randn(SHAPE, generator=generator).to(dtype)
    save_file({f"{i}.weight": values.roll(i) for i in range(count)}, folder / "model.safetensors")


def read(folder: Path) -> None:
    """Copy every tensor into memory, one at a time."""
    with Weights(folder) as opened:
        for name in opened:
            opened.tensor(name).clone()


def without_check(folder: Path) -> None:
    """As `read`, with a check that looks at nothing."""
    with patch.object(weights, "is_finite", lambda _: True):
        read(folder)


def drop_from_cache(folder: Path) -> None:
    """Drop the files from the page cache."""
    os.sync()
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds(run: Callable[[Path], None], folder: Path, cold: bool) -> tuple[float, float]:
    """How long one run takes, and how long the CPU works on it."""
    if cold:
        drop_from_cache(folder)
    start, cpu = time.perf_counter(), time.process_time()
    run(folder)
    return time.perf_counter() - start, time.process_time() - cpu


def main() -> None:
    """Measure and print. Exits with 1 above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--folder", type=Path, help="where to write; default: the temporary folder")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write_weights(folder, round(options.gigabytes * 1e9), DTYPES[options.dtype])
        size = sum(path.stat().st_size for path in folder.iterdir())
        without_check(folder)  # into the page cache
        plain, checked = [], []
        for _ in range(options.repeats):
            plain.append(seconds(without_check, folder, options.cold))
            checked.append(seconds(read, folder, options.cold))
    cores = len(os.sched_getaffinity(0))
    best = {
        "read": [min(values) for values in zip(*plain, strict=True)],
        "read and check": [min(values) for values in zip(*checked, strict=True)],
    }
    ratio, cpu_ratio = (b / a - 1 for a, b in zip(*best.values(), strict=True))
    if options.json:
        values = {"bytes": size, "cores": cores, "dtype": options.dtype, "cold": options.cold}
        print(json.dumps(values | {"seconds": best, "added": ratio, "added_cpu": cpu_ratio}))
    else:
        print(f"{size / 1e9:.1f} GB in {options.dtype}, {cores} cores, cold: {options.cold}")
        for what, (wall, cpu) in best.items():
            print(f"{what:16} {wall:7.2f} s  {size / wall / 1e9:5.2f} GB/s  {cpu:6.2f} s CPU")
        print(f"{'added':16} {ratio:7.1%}    at most {LIMIT:.0%}; {cpu_ratio:.1%} CPU")
    raise SystemExit(ratio > LIMIT)


if __name__ == "__main__":
    main()
