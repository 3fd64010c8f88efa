"""Builds without the exporter's seconds: the vision folder comes from an artifact built before."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.artifacts import write_recipe
from vlmc.build.build import build
from vlmc.checkpoint.source import Checkpoint
from vlmc.recipe.read import read_recipe


@pytest.fixture
def said() -> list[str]:
    """What the builds of a test have reported."""
    return []


@pytest.fixture
def quick_build(
    artifact: Path,
    miniature: Path,
    said: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Path]:
    """`quick_build(overrides, output=None, checkpoint=miniature)` in the working folder
    `tmp_path`, with everything but the export of the tower done in earnest."""

    def copy_vision(_: Checkpoint, folder: Path) -> None:
        shutil.copytree(artifact / "vision", folder)

    def quick(
        overrides: Iterable[str] = (), output: Path | None = None, checkpoint: Path = miniature
    ) -> Path:
        recipe = write_recipe(tmp_path / "recipe.yaml", checkpoint)
        return build(read_recipe(recipe, overrides), output, said.append)

    monkeypatch.setattr("vlmc.build.build.compile_vision", copy_vision)
    monkeypatch.chdir(tmp_path)
    return quick
