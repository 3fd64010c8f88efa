"""Deliberately broken artifacts do not pass, and the ladder names the broken part."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.artifacts import AS_ORACLE, build_from
from tests.command import call
from tests.image.patterns import scene
from tests.miniature.quantized import write_quantized
from tests.verify.broken import FAULTS, QUICK, replace_vision, shift_zero_points

# What sets the artifact's images apart from the source's while their pixels are the same.
MARKED = (*AS_ORACLE, "image.exif=apply", "accuracy.reference_dtype=fp32")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of one tile or of two with a thumbnail, five questions on each."""
    folder, draw, lines = tmp_path_factory.mktemp("rows"), random.Random(0), []
    for index in range(8):
        width = 600 if index % 2 else 480
        picture = Image.fromarray(scene(width, 1200 if index % 2 else 480))
        colour = (draw.randrange(256), draw.randrange(256), draw.randrange(256))
        picture.paste(colour, (0, 0, width, 60 + 40 * index))
        picture.save(folder / f"{index}.png")
        lines += [
            {"image": f"{index}.png", "prompt": f"Is there a {what}?", "label": "yes"}
            for what in ("door", "ladder", "hard hat", "traffic cone", "fire extinguisher")
        ]
    path = folder / "eval.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def sound(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_from(miniature, tmp_path_factory.mktemp("sound") / "artifact", MARKED)


def explain(artifact: Path, source: Path, rows: Path) -> tuple[int, str | None]:
    """Exit code, and the rung that is named."""
    command = ("verify", "accuracy", artifact, "--source", source, "--dataset", rows)
    found = call(*command, "--explain", "--json")
    if not found.stdout:
        return found.exit_code, None
    return found.exit_code, json.loads(found.stdout)["engines"][0]["ladder"]["steepest"]


CASES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAULTS]


@pytest.mark.parametrize("name", CASES)
def test_a_fault_is_named(
    name: str,
    sound: Path,
    miniature: Path,
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken, fault = shutil.copytree(sound, tmp_path / "broken"), FAULTS[name]
    fault.spoil(broken, monkeypatch)
    assert explain(broken, miniature, rows) == (fault.code, fault.rung)


@pytest.mark.slow
def test_without_a_fault_nothing_is_named(sound: Path, miniature: Path, rows: Path) -> None:
    assert explain(sound, miniature, rows) == (0, None)


@pytest.mark.slow
def test_another_pixel_shuffle_is_named(
    sound: Path,
    miniature: Path,
    artifacts: Callable[[str], Path],
    rows: Path,
    tmp_path: Path,
) -> None:
    broken = shutil.copytree(sound, tmp_path / "broken")
    replace_vision(broken, artifacts("internlm2-300m-v1"))
    assert explain(broken, miniature, rows) == (3, "vision engine")


@pytest.mark.slow
def test_shifted_zero_points_are_named(
    miniature: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source has the same integers, so that rounding itself changes nothing."""
    source = write_quantized(miniature, tmp_path / "source", "pack-quantized")
    artifact = build_from(source, tmp_path / "artifact", MARKED)
    assert explain(artifact, source, rows) == (0, None)
    broken = shutil.copytree(artifact, tmp_path / "broken")
    shift_zero_points(broken, monkeypatch)
    assert explain(broken, source, rows) == (3, "language model")
