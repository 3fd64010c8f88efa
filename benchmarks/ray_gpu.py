"""Questions a minute of a job on several GPUs through Ray, against one GPU of the same machine.

    python -m benchmarks.ray_gpu --gpus 1,2,4 [--artifact DIR] [--images 9000]

Without an artifact it takes InternVL2-8B's shape with random weights in fp8, the tower too, which
is compiled once. Each count of GPUs is a job in a process of its own, on JPEGs of 480×320 as one
tile each, `--images` of them a GPU, no two with the same content. `0` is the local job without Ray,
on one GPU. Counted is from the first eighth of the lines to the last line. Prints a line of JSON
for each, with the ratio to one GPU.
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

from benchmarks.ray_job import Marks
from vlmc.artifact.integrity import open_artifact
from vlmc.artifact.manifest import ImageRules, RuntimeRules
from vlmc.bench.synthetic.pictures import jpeg
from vlmc.bench.workload import QUESTION
from vlmc.image.tiles import TileRule
from vlmc.jobs.input.open import open_input
from vlmc.jobs.input.prompts import prompts_from_texts
from vlmc.jobs.job import run_job
from vlmc.jobs.output.parts import PartsFolder
from vlmc.jobs.ray.job import Cluster, run_ray_job
from vlmc.jobs.ray.prepare import TileMaker
from vlmc.jobs.ray.source import ArtifactSource, ModelSource, Opened
from vlmc.jobs.settings import JobSettings
from vlmc.progress.channel import receiving
from vlmc.runtime.requests.request import TileOrigin

SHAPE, PRECISION = "internvl2-8b", "fp8"
RULE = TileRule("single")
PICTURES = 200
IDENTITY = "5e" * 32


@dataclass(frozen=True)
class Synthetic:
    """A model of random weights, whose tower is compiled in `package`."""

    package: Path
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

        models = SyntheticModels(SHAPE, torch.device(device))
        models.packages = {PRECISION: self.package}
        engine = models.engine(PRECISION, "inductor")
        parts = models.parts(PRECISION, engine)
        parts = replace(parts, artifact=replace(parts.artifact, identity=IDENTITY))
        model = make_subject(SHAPE, parts, engine, tiles=RULE, rules=RuntimeRules()).model
        return Opened(model, model.engine)


def measure(gpus: int, table: Path, out: Path, artifact: Path | None, package: Path) -> None:
    """One job in this process; prints its figures."""
    source: ModelSource = Synthetic(package)
    if artifact is not None:
        source = ArtifactSource(open_artifact(artifact), RULE)
    rows, prompts, marks = open_input(str(table)), prompts_from_texts([QUESTION]), Marks()
    with receiving(marks.receive):
        if gpus:
            cluster = Cluster(device="cuda", workers=gpus)
            run_ray_job(source, rows, prompts, PartsFolder.of(str(out)), cluster, JobSettings())
        else:
            model, origin = source.open("cuda").model, source.maker.origin
            run_job(model, rows, prompts, out, artifact=origin.artifact, tiles=origin.tiles)
    print(json.dumps(marks.figures()))


@contextmanager
def tower(artifact: Path | None) -> Iterator[Path]:
    """The compiled tower of random weights, where there is no artifact."""
    if artifact is not None:
        yield artifact
        return
    import torch

    from vlmc.bench.tower_packages import TowerPackages

    with TowerPackages(SHAPE, [PRECISION], torch.device("cuda")) as packages:
        yield packages.wait()[PRECISION]


def write_table(folder: Path, count: int) -> Path:
    """So many images, each another file for every cache: what follows a JPEG's end is not read."""
    drawn = [jpeg(480, 320, seed) for seed in range(PICTURES)]
    table = folder / f"{count}.jsonl"
    with table.open("w") as lines:
        for number in range(count):
            path = folder / f"{number}.jpg"
            path.write_bytes(drawn[number % PICTURES] + f"image {number}".encode())
            lines.write(json.dumps({"image": str(path)}) + "\n")
    return table


def main() -> None:
    """Run the jobs one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gpus", default="1,2", help="counts with commas; 0 is without Ray")
    parser.add_argument("--artifact", type=Path)
    parser.add_argument("--images", type=int, default=9000, help="of each GPU")
    parser.add_argument("--one", nargs=4, metavar=("GPUS", "TABLE", "OUT", "PACKAGE"))
    arguments = parser.parse_args()
    if arguments.one:
        gpus, table, out, package = arguments.one
        measure(int(gpus), Path(table), Path(out), arguments.artifact, Path(package))
        return
    rates: dict[int, float] = {}
    given = [] if arguments.artifact is None else ["--artifact", str(arguments.artifact)]
    with tempfile.TemporaryDirectory() as name, tower(arguments.artifact) as package:
        for gpus in map(int, arguments.gpus.split(",")):
            table = write_table(Path(name), arguments.images * max(1, gpus))
            out = Path(name) / f"{gpus}-gpus.jsonl"
            one = ["--one", str(gpus), str(table), str(out), str(package)]
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
