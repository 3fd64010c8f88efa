"""Processes that follow this one: replies, failures, ends."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.distributed.failing import ECHO, EXIT, FAIL
from vlmc.distributed import followers as followers_module
from vlmc.distributed.channel import Channel
from vlmc.distributed.followers import Followers
from vlmc.errors import HardwareError, IntegrityError

LARGE = 5 << 20  # more than a socket takes at once


@pytest.fixture
def followers() -> Iterator[Followers]:
    settings = [{"name": name, "device": "cpu"} for name in ("first", "second")]
    made = Followers("tests.distributed.failing", settings)
    yield made
    made.close()
    made.close()
    assert not made.folder.exists()
    for process in made.process_ids:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    assert "vlmc-follower" not in [thread.name for thread in threading.enumerate()]


def test_all_receive_and_reply_in_order(followers: Followers) -> None:
    followers.send(ECHO)
    followers.send(ECHO, bytes(LARGE))
    for size in (0, LARGE):
        assert followers.gather() == [
            {"name": "first", "bytes": size},
            {"name": "second", "bytes": size},
        ]
    followers.check()


def test_an_error_keeps_its_type_and_names_the_rank(followers: Followers) -> None:
    ended = threading.Event()
    followers.on_failure = ended.set
    followers.send(FAIL)
    with pytest.raises(IntegrityError, match=r"rank [12] on cpu: the file is damaged"):
        followers.gather()
    assert ended.is_set()
    with pytest.raises(IntegrityError):
        followers.send(ECHO)


def test_an_end_is_noticed_and_explains_what_it_interrupts(followers: Followers) -> None:
    followers.send(EXIT)
    error = followers.failure(RuntimeError("Connection reset by peer"))
    assert isinstance(error, HardwareError)
    assert "ended with 7" in str(error)
    assert "Load it again" in str(error)


def test_an_error_of_this_process_ends_the_group(
    followers: Followers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmc.distributed.followers._NOTICE_SECONDS", 0.01)
    error = followers.failure(MemoryError("out of memory"))
    assert "out of memory" in str(error)
    assert "max_batch_tokens" in str(error)
    with pytest.raises(HardwareError):
        followers.check()


def test_a_process_that_cannot_be_started_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = followers_module._start, []

    def start_one(module: str) -> tuple[subprocess.Popen[bytes], Channel]:
        if started:
            raise BlockingIOError("too many processes")
        started.append(start(module))
        return started[0]

    monkeypatch.setattr(followers_module, "_start", start_one)
    settings = [{"name": name, "device": "cpu"} for name in ("first", "second")]
    with pytest.raises(BlockingIOError):
        Followers("tests.distributed.failing", settings)
    assert started[0][0].poll() is not None


def test_a_file_of_the_current_folder_hides_no_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    made = Followers("tests.distributed.failing", [{"name": "first", "device": "cpu"}])
    try:
        made.send(ECHO)
        assert made.gather() == [{"name": "first", "bytes": 0}]
    finally:
        made.close()
