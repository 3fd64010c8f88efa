"""Jobs that are killed at any moment and go on to the same file."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from tests.jobs.fake import write_images
from tests.jobs.small_job import output_files, run
from vlmc.errors import VlmcError
from vlmc.jobs.output.journal import Journal, recover

ROOT = Path(__file__).parents[2]


def start(source: Path, out: Path) -> subprocess.Popen[bytes]:
    """The job in a process of its own, with a batch of lines every few answers."""
    return subprocess.Popen([sys.executable, "-m", "tests.jobs.killing", source, out], cwd=ROOT)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_killed_job_goes_on_to_the_same_file(suffix: str, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 60, damaged=[0, 17, 59])
    out, undisturbed = tmp_path / f"killed{suffix}", tmp_path / f"undisturbed{suffix}"
    run(tmp_path / "images", undisturbed)
    random = Random(5)
    kills = 0
    journal = out if suffix == ".jsonl" else out.with_name(out.name + ".partial.jsonl")
    for _ in range(4):
        process = start(tmp_path / "images", out)
        wanted = (journal.stat().st_size if journal.exists() else 0) + random.randrange(9000)
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            if journal.exists() and journal.stat().st_size > wanted:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.002)
        process.wait()
        # A kill within a write leaves part of a line.
        if journal.exists() and process.returncode:
            os.truncate(journal, journal.stat().st_size - random.randrange(40))
    assert kills
    run(tmp_path / "images", out)
    assert out.read_bytes() == undisturbed.read_bytes()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"images", *output_files(out), *output_files(undisturbed)}


def test_every_cut_of_the_last_lines_is_recovered(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 2)
    out = tmp_path / "answers.jsonl"
    run(tmp_path / "images", out)
    whole = out.read_bytes()
    for length in range(0, len(whole) + 1, 7):
        out.write_bytes(whole[:length])
        run(tmp_path / "images", out)
        assert out.read_bytes() == whole
    # After a power loss a file can end in zeros.
    out.write_bytes(whole[:500] + bytes(300))
    run(tmp_path / "images", out)
    assert out.read_bytes() == whole


def test_a_full_disk_is_reported_and_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(VlmcError, match="Make room"), Journal(path) as journal:
            for row in range(100):
                journal.append({"row": row, "answer": "x" * 50})
                if row % 10 == 9:
                    journal.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    lines = path.read_text().splitlines()
    assert [json.loads(line)["row"] for line in lines] == list(range(len(lines)))
    assert len(lines) == 20
    assert recover(path, lambda index, line: line["row"] == index).lines == 20


def test_lines_of_a_failed_write_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were reported as lost, so that a later flush must not write them."""
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append({"row": 0})
        journal.flush()
        journal.append({"row": 1})
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", _no_space)
            with pytest.raises(VlmcError, match="No space left"):
                journal.flush()
        assert path.read_text() == '{"row": 0}\n'
        journal.append({"row": 1})
    assert path.read_text() == '{"row": 0}\n{"row": 1}\n'


def _no_space(_: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
