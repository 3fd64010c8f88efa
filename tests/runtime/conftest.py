"""Loaded artifacts, and pictures that differ."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from vlmc import Model, load

PREPARER = "vlmc-prepare"


@pytest.fixture(scope="module")
def model(artifact: Path) -> Iterator[Model]:
    """The InternLM2 miniature in fp32, one tile an image: the quickest there is."""
    with load(artifact, device="cpu", tiles="single") as loaded:
        yield loaded


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


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Whatever a test does with a model, nothing prepares on after it."""
    yield
    assert preparing_threads() == []


def preparing_threads() -> list[str]:
    """Names of the threads that prepare requests."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(PREPARER)]
