"""A process of rank 1 or up: its shard of a model, run as rank 0 says.

Run as `python -m vlmc.runtime.follower FD`; the socket FD brings first the settings and then every
step. The process ends when the other end closes.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlmc.artifact.integrity import Artifact
from vlmc.artifact.manifest import RuntimeRules
from vlmc.distributed.channel import Channel, to_json
from vlmc.distributed.followers import Reply
from vlmc.distributed.group import Group, join_group
from vlmc.distributed.shard import Shard
from vlmc.errors import VlmcError
from vlmc.files.strict_json import parse_json
from vlmc.models.language.decoder import Decoder
from vlmc.runtime.assemble import with_graphs
from vlmc.runtime.engines.engine import VisionEngine
from vlmc.runtime.engines.parallel_engine import encode_share, receive_tiles
from vlmc.runtime.engines.selection import choose, open_engine
from vlmc.runtime.engines.self_test import check_golden
from vlmc.runtime.language import open_language
from vlmc.runtime.memory_plan import cache_tokens
from vlmc.runtime.reference_path import run_row
from vlmc.runtime.scheduler.lead import Lead, Order, unpack_rows
from vlmc.runtime.scheduler.service import make_runner
from vlmc.runtime.scheduler.step_runner import StepRunner


@dataclass(frozen=True, slots=True)
class FollowedModel:
    """A rank's parts of a model."""

    decoder: Decoder
    engine: VisionEngine
    runner: StepRunner

    def run(self, kind: int, payload: bytes) -> None:
        """Run this rank's part of what rank 0 announced."""
        if kind == Order.STEP:
            self.runner.follow(*unpack_rows(payload))
        elif kind == Order.REPLAY:
            self.runner.follow_replay(unpack_rows(payload)[0])
        elif kind == Order.COPY_PAGE:
            source, target = np.frombuffer(payload, np.int32).tolist()
            self.runner.copy_page(source, target)
        elif kind == Order.ENCODE:
            (count,) = np.frombuffer(payload, np.int32).tolist()
            tiles = receive_tiles(count, self.decoder.embed_tokens.weight.device)
            encode_share(self.engine, self.decoder.group, tiles)
        elif kind == Order.REFERENCE:
            tokens, max_new_tokens, stop_id, choices = parse_json(payload)
            weight = self.decoder.embed_tokens.weight
            row = weight.new_empty(tokens, weight.shape[1])
            run_row(self.decoder, row, max_new_tokens, stop_id, choices)
        else:
            raise ValueError(f"rank 0 sent a message of kind {kind}")


Parts = tuple[Decoder, VisionEngine]
OpenParts = Callable[[Mapping[str, Any], torch.device, Group], Parts]


def follow(open_parts: OpenParts, model: type[FollowedModel] = FollowedModel) -> None:
    """Load as rank 0 says, then run what it runs; never returns.

    Args:
        open_parts: makes this rank's decoder and engine by the settings.
        model: what runs the messages.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 decides what it means
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    messages: queue.Queue[tuple[int, bytes]] = queue.Queue()
    threading.Thread(target=_receive, args=(channel, messages), daemon=True).start()
    try:
        with torch.inference_mode():
            followed = _load(parse_json(messages.get()[1]), channel, open_parts, model)
            while True:
                followed.run(*messages.get())
    except Exception as error:
        name, text = type(error).__name__, str(error)
        if not isinstance(error, VlmcError):
            traceback.print_exc()
            name, text = "HardwareError", f"{name}: {text}"
        with suppress(OSError):
            channel.send(Reply.FAILED, to_json({"type": name, "message": text}))
        sys.stderr.flush()
        os._exit(1)


def _receive(channel: Channel, messages: queue.Queue[tuple[int, bytes]]) -> None:
    """Collect messages; ends the process with rank 0, whatever it waits for."""
    while True:
        try:
            messages.put(channel.receive())
        except EOFError:
            # Not sys.exit: the process may wait for a GPU that waits for rank 0.
            os._exit(0)


def _load(
    settings: Mapping[str, Any],
    channel: Channel,
    open_parts: OpenParts,
    model: type[FollowedModel],
) -> FollowedModel:
    device = torch.device(settings["device"])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(settings["threads"])
    channel.send(Reply.DONE, to_json({}))  # rank 0 joins once all have come so far
    shard = Shard(settings["rank"], settings["count"])
    group = join_group(shard, Path(settings["folder"]), device)
    decoder, engine = open_parts(settings, device, group)
    rules = RuntimeRules(**settings["runtime"])
    engine = with_graphs(engine, rules)
    channel.send(Reply.DONE, to_json({}))
    tokens = cache_tokens(decoder, rules.max_batch_tokens)
    return model(decoder, engine, make_runner(decoder, rules, tokens, Lead()))


def open_artifact_parts(settings: Mapping[str, Any], device: torch.device, group: Group) -> Parts:
    """This rank's decoder and engine of the artifact that rank 0 has checked."""
    artifact = Artifact.from_json(settings["artifact"]).confirmed()
    chosen = choose(artifact.manifest, artifact.folder, device, settings["engine"])
    decoder, _ = open_language(artifact, device, group)
    engine = open_engine(artifact, chosen, device)
    if settings["self_test"]:
        check_golden(artifact, chosen, engine)
    return decoder, engine


if __name__ == "__main__":
    follow(open_artifact_parts)
