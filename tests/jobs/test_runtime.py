"""The job over a real artifact: its lines are what the model answers by itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.image.files import alike_at_first, encoded, turned
from tests.image.patterns import pattern
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


def test_pictures_that_begin_alike_have_their_own_answers(model: Model, tmp_path: Path) -> None:
    paths = alike_at_first(tmp_path / "images")
    out = tmp_path / "answers.jsonl"
    run_job(
        as_job_model(model),
        open_input(str(tmp_path / "images")),
        prompts_from_texts(["Is there a door?"]),
        out,
        artifact=model.artifact.identity,
        tiles=str(model.tiles),
        choices=["yes", "no"],
    )
    found = [json.loads(line)["scores"]["yes"] for line in out.read_text().splitlines()]
    for path, score in zip(paths, found, strict=True):
        (alone,) = model.score([(path.read_bytes(), "Is there a door?")], choices=["yes", "no"])
        assert score == pytest.approx(alone["yes"], abs=1e-4)
    assert abs(found[0] - found[1]) > 1e-3


def test_summary_counts_what_is_left_unused(model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    photo = Image.fromarray(pattern(61, 43))
    (folder / "phone").write_bytes(turned(photo))
    (folder / "scan.tif").write_bytes(encoded(Image.fromarray(np.full((9, 9), 700, "u2")), "TIFF"))
    (folder / "plain.png").write_bytes(encoded(photo, "PNG"))
    summary = run_job(
        as_job_model(model),
        open_input(str(folder)),
        prompts_from_texts(["Is there a door?", "A lamp?"]),
        tmp_path / "answers.jsonl",
        artifact=model.artifact.identity,
        tiles=str(model.tiles),
        max_new_tokens=1,
    )
    assert (summary.answers, summary.errors) == (6, 0)
    assert (summary.rotation_ignored, summary.clipped_to_8_bits) == (1, 1)


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
