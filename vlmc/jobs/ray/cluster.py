"""The Ray cluster that a job runs on: one of this machine, or one at an address."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vlmc.distribution import install_command
from vlmc.errors import HardwareError, UsageError
from vlmc.files.units import shorten
from vlmc.jobs.ray.address import AUTO, LOCAL, host_and_port
from vlmc.jobs.stop import interrupts_deferred
from vlmc.progress.channel import report
from vlmc.progress.events import Progress

PORT_SECONDS, ANSWER_SECONDS = 4, 10
CORES_PER_WORKER = 4
"""Of a CPU, if nothing else is said: a model gains little from more, and each holds its weights."""
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# Beside a slow model, processes that prepare images idle for longer than the second that Ray lets
# them on a machine of few cores, and starting one costs as much as a hundred images.
_KEPT = {"RAY_idle_worker_killing_time_threshold_ms": "600000"}
_AUTH, _TOKEN = "RAY_AUTH_MODE", Path("~/.ray/auth_token")
_CONNECT = "import ray, sys; ray.init(sys.argv[1], logging_level='ERROR', log_to_driver=False)"


@dataclass(frozen=True, slots=True)
class Slots:
    """`count` workers on `device`: `gpus` GPUs each, or `cores` cores each."""

    count: int
    device: str
    cores: int | None = None
    gpus: int = 0

    @property
    def options(self) -> dict[str, Any]:
        """What Ray reserves for a worker: of its cores all but one, or half of a single one. The
        rest prepares images."""
        cpus = 0.5 if self.cores is None or self.cores < 2 else self.cores - 1
        return {"num_gpus": self.gpus, "num_cpus": cpus}


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """The module `ray`, connected to `local`, `auto`, `HOST:PORT` or `ray://HOST:PORT`.

    `local` is a cluster that ends with the block, or else the one that this process has joined.

    Raises:
        UsageError: Ray is missing, or nothing answers at the address.
    """
    for name, value in (_QUIET | _KEPT).items():
        os.environ.setdefault(name, value)
    if importlib.util.find_spec("ray") is None:
        raise UsageError(f"--ray needs Ray; install it: {install_command('ray')}")
    report(Progress("starting Ray" if address == LOCAL else f"connecting to Ray at {address}"))
    if address != LOCAL:
        _check_answer(address)  # before Ray is imported, because it may set how to connect
    import ray

    if ray.is_initialized() and address == LOCAL:
        yield ray
        return
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == LOCAL:
        quiet |= {"num_cpus": len(os.sched_getaffinity(0)), "include_dashboard": False}
    try:
        with interrupts_deferred():  # one within makes the process crash at its end
            ray.init(address, **quiet)
        yield ray
    finally:
        with interrupts_deferred():
            ray.shutdown()


def find_slots(ray: Any, device: str, devices: int, workers: int | None) -> Slots:
    """Where the workers run: by default one on each GPU, or where `devices` GPUs share a model, on
    each so many; without GPUs one for every `CORES_PER_WORKER` cores.

    Raises:
        UsageError: there is no room for so many.
        HardwareError: `device` is cuda, and the cluster has no GPU.
    """
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"--device is {device}, but with --ray each worker is given its own GPU; use cuda, cpu "
            "or auto"
        )
    if device == "cuda" and not gpus:
        raise HardwareError(
            "the Ray cluster has no GPU, and --device cuda needs one; use --device cpu, or start "
            "Ray on machines with GPUs"
        )
    on_gpus = device != "cpu" and gpus > 0
    most = gpus // devices if on_gpus else max(1, cpus)
    if (workers or 1) > most:
        count, kind = (gpus, "GPU") if on_gpus else (cpus, "core")
        raise UsageError(
            f"--workers is {workers or 1} and --devices {devices}, but the Ray cluster has "
            f"{count} {kind}{'s' * (count != 1)}; lower one of them"
        )
    if on_gpus:
        return Slots(workers or most, "cuda", gpus=devices)
    count = workers or max(1, cpus // CORES_PER_WORKER)
    return Slots(count, "cpu", max(1, cpus // count))


def _check_answer(address: str) -> None:
    """Raise `UsageError` unless a Ray cluster answers; Ray itself would wait for minutes."""
    try:
        if address != AUTO:
            with socket.create_connection(host_and_port(address), PORT_SECONDS):
                pass
        try:
            _try_connecting(address)
        except subprocess.SubprocessError:
            # Once a user has a token, `ray start` asks for it, but a driver elsewhere sends it only
            # if it is told to.
            if _AUTH in os.environ or not _TOKEN.expanduser().exists():
                raise
            _try_connecting(address, {_AUTH: "token"})
            os.environ[_AUTH] = "token"
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        said = shorten(last.partition(": ")[2] or last, 400)
    except subprocess.TimeoutExpired:
        said = f"no answer in {ANSWER_SECONDS} s"
    except OSError as error:
        said = str(error.strerror or error)
    else:
        return
    raise UsageError(
        f"no Ray cluster answers at {address} ({said}). Start one with `ray start --head`, correct "
        "the address, or give --ray without one to use this machine alone. If the cluster belongs "
        "to another user, copy their Ray token (`ray get-auth-token`) to RAY_AUTH_TOKEN, and set "
        f"{_AUTH}=token"
    )


def _try_connecting(address: str, settings: Mapping[str, str] = MappingProxyType({})) -> None:
    """Connect in a process of its own; raises `SubprocessError` where that fails."""
    subprocess.run(
        [sys.executable, "-c", _CONNECT, address],
        check=True,
        capture_output=True,
        text=True,
        timeout=ANSWER_SECONDS,
        env={**os.environ, **settings},
    )
