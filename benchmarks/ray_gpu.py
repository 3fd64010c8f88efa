"""Questions a minute of a job on several GPUs through Ray, against one GPU of the same machine.

    python -m benchmarks.ray_gpu --gpus 0,1,2 [--artifact DIR] [--images 4000]

Without an artifact it takes InternVL2-8B's shape with random weights in fp8, the tower too, which
is compiled once. Each count of GPUs is a job in a process of its own, on JPEGs of 480×320 as one
tile each, `--images` of them a GPU, no two with the same content. `0` is the local job without Ray,
on one GPU. Counted is from the first eighth of the lines to the last line. Prints a line of JSON
for each, with the ratio to one GPU.

`--device cpu` tries the same path without a GPU, on a miniature.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.job_marks import Marks
from vlmc.artifact.integrity import open_artifact
from vlmc.artifact.manifest import ImageRules, RuntimeRules
from vlmc.bench.synthetic.pictures import jpeg
from vlmc.bench.workload import QUESTION
from vlmc.image.tiles import TileRule
from vlmc.jobs.input.open import open_input
from vlmc.jobs.input.prompts import prompts_from_texts
from vlmc.jobs.job import run_job
from vlmc.jobs.output.parts import PartsFolder
from vlmc.jobs.ray.cluster import connected, find_slots
from vlmc.jobs.ray.job import Cluster, run_ray_job
from vlmc.jobs.ray.prepare import TileMaker
from vlmc.jobs.ray.source import ArtifactSource, ModelSource, Opened
from vlmc.jobs.settings import JobSettings
from vlmc.progress.channel import receiving
from vlmc.runtime.requests.request import TileOrigin

SHAPES: dict[str, tuple[str, Any]] = {
    "cuda": ("internvl2-8b", "fp8"),
    "cpu": ("miniature", "fp32"),
}
"""Shape and precision on a device."""
RULE = TileRule("single")
PICTURES = 200
# Counting processes twice a second took a tenth of a job's rate on a machine with a GPU.
COUNTING_SECONDS = 5.0
IDENTITY = "5e" * 32


@dataclass(frozen=True)
class Synthetic:
    """A model of random weights, whose tower is compiled in `package`; plain torch without."""

    package: Path | None
    folder: Path | None = None

    @property
    def maker(self) -> TileMaker:
        original = TileRule("original")
        rules = ImageRules("opencv", "ignore", original, original)
        return TileMaker(rules, RULE, TileOrigin(IDENTITY, str(RULE)))

    def open(self, device: str) -> Opened:
        import torch

        from vlmc.bench.subject import make_subject
        from vlmc.bench.synthetic_models import SyntheticModels

        shape, precision = SHAPES[device]
        models = SyntheticModels(shape, torch.device(device))
        if self.package is not None:
            models.packages = {precision: self.package}
        engine = models.engine(precision, "inductor" if self.package else "eager")
        parts = models.parts(precision, engine)
        parts = replace(parts, artifact=replace(parts.artifact, identity=IDENTITY))
        model = make_subject(shape, parts, engine, tiles=RULE, rules=RuntimeRules()).model
        return Opened(model, model.engine)


def measure(gpus: int, table: Path, out: Path, device: str, source: ModelSource) -> None:
    """One job in this process; prints its figures."""
    rows, prompts = open_input(str(table)), prompts_from_texts([QUESTION])
    marks = Marks(COUNTING_SECONDS)
    with receiving(marks.receive):
        if gpus:
            cluster, folder = Cluster(device=device, workers=gpus), PartsFolder.of(str(out))
            summary = run_ray_job(source, rows, prompts, folder, cluster, JobSettings())
        else:
            model, origin = source.open(device).model, source.maker.origin
            summary = run_job(
                model, rows, prompts, out, artifact=origin.artifact, tiles=origin.tiles
            )
    if summary.answers != len(rows):
        raise SystemExit(f"{summary.answers} answers for {len(rows)} rows: {summary.reasons}")
    print(json.dumps(marks.figures()))


@contextmanager
def tower(device: str) -> Iterator[Path | None]:
    """The compiled tower of random weights; on a CPU there is none."""
    if device == "cpu":
        yield None
        return
    import torch

    from vlmc.bench.tower_packages import TowerPackages

    shape, precision = SHAPES[device]
    with TowerPackages(shape, [precision], torch.device(device)) as packages:
        yield packages.wait()[precision]


def write_tables(folder: Path, counts: list[int]) -> list[Path]:
    """Tables of so many images, each image another one for every cache: what follows a JPEG's end
    is not read."""
    drawn = [jpeg(480, 320, seed) for seed in range(PICTURES)]
    lines = []
    for number in range(max(counts)):
        path = folder / f"{number}.jpg"
        path.write_bytes(drawn[number % PICTURES] + f"image {number}".encode())
        lines.append(json.dumps({"image": str(path)}) + "\n")
    tables = [folder / f"{count}.jsonl" for count in counts]
    for table, count in zip(tables, counts, strict=True):
        table.write_text("".join(lines[:count]))
    return tables


def check_cluster(device: str, workers: int) -> None:
    """Raise an error before minutes of compilation if Ray does not start or sees too few GPUs."""
    with connected("local") as ray:
        print(f"Ray {ray.__version__}: {ray.cluster_resources()}", file=sys.stderr)
        find_slots(ray, device, 1, workers)


def main() -> None:
    """Run the jobs one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gpus", default="1,2", help="counts with commas; 0 is without Ray")
    parser.add_argument("--artifact", type=Path)
    parser.add_argument("--images", type=int, default=4000, help="of each GPU")
    parser.add_argument("--device", choices=SHAPES, default="cuda")
    parser.add_argument("--package", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=3, metavar=("GPUS", "TABLE", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    artifact, device = arguments.artifact, arguments.device
    if arguments.one:
        gpus, table, out = arguments.one
        source: ModelSource = Synthetic(arguments.package)
        if artifact is not None:
            source = ArtifactSource(open_artifact(artifact), RULE)
        measure(int(gpus), Path(table), Path(out), device, source)
        return
    counts = [int(count) for count in arguments.gpus.split(",")]
    if any(counts):
        check_cluster(device, max(counts))
    given = ["--device", device]
    if artifact is not None:
        given += ["--artifact", str(artifact)]
    rates: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name, tower("cpu" if artifact else device) as package:
        if package is not None:
            given += ["--package", str(package)]
        tables = write_tables(Path(name), [arguments.images * max(1, gpus) for gpus in counts])
        for gpus, table in zip(counts, tables, strict=True):
            out = Path(name) / f"{gpus}-gpus.jsonl"
            one = ["--one", str(gpus), str(table), str(out)]
            command = [sys.executable, "-m", "benchmarks.ray_gpu", *one, *given]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            figures = json.loads(done.stdout.splitlines()[-1])
            rates[gpus] = 60 * figures["rows_per_second"]
            found = {
                "gpus": gpus,
                "questions_per_minute": round(rates[gpus]),
                "against_one": round(rates[gpus] / rates[1], 3) if 1 in rates else None,
                "cpu_ms_per_row": round(figures["cpu_ms_per_row"], 2),
                "start_seconds": round(figures["start_seconds"], 1),
            }
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
