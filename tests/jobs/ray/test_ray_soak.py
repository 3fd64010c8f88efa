"""20,000 rows while a worker is killed every few seconds."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.jobs.fake import write_images
from tests.jobs.ray.jobs import lines_of, run_ray
from tests.jobs.ray.killing import kill_workers
from tests.jobs.ray.standin import StandIn
from vlmc.jobs.input.prompts import Prompt

ROWS = 20_000


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.usefixtures("cluster")
def test_nothing_is_lost_and_nothing_doubled(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 40, damaged=[7])
    table = tmp_path / "rows.jsonl"
    with table.open("w") as file:
        for number in range(ROWS):
            file.write(json.dumps({"image": str(images[number % 40]), "id": number}) + "\n")
    pids, out = tmp_path / "pids", tmp_path / "out.jsonl"
    pids.mkdir()
    end = kill_workers(pids, random.Random(15), every_s=5.0)
    try:
        summary = run_ray(
            table, out, [Prompt("door", "A door?")], model=StandIn(seconds=0.002, pids=pids)
        )
    finally:
        kills = end()
    assert kills >= 5
    lines = lines_of(out)
    assert [(line["row"], line["id"]) for line in lines] == [(n, n) for n in range(ROWS)]
    assert (summary.answers, summary.errors) == (ROWS - ROWS // 40, ROWS // 40)
    answers = {line["image"]: line["answer"] for line in lines[:40]}
    assert all(line["answer"] == answers[line["image"]] for line in lines)
