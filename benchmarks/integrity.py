"""Compare the integrity check with hashing alone: `python -m benchmarks.integrity`.

Writes an artifact of random files, checks it, and hashes the same files on all cores with
`sha256sum` and with hashlib in processes. Prints seconds, and the ratio to the faster of the two;
the limit is 1.3. Files are in the page cache, so disk speed does not matter.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from vlmc.artifact.integrity import open_artifact
from vlmc.artifact.manifest import ImageRules, Manifest, PromptRules
from vlmc.artifact.write import seal
from vlmc.image.tiles import TileRule

LIMIT = 1.3
BLOCK = 1 << 20
# Shares of the total size: two language model shards, a tower, its graph, and small files.
SHARES = {
    "language/model-00001-of-00002.safetensors": 0.42,
    "language/model-00002-of-00002.safetensors": 0.28,
    "vision/tower.safetensors": 0.1,
    "vision/model.onnx": 0.2,
}


def write_artifact(folder: Path, size: int) -> list[Path]:
    """Write an unusable artifact of `size` bytes. Returns its payload files, largest first."""
    for name, share in SHARES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for _ in range(max(1, round(size * share / BLOCK))):
                file.write(os.urandom(BLOCK))
    for index in range(8):
        (folder / "language" / f"small-{index}.json").write_text(f"{index}\n" * 1000)
    manifest = Manifest(
        name="benchmark",
        vlmc="0",
        tools={},
        source={},
        hidden_size=1,
        image=ImageRules("opencv", "ignore", TileRule("single"), TileRule("original")),
        prompt=PromptRules("Hermes-2", ""),
        language_scheme="none",
        language_dtype="bfloat16",
        calibration={},
        engines=(),
        payload={},
    )
    sealed = seal(folder, manifest)
    files = [folder / name for name in sealed.payload]
    return sorted(files, key=lambda path: -path.stat().st_size)


def with_sha256sum(files: Sequence[Path]) -> None:
    """Run one `sha256sum` per file, in parallel on all cores."""
    names = "\0".join(map(str, files)).encode()
    command = ["xargs", "-0", "-n", "1", "-P", str(cores()), "sha256sum"]
    subprocess.run(command, input=names, stdout=subprocess.DEVNULL, check=True)


def with_processes(files: Sequence[Path]) -> None:
    """Run hashlib in one process per core."""
    with ProcessPoolExecutor(cores()) as pool:
        list(pool.map(digest, files))


def digest(path: Path) -> str:
    """SHA-256 of one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def best(run: Callable[[], object], repeats: int) -> float:
    """The shortest time of several runs, in seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    """Measure and print. Exits with 1 above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write; default: the temporary folder")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        files = write_artifact(folder, round(options.gigabytes * 1e9))
        size = sum(path.stat().st_size for path in files)
        best(lambda: with_processes(files), 1)  # into the page cache
        checked = best(lambda: open_artifact(folder), options.repeats)
        others = {
            "sha256sum": best(lambda: with_sha256sum(files), options.repeats),
            "hashlib in processes": best(lambda: with_processes(files), options.repeats),
        }
    ratio = checked / min(others.values())
    seconds = {"open_artifact": checked} | others
    if options.json:
        print(json.dumps({"bytes": size, "cores": cores(), "seconds": seconds, "ratio": ratio}))
    else:
        print(f"{size / 1e9:.1f} GB in {len(files)} files, {cores()} cores")
        for what, taken in seconds.items():
            print(f"{what:22} {taken:7.2f} s  {size / taken / 1e9:5.2f} GB/s")
        print(f"{'ratio':22} {ratio:7.2f}    at most {LIMIT}")
    raise SystemExit(ratio > LIMIT)


if __name__ == "__main__":
    main()
