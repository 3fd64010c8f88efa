"""Processes that follow this one: replies, failures, ends."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from tests.distributed.failing import ECHO, EXIT, FAIL
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
