"""Files that are replaced in one step."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from vlmc.files.atomic import (
    atomic_path,
    move_into_place,
    remove_temporaries,
    write_atomically,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_old_content_stays_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_atomically(path, "old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["report.json"]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_atomically(path, b"old")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["report.json"]


def test_no_other_user_reads_what_is_private(tmp_path: Path) -> None:
    path = tmp_path / "kernels.bin"
    with atomic_path(path, mode=0o600) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        temporary.write_bytes(b"kernels")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_leftovers_of_one_file_are_removed_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "out[1].jsonl"
    left = [".out[1].jsonl.0123abcd.tmp", ".out[1].jsonl.ffffffff.tmp"]
    kept = [".out1.jsonl.0123abcd.tmp", ".out[1].jsonl.tmp", "out[1].jsonl"]
    for name in (*left, *kept):
        (tmp_path / name).touch()
    remove_temporaries(path)
    assert names(tmp_path) == sorted(kept)


def test_a_folder_moves_as_a_whole(tmp_path: Path) -> None:
    folder, target = tmp_path / ".partial", tmp_path / "artifact"
    (folder / "below").mkdir(parents=True)
    private = folder / "below" / "file"
    private.write_text("text")
    usual = private.stat().st_mode
    private.chmod(0o600)
    move_into_place(folder, target)
    assert (target / "below" / "file").read_text() == "text"
    assert (target / "below" / "file").stat().st_mode == usual, "others may read it"
    assert names(tmp_path) == ["artifact"]
