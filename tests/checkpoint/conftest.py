"""Miniatures that a test may change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checkpoint import edit


@pytest.fixture
def editable(miniature: Path, tmp_path: Path) -> Path:
    """A copy of the miniature with one weight file."""
    return edit.copy(miniature, tmp_path / "checkpoint")


@pytest.fixture
def sharded(miniatures: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of a miniature with three shards and an index."""
    return edit.copy(miniatures("internlm2-6b"), tmp_path / "sharded")
