"""Graphs of a miniature that several tests compare."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.verify.layers.graphs import Graphs


@pytest.fixture(scope="session")
def graphs(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    """Of the InternLM2 miniature with the 300M tower."""
    return Graphs(tmp_path_factory.mktemp("graphs"), miniature)
