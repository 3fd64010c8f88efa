"""Loaded artifacts, and pictures that differ."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from vlmc import Model, load


@pytest.fixture(scope="module")
def model(artifact: Path) -> Iterator[Model]:
    """The InternLM2 miniature in fp32, one tile an image: the quickest there is."""
    with load(artifact, device="cpu", tiles="single") as loaded:
        yield loaded
    assert own_threads() == [], "a closed model leaves no thread"


@pytest.fixture
def pictures() -> list[npt.NDArray[np.uint8]]:
    """Twelve small pictures, each unlike the others."""
    generator = np.random.default_rng(0)
    return [
        np.kron(
            generator.integers(0, 256, (3, 4, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8)
        )
        for _ in range(12)
    ]


def own_threads() -> list[str]:
    """Names of the threads that models have started."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("vlmc-")]
