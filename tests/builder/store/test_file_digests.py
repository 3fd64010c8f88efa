"""Digests are remembered for files that stay as they are, and for no others."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from vlmc.builder.store.file_digests import FileDigests

OLD_NS = 1_700_000_000_000_000_000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    return path


def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clock stand an hour later, since a file's own time of change cannot be set."""
    later = time.time_ns() + 3_600_000_000_000
    monkeypatch.setattr("vlmc.builder.store.file_digests.time.time_ns", lambda: later)


def test_digest_is_remembered_by_other_processes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(monkeypatch)
    first = FileDigests(tmp_path / "cache")
    assert first.known(source) is None
    assert not (tmp_path / "cache").exists(), "asking writes nothing"
    expected = hashlib.sha256(b"weights").hexdigest()
    assert first.digests([source]) == {"model.safetensors": expected}
    assert FileDigests(tmp_path / "cache").known(source) == expected
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_young_file_is_not_remembered(source: Path, tmp_path: Path) -> None:
    digests = FileDigests(tmp_path / "cache")
    digest = digests.digest(source)
    assert digests.known(source) == digest, "within a build it is"
    assert FileDigests(tmp_path / "cache").known(source) is None


@pytest.mark.parametrize("how", ["content", "content, old times", "replaced", "moved"])
def test_changed_file_is_read_again(
    how: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(monkeypatch)
    os.utime(source, ns=(OLD_NS, OLD_NS))
    digests = FileDigests(tmp_path / "cache")
    old = digests.digest(source)
    if how == "replaced":
        other = source.with_name("other")
        other.write_bytes(b"WEIGHTS")
        other.replace(source)
    elif how == "moved":
        source = source.rename(source.with_name("other"))
    else:
        source.write_bytes(b"WEIGHTS")
    if how != "content":
        os.utime(source, ns=(OLD_NS, OLD_NS))
    for one in (digests, FileDigests(tmp_path / "cache")):
        assert one.known(source) is None
    assert (digests.digest(source) == old) == (how == "moved")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"stamp": 1, "path": "x", "sha256": ""}'])
def test_cut_memory_is_no_memory(
    text: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(monkeypatch)
    digest = FileDigests(tmp_path / "cache").digest(source)
    (stored,) = (tmp_path / "cache" / "digests").iterdir()
    stored.write_text(text)
    assert FileDigests(tmp_path / "cache").known(source) is None
    assert FileDigests(tmp_path / "cache").digest(source) == digest


def test_memory_that_cannot_be_kept_stops_nothing(source: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert FileDigests(tmp_path / "cache").digest(source)
