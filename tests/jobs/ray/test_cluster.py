"""Addresses that answer and that do not, and the workers that a cluster has room for."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vlmc.errors import HardwareError, UsageError
from vlmc.jobs.ray import cluster
from vlmc.jobs.ray.address import is_address
from vlmc.jobs.ray.cluster import Slots, connected, find_slots


@pytest.mark.parametrize("text", ["auto", "local", "10.0.0.1:6379", "ray://head:10001", "[::1]:80"])
def test_addresses(text: str) -> None:
    assert is_address(text)


@pytest.mark.parametrize(
    "text", ["artifacts/hats", "host", "s3://a/b", "http://a:1", "a:b", "", "a:99999"]
)
def test_what_is_no_address(text: str) -> None:
    assert not is_address(text)


@pytest.mark.parametrize("form", ["{}", "ray://{}"])
def test_a_dead_address_is_refused_at_once(form: str) -> None:
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = form.format(f"127.0.0.1:{free.getsockname()[1]}")
    started = time.monotonic()
    with pytest.raises(UsageError, match="no Ray cluster answers at") as found, connected(address):
        pass
    assert address in str(found.value) and "refused" in str(found.value)
    assert time.monotonic() - started < 10


def test_an_address_that_only_listens_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        said = rf"at {address} \(no answer in 2 s\)"
        with pytest.raises(UsageError, match=said), connected(address):
            pass


def test_a_token_is_sent_where_a_cluster_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A program in place of Ray's driver, which is refused without the token."""
    pytest.importorskip("ray")
    refusing = "import os, sys; sys.exit(os.environ.get('RAY_AUTH_MODE') != 'token')"
    monkeypatch.setattr(cluster, "_CONNECT", refusing)
    monkeypatch.setattr(cluster, "_TOKEN", tmp_path / "auth_token")
    monkeypatch.setenv("RAY_AUTH_MODE", "")  # so that its value is restored
    monkeypatch.delenv("RAY_AUTH_MODE")
    with pytest.raises(UsageError, match="set RAY_AUTH_MODE=token"):
        cluster._check_answer("auto")
    (tmp_path / "auth_token").write_text("secret")
    cluster._check_answer("auto")
    assert os.environ["RAY_AUTH_MODE"] == "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(UsageError, match="no Ray cluster answers"):
        cluster._check_answer("auto")


def test_ray_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    said = r"--ray needs Ray; install it: pip install .*ray"
    with pytest.raises(UsageError, match=said), connected("local"):
        pass


def has(**resources: float) -> Any:
    return SimpleNamespace(cluster_resources=lambda: resources)


@pytest.mark.parametrize(
    ("resources", "device", "devices", "workers", "expected"),
    [
        ({"CPU": 16, "GPU": 2}, "auto", 1, None, Slots(2, "cuda", gpus=1)),
        ({"CPU": 16, "GPU": 4}, "cuda", 1, 3, Slots(3, "cuda", gpus=1)),
        ({"CPU": 16, "GPU": 5}, "cuda", 2, None, Slots(2, "cuda", gpus=2)),
        ({"CPU": 16, "GPU": 2}, "cpu", 1, None, Slots(4, "cpu", 4)),
        ({"CPU": 2}, "auto", 1, None, Slots(1, "cpu", 2)),
        ({"CPU": 2}, "auto", 2, 2, Slots(2, "cpu", 1)),
    ],
)
def test_slots(
    resources: dict[str, float], device: str, devices: int, workers: int | None, expected: Slots
) -> None:
    found = find_slots(has(**resources), device, devices, workers)
    assert found == expected
    # Room is left for the tasks that prepare images.
    assert found.count * found.options["num_cpus"] < resources["CPU"]
    assert found.options["num_gpus"] == (devices if found.device == "cuda" else 0)


def test_slots_that_there_are_not() -> None:
    with pytest.raises(UsageError, match=r"--workers is 3 and --devices 1, but .* has 2 GPUs"):
        find_slots(has(CPU=16, GPU=2), "auto", 1, 3)
    with pytest.raises(UsageError, match=r"--workers is 1 and --devices 4, but .* has 2 GPUs"):
        find_slots(has(CPU=16, GPU=2), "auto", 4, None)
    with pytest.raises(UsageError, match=r"--workers is 2 and --devices 1, but .* has 1 core;"):
        find_slots(has(CPU=1), "auto", 1, 2)
    with pytest.raises(HardwareError, match="has no GPU"):
        find_slots(has(CPU=16), "cuda", 1, None)
    with pytest.raises(UsageError, match="each worker is given its own GPU"):
        find_slots(has(CPU=16, GPU=2), "cuda:1", 1, None)
