"""Fixtures that several test modules share."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.miniature import write_miniature
from tests.skips import pytest_terminal_summary

__all__ = ["pytest_terminal_summary"]

DATA = Path(__file__).parent / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--artifacts` keeps built artifacts for later sessions, for tests of what only reads them."""
    parser.addoption("--artifacts", type=Path, help="a folder of built artifacts to use and fill")


def pytest_configure() -> None:
    """One thread for each process: on a busy machine waiting threads of torch spin."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def build_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of builds that all tests of a session share, and the processes that they start."""
    folder = _shared_folder(tmp_path_factory) / "build-cache"
    os.environ["VLMC_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def user_caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where loaded artifacts keep the results of their self-tests, apart from the user's own."""
    folder = _shared_folder(tmp_path_factory) / "user-caches"
    os.environ["XDG_CACHE_HOME"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`miniatures(name)` is the folder of that miniature, written once a session; read only."""
    written: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in written:
            written[name] = write_miniature(tmp_path_factory.mktemp("miniature") / name, name)
        return written[name]

    return folder


@pytest.fixture(scope="session")
def miniature(miniatures: Callable[[str], Path]) -> Path:
    """The folder of the InternLM2 miniature with the 300M tower; read only."""
    return miniatures("internlm2-300m")


@pytest.fixture(scope="session")
def images() -> Path:
    """The folder of small JPEG pictures."""
    return DATA / "images"


@pytest.fixture(scope="session")
def artifacts(
    miniatures: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> Callable[[str], Path]:
    """`artifacts(name)` is that miniature's artifact, fp32 and Pillow as the oracle; read only.

    Built once, however many processes run the tests.
    """
    # Here, so that tests which need no artifact run where the build extra is not installed.
    from tests.artifacts import build_once

    shared = pytestconfig.getoption("--artifacts")
    built = shared or _shared_folder(tmp_path_factory) / "artifacts"

    def folder(name: str) -> Path:
        return build_once(miniatures(name), built / name)

    return folder


@pytest.fixture(scope="session")
def artifact(artifacts: Callable[[str], Path]) -> Path:
    """The artifact of the InternLM2 miniature with the 300M tower; read only."""
    return artifacts("internlm2-300m")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Ray, on a cluster of two cores that all tests of a process share."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=256 << 20,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    yield ray
    ray.shutdown()


def _shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The session's folder, inside which pytest-xdist gives each process one of its own."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
