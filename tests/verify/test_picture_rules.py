"""The pixels level follows the artifact's rules for pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.artifacts import copy_with
from vlmc import load
from vlmc.image.decode import decode
from vlmc.verify.accuracy import _check_pixels
from vlmc.verify.accuracy_targets import read_accuracy_targets
from vlmc.verify.dataset import read_dataset
from vlmc.verify.pixels import grid_of


@pytest.mark.parametrize("recipe", ["original", "scale"])
def test_high_bit_depth_is_compared(recipe: Any, artifact: Path, tmp_path: Path) -> None:
    """An artifact that scales makes other pixels than a recipe that clips."""
    levels = np.linspace(0, 65535, 448 * 448).astype(np.uint16).reshape(448, 448)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    questions = tmp_path / "eval.jsonl"
    questions.write_text('{"image": "deep.png", "prompt": "A room?", "label": "yes"}\n')
    dataset = read_dataset(questions)
    scaling = copy_with(artifact, tmp_path / "scaling", image__high_bit_depth="scale")
    with load(scaling, device="cpu", self_test=False) as model:
        targets = read_accuracy_targets(model.artifact)
        assert targets.high_bit_depth == "original"
        published = model.artifact.manifest.image.published
        grids = {key: grid_of(decode(path), published) for key, path in dataset.images.items()}
        found = _check_pixels(
            model,
            replace(targets, high_bit_depth=recipe),
            SimpleNamespace(grids=grids, from_file=False),  # type: ignore[arg-type]
            dataset,
        )
    assert len(found.wrong) == (recipe == "original")
