"""Two workers of a cluster, each on a GPU of its own, answer as one GPU."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from tests.jobs.fake import write_images
from vlmc import load
from vlmc.artifact.integrity import open_artifact
from vlmc.image.tiles import TileRule
from vlmc.jobs.input.open import open_input
from vlmc.jobs.input.prompts import prompts_from_texts
from vlmc.jobs.job import run_job
from vlmc.jobs.output.parts import PartsFolder
from vlmc.jobs.ray.job import Cluster, run_ray_job
from vlmc.jobs.ray.prepare import TileMaker
from vlmc.jobs.ray.source import ArtifactSource, Opened
from vlmc.jobs.ray.worker import WorkerFacts
from vlmc.jobs.settings import JobSettings

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")

DEVICE = "cuda"
RULE = TileRule("single")
PROMPTS = prompts_from_texts(["Is there a door?", "What colour is the floor?"])


@dataclass(frozen=True)
class PlacedSource:
    """Names the engine by the process and the GPUs that it sees."""

    source: ArtifactSource

    @property
    def maker(self) -> TileMaker:
        return self.source.maker

    @property
    def folder(self) -> Path | None:
        return self.source.folder

    def open(self, device: str) -> Opened:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        opened = self.source.open(device)
        return replace(opened, engine=json.dumps([os.getpid(), visible]))


def test_each_worker_has_its_own_gpu_and_the_answers_of_one(artifact: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    folder, local, out = tmp_path / "images", tmp_path / "local.jsonl", tmp_path / "ray.jsonl"
    write_images(folder, 80)
    opened = open_artifact(artifact)
    with load(artifact, device=DEVICE, engine="onnxruntime", tiles=str(RULE)) as model:
        identity = opened.identity
        run_job(model, open_input(str(folder)), PROMPTS, local, artifact=identity, tiles=str(RULE))
    seen: dict[int, str] = {}

    def announce(ready: Sequence[WorkerFacts]) -> None:
        seen.update(json.loads(facts.engine) for facts in ready)

    summary = run_ray_job(
        PlacedSource(ArtifactSource(opened, RULE, "onnxruntime")),
        open_input(str(folder)),
        PROMPTS,
        PartsFolder.of(str(out)),
        Cluster(device=DEVICE, workers=2),
        JobSettings(),
        on_ready=announce,
    )
    assert (summary.answers, summary.errors) == (160, 0)
    assert sorted(seen.values()) == ["0", "1"]
    found = b"".join(part.read_bytes() for part in sorted(out.glob("part-*")))
    assert found == local.read_bytes()
