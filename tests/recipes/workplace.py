"""The folder in which the commands of the documentation run: a miniature under the pages' names."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import torch
from PIL import Image

from tests.checkpoint import edit
from tests.checkpoint.trained import opengvlab_lora
from tests.conftest import DATA
from vlmc.builder.build import build
from vlmc.recipe.read import read_recipe

RECIPE = """\
version: 1
name: inspection
model: {checkpoint: finetuned, dtype: fp32}
image: {tiles: {rule: original}}
vision:
  precision: fp32
  engines: [{engine: onnxruntime}]
accuracy: {dataset: eval.jsonl}
"""
# Of one tile, so that no answer depends on how they are resized.
PHOTOS = ("0001.jpg", "0002.jpg")
QUESTIONS = ("Is a hard hat visible?", "How many people are there?")


def prepare(folder: Path, miniature: Path) -> None:
    """Write everything that the pages name, `artifacts/inspection` too."""
    opengvlab_lora(miniature, folder / "finetuned", "internlm2")
    _pickle(miniature, folder / "pickled")
    (folder / "photos").mkdir()
    with Image.open(DATA / "images" / "448x448.jpg") as photo:
        for number, name in enumerate(PHOTOS):
            photo.rotate(180 * number).save(folder / "photos" / name)
    shutil.copy(folder / "photos" / "0001.jpg", folder / "room.jpg")
    lines = [
        {"image": f"photos/{name}", "prompt": prompt} for name in PHOTOS for prompt in QUESTIONS
    ]
    labelled = [
        line | {"label": "yes", "question": line["prompt"], "positive": ["yes"]} for line in lines
    ]
    asked = [
        {"question": "hat", "prompt": QUESTIONS[0], "choices": ["yes", "no"]},
        {"question": "count", "prompt": QUESTIONS[1]},
    ]
    _write(folder / "calibration.jsonl", [line | {"answer": "yes"} for line in lines])
    _write(folder / "eval.jsonl", labelled)
    _write(folder / "questions.jsonl", asked)
    for number in range(4):
        with tarfile.open(folder / f"shard-{number:03}.tar", "w") as shard:
            shard.add(folder / "photos" / "0001.jpg", f"sample-{number}.jpg")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    built = build(read_recipe(folder / "recipe.yaml"), folder / "artifacts" / "inspection-0")
    (folder / "artifacts" / "inspection").symlink_to(built.name)


def _pickle(source: Path, target: Path) -> None:
    """A copy of a checkpoint with pickled weights."""
    edit.copy(source, target)
    torch.save(edit.tensors(target), target / "pytorch_model.bin")
    for path in target.glob("*.safetensors*"):
        path.unlink()


def _write(path: Path, lines: list[dict[str, object]]) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
