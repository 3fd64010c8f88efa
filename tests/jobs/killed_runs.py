"""Real jobs that are killed at random moments.

`python -m tests.jobs.killed_runs ARTIFACT FOLDER KILLS` kills each kind of job so often.
Each run is a fork of this process, which has imported all that a run needs, so that a run begins at
once. Prints a JSON object with the number of kills by kind of job.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import onnxruntime  # noqa: F401 - imported here, so that forks need not
import pyarrow.parquet  # noqa: F401
import torch

from vlmc.jobs.input.open import open_input
from vlmc.jobs.input.prompts import Prompt
from vlmc.jobs.job import run_job
from vlmc.jobs.output import journal
from vlmc.runtime.load import load

PROMPTS = [Prompt("door", "A door?", ("yes", "no")), Prompt("lamp", "A lamp?")]


JOBS = {"a.jsonl": "rows.jsonl", "a.parquet": "rows.jsonl", "t.jsonl": "s.tar"}


def run(artifact: Path, source: str, out: Path) -> None:
    """One run of the job, with a batch of lines every few answers."""
    journal.BATCH_LINES = 3
    with load(artifact, device="cpu", tiles="single", self_test=False) as model:
        run_job(
            model,
            open_input(source),
            PROMPTS,
            out,
            artifact=model.artifact.identity,
            tiles="single",
            max_new_tokens=2,
        )


def start(artifact: Path, source: str, out: Path) -> int:
    """A fork that runs the job and ends; its process id."""
    child = os.fork()
    if child:
        return child
    try:
        run(artifact, source, out)
        os._exit(0)
    finally:
        os._exit(1)


def main(artifact: Path, folder: Path, kills: int) -> None:
    """Kill each kind of job `kills` times, then let it end."""
    torch.set_num_threads(1)
    drawn = random.Random(8)
    done = {}
    for name, source in JOBS.items():
        out, before = folder / name, time.monotonic()
        # How long a run takes, on another output.
        os.waitpid(start(artifact, str(folder / source), folder / f"whole-{name}"), 0)
        seconds = time.monotonic() - before
        done[name] = 0
        while done[name] < kills:
            child = start(artifact, str(folder / source), out)
            time.sleep(drawn.uniform(0.1, 0.9) * seconds)
            os.kill(child, signal.SIGKILL)
            if os.waitpid(child, 0)[1] == signal.SIGKILL:
                done[name] += 1
            else:  # it ended before, so that the next run begins again
                for path in folder.glob(f"{name}*"):
                    path.unlink()
        code = os.waitpid(start(artifact, str(folder / source), out), 0)[1]
        if code:
            sys.exit(f"{name}: the last run ended with {code}")
    print(json.dumps(done))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
