"""Builds in a folder of their own, with the cache that all tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.artifacts import write_recipe
from vlmc.builder.build import build
from vlmc.cli.views.plain_view import plain_line
from vlmc.progress.channel import receiving
from vlmc.progress.events import Event
from vlmc.recipe.read import read_recipe


@pytest.fixture
def events() -> list[Event]:
    """What the builds of a test have reported."""
    return []


@pytest.fixture
def said(events: list[Event]) -> Callable[[], list[str]]:
    """`said()` is what the builds of a test have reported, as lines."""
    return lambda: [plain_line(event) for event in events]


@pytest.fixture
def quick_build(
    miniature: Path,
    events: list[Event],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Path]:
    """`quick_build(overrides, output=None, checkpoint=miniature, force=())` in the working folder
    `tmp_path`; the export of the tower comes from the cache but for the first time."""

    def quick(
        overrides: Iterable[str] = (),
        output: Path | None = None,
        checkpoint: Path = miniature,
        force: Iterable[str] = (),
    ) -> Path:
        recipe = write_recipe(tmp_path / "recipe.yaml", checkpoint)
        with receiving(events.append):
            return build(read_recipe(recipe, overrides), output, force=tuple(force))

    monkeypatch.chdir(tmp_path)
    return quick
