"""The job over a real artifact: its lines are what the model answers by itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from vlmc.builder.build import build
from vlmc.jobs import question_runner
from vlmc.jobs.input.open import open_input
from vlmc.jobs.input.prompts import prompts_from_texts
from vlmc.jobs.job import run_job
from vlmc.recipe.read import read_recipe
from vlmc.runtime.load import load
from vlmc.runtime.model import Model

RECIPE = """\
version: 1
name: miniature
model: {{checkpoint: {checkpoint}, dtype: fp32}}
image: {{tiles: {{rule: original, max: 2}}}}
vision: {{precision: fp32}}
"""


@pytest.fixture(scope="module")
def model(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    folder = tmp_path_factory.mktemp("artifact")
    (folder / "recipe.yaml").write_text(RECIPE.format(checkpoint=miniature))
    recipe = read_recipe(folder / "recipe.yaml", ())
    with load(build(recipe, folder / "artifact"), device="cpu") as loaded:
        yield loaded


def as_job_model(model: Model) -> question_runner.Model:
    """The type checker's word that the runtime is what a job needs."""
    return model


@pytest.mark.parametrize("choices", [None, ["yes", "no"]])
def test_lines_are_the_answers_of_the_model(
    choices: list[str] | None, model: Model, images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("320x480.jpg", "480x320.jpg"):
        shutil.copy(images / name, folder)
    (folder / "400.jpg").write_bytes((folder / "320x480.jpg").read_bytes()[:500])
    prompts = prompts_from_texts(["Is there a door?", "<image>\nWhat is this?"])
    out = tmp_path / "answers.jsonl"
    summary = run_job(
        as_job_model(model),
        open_input(str(folder)),
        prompts,
        out,
        artifact=model.artifact.identity,
        tiles=str(model.tiles),
        choices=choices,
    )
    assert (summary.answers, summary.errors) == (4, 2)
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    good = [line for line in lines if line["error"] is None]
    assert [Path(line["image"]).name for line in good] == ["320x480.jpg"] * 2 + ["480x320.jpg"] * 2
    requests = [(line["image"], line["prompt"]) for line in good]
    if choices is None:
        answers = model.generate(requests)
        assert [line["answer"] for line in good] == [answer.text for answer in answers]
        assert [line["image_tokens"] for line in good] == [a.image_tokens for a in answers]
    else:
        for line, scores in zip(good, model.score(requests, choices=choices), strict=True):
            assert line["scores"] == pytest.approx(scores, abs=1e-4)
            assert line["answer"] == max(scores, key=scores.__getitem__)
