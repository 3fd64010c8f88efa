"""The processes of ranks 1 and up: rank 0 starts them, sends them every step, and ends them."""

from __future__ import annotations

import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import Any

from vlmc import errors
from vlmc.distributed.channel import Channel, to_json
from vlmc.errors import HardwareError, ModelLostError, VlmcError
from vlmc.files.strict_json import parse_json
from vlmc.machine.child_process import module_command, module_environment

_END_SECONDS = 10.0
_NOTICE_SECONDS = 5.0


class Reply(IntEnum):
    """Kinds of messages from a follower."""

    DONE = 0
    FAILED = 1


class Followers:
    """Processes that run what rank 0 runs, each on its shard.

    One that ends, fails or falls out of step ends the group: all calls raise its error from then
    on. They end with `close`, and whenever this process ends.
    """

    def __init__(self, module: str, settings: Sequence[dict[str, Any]]) -> None:
        """Start `python -m module FD` for each of `settings`, which the first message holds.

        Each also holds `folder`, in which the processes may find each other.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="vlmc-group-"))
        self.on_failure: Callable[[], None] = lambda: None
        self._failure: VlmcError | None = None
        self._failed = threading.Event()
        self._closing = False
        self._names = [f"rank {rank} on {each['device']}" for rank, each in enumerate(settings, 1)]
        self._replies: list[queue.Queue[dict[str, Any]]] = [queue.Queue() for _ in settings]
        self._channels: list[Channel] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []
        try:
            for index, each in enumerate(settings):
                process, channel = _start(module)
                self._processes.append(process)
                self._channels.append(channel)
                thread = threading.Thread(
                    target=self._watch, args=(index,), name="vlmc-follower", daemon=True
                )
                thread.start()
                self._threads.append(thread)
                with suppress(OSError):  # one that has ended already is noticed by its thread
                    channel.send(0, to_json({**each, "folder": str(self.folder)}))
        except BaseException:
            self.close()
            raise

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Of the followers, by rank."""
        return tuple(process.pid for process in self._processes)

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Send a message to all followers.

        Raises:
            VlmcError: a follower has ended or failed.
        """
        self.check()
        try:
            for channel in self._channels:
                channel.send(kind, payload)
        except OSError as error:
            raise self.failure(error) from error

    def gather(self) -> list[dict[str, Any]]:
        """Wait for one reply of each follower.

        Raises:
            VlmcError: a follower has ended or failed.
        """
        found = []
        for replies in self._replies:
            while True:
                self.check()
                try:
                    found.append(replies.get(timeout=0.1))
                    break
                except queue.Empty:
                    continue
        return found

    def check(self) -> None:
        """Raise the error of the follower that failed first, if one did."""
        if self._failure is not None:
            raise self._failure

    def failure(self, error: BaseException) -> VlmcError:
        """What to report in place of `error`, which interrupted a step: the group is out of step.

        Where a follower failed, its error explains this one.
        """
        if not self._failed.wait(_NOTICE_SECONDS):
            self._fail(
                ModelLostError(
                    f"a step on several devices failed ({error}), and the model cannot go on. "
                    "Load it again; if memory was short, with a smaller runtime.max_batch_tokens."
                )
            )
        return self._failure or VlmcError(str(error))

    def close(self) -> None:
        """End all followers and wait for them; closing again does nothing."""
        if self._closing:
            return
        self._closing = True
        for channel in self._channels:
            channel.close()
        for process in self._processes:
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for thread in self._threads:
            thread.join(_END_SECONDS)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _watch(self, index: int) -> None:
        """Collect a follower's replies, and notice its end."""
        channel, name = self._channels[index], self._names[index]
        while True:
            try:
                kind, payload = channel.receive()
            except EOFError:
                if not self._closing:
                    self._fail(_ended(name, self._processes[index]))
                return
            if kind == Reply.FAILED:
                values = parse_json(payload)
                made = getattr(errors, values["type"], HardwareError)
                made = ModelLostError if issubclass(made, HardwareError) else made
                self._fail(made(f"{name}: {values['message']}"))
            else:
                self._replies[index].put(parse_json(payload))

    def _fail(self, error: VlmcError) -> None:
        if self._failure is None:
            self._failure = error
            self._failed.set()
            self.on_failure()


def _start(module: str) -> tuple[subprocess.Popen[bytes], Channel]:
    """A process with a channel to it. Ctrl-C reaches this process alone, which then ends it."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            module_command(module, str(theirs.fileno())),
            stdin=subprocess.DEVNULL,
            stdout=sys.__stderr__.fileno() if sys.__stderr__ is not None else subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=module_environment(),
            process_group=0,
        )
    return process, Channel(ours)


def _ended(name: str, process: subprocess.Popen[bytes]) -> ModelLostError:
    try:
        code = process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        reason = "closed its connection"
    else:
        reason = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
    return ModelLostError(
        f"the process of {name} {reason}, and the model cannot go on without it. Load it again; "
        "if the system ended it (see dmesg), memory was short."
    )
