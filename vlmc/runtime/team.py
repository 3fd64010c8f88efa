"""Rank 0's side of a model on several devices: check, start the others, join them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from vlmc.artifact.integrity import Artifact
from vlmc.artifact.manifest import RuntimeRules
from vlmc.distributed.followers import Followers
from vlmc.distributed.group import ALONE, Group, join_group
from vlmc.distributed.shard import Shard, check_devices
from vlmc.errors import HardwareError, UsageError
from vlmc.runtime.language import read_sizes
from vlmc.runtime.scheduler.lead import Lead

FOLLOWER = "vlmc.runtime.follower"


@dataclass(frozen=True, slots=True)
class Team:
    """The group of rank 0, and its followers; both do nothing on one device."""

    group: Group
    followers: Followers | None

    @property
    def lead(self) -> Lead:
        """What announces steps to the followers."""
        return Lead(self.followers)

    def wait(self) -> None:
        """Wait until all followers have loaded.

        Raises:
            VlmcError: one of them failed.
        """
        if self.followers is not None:
            self.followers.gather()


@contextmanager
def open_team(
    artifact: Artifact,
    device: torch.device,
    devices: int,
    *,
    rules: RuntimeRules,
    engine: str | None,
    self_test: bool,
) -> Iterator[Team]:
    """Start the followers of a model on `devices` devices, the first of which is `device`.

    They end if the body fails; otherwise whoever has taken the team over ends them.

    Raises:
        UsageError: the number does not fit the model.
        HardwareError: the machine has fewer GPUs, or a follower failed.
    """
    check_number(devices)
    if devices == 1:
        yield Team(ALONE, None)
        return
    check_devices(*read_sizes(artifact), devices)
    model = {
        "artifact": artifact.to_json(),
        "engine": engine,
        "self_test": self_test,
        "runtime": asdict(rules),
    }
    with start_team(FOLLOWER, model, device, devices) as team:
        yield team


def check_number(devices: object) -> None:
    """Raise UsageError unless `devices` is a number of devices."""
    if isinstance(devices, bool) or not isinstance(devices, int) or devices < 1:
        raise UsageError(f"devices is {devices!r:.100}; it must be a number of devices, such as 2")


@contextmanager
def start_team(
    module: str, model: dict[str, Any], device: torch.device, devices: int
) -> Iterator[Team]:
    """Start `module` for every other rank, with `model` among its settings, and join them.

    The followers end if the body fails.
    """
    first = device.index or 0
    if device.type == "cuda" and first + devices > torch.cuda.device_count():
        raise HardwareError(
            f"devices={devices} from {device} on needs GPUs up to cuda:{first + devices - 1}, and "
            f"torch sees {torch.cuda.device_count()}. Use fewer devices, or choose the GPUs with "
            "CUDA_VISIBLE_DEVICES."
        )
    threads = max(1, torch.get_num_threads() // devices)
    followers = Followers(
        module,
        [
            {
                **model,
                "rank": rank,
                "count": devices,
                "device": f"cuda:{first + rank}" if device.type == "cuda" else "cpu",
                "threads": threads,
            }
            for rank in range(1, devices)
        ],
    )
    try:
        followers.gather()
        group = _join(followers, Shard(0, devices), device)
        followers.on_failure = group.close
        followers.check()  # one may have failed before
        yield Team(group, followers)
    except BaseException as error:
        # A collective operation fails where a follower has left it.
        explained = followers.failure(error) if isinstance(error, RuntimeError) else None
        followers.close()
        if explained is not None:
            raise explained from error
        raise


def _join(followers: Followers, shard: Shard, device: torch.device) -> Group:
    """Join the group on a thread, which waits for minutes for a process that has ended.

    Raises:
        VlmcError: a follower has ended or failed.
    """
    joined: Future[Group] = Future()

    def join() -> None:
        try:
            joined.set_result(join_group(shard, followers.folder, device))
        except BaseException as error:
            joined.set_exception(error)

    threading.Thread(target=join, name="vlmc-join", daemon=True).start()
    while not wait([joined], timeout=0.1).done:
        followers.check()
    return joined.result()
