"""Outputs on a folder whose files are added, removed and changed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.jobs.fake import FakeModel, write_images
from tests.jobs.input.write import jpeg
from tests.jobs.small_job import PROMPTS, run
from vlmc.errors import IntegrityError, UsageError, VlmcError
from vlmc.jobs.file_index import InputChanges
from vlmc.jobs.output.columns import OUTPUT_COLUMNS
from vlmc.jobs.output.parquet import read_parquet_lines


def images_of(out: Path) -> list[tuple[int, str]]:
    lines = (
        read_parquet_lines(out, OUTPUT_COLUMNS)
        if out.suffix == ".parquet"
        else map(json.loads, out.open())
    )
    return [(line["row"], Path(line["image"]).name) for line in lines]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_added_files_get_new_rows_and_the_others_keep_theirs(suffix: str, tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / f"answers{suffix}"
    write_images(folder, 3)
    assert not run(folder, out, PROMPTS[:1]).changes
    (folder / "000-before.jpg").write_bytes(jpeg())
    (folder / "zz.jpg").write_bytes(jpeg(12))
    model = FakeModel()
    summary = run(folder, out, PROMPTS[:1], model)
    added = tuple(str(folder / name) for name in ("000-before.jpg", "zz.jpg"))
    assert summary.changes == InputChanges(added=added)
    assert (summary.rows, summary.answers, summary.resumed) == (5, 5, 3)
    assert [str(image) for image, _ in model.asked] == list(added)
    names = ["000.jpg", "001.jpg", "002.jpg", "000-before.jpg", "zz.jpg"]
    assert images_of(out) == list(enumerate(names))
    again = run(folder, out, PROMPTS[:1], model)
    assert not again.changes and again.resumed == 5 and len(model.asked) == 2


def test_removed_and_changed_files_are_said_and_keep_their_lines(tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "answers.jsonl"
    paths = write_images(folder, 4)
    run(folder, out)
    content = out.read_bytes()
    paths[1].unlink()
    paths[2].write_bytes(jpeg(30))
    os.utime(paths[3])
    model = FakeModel()
    for _ in range(2):
        summary = run(folder, out, model=model, retry_errors=True)
        assert summary.changes == InputChanges((), (str(paths[1]),), (str(paths[2]),))
        assert (summary.rows, summary.resumed) == (4, 12)
    assert str(summary.changes) == f"removed: 1 ({paths[1]}); changed: 1 ({paths[2]})"
    assert not model.asked and out.read_bytes() == content


def test_content_counts_and_not_the_time_or_size(tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "answers.jsonl"
    (path,) = write_images(folder, 1)
    run(folder, out)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(1, 1))
    assert run(folder, out).changes.changed == (str(path),)
    path.write_bytes(content)
    assert not run(folder, out).changes


@pytest.mark.parametrize("change", ["added", "removed", "changed"])
def test_strict_input_refuses_every_change(change: str, tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "answers.jsonl"
    paths = write_images(folder, 2)
    run(folder, out, strict_input=True)
    run(folder, out, strict_input=True)
    if change == "added":
        (folder / "new.jpg").write_bytes(jpeg())
    elif change == "removed":
        paths[0].unlink()
    else:
        paths[0].write_bytes(jpeg(31))
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    model = FakeModel()
    with pytest.raises(UsageError, match=rf"--strict-input refuses that; {change}: 1 \("):
        run(folder, out, model=model, strict_input=True)
    assert not model.asked
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}


def test_an_interrupted_job_goes_on_when_files_come_and_change(tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "answers.jsonl"
    paths = write_images(folder, 4)
    with pytest.raises(VlmcError, match="gone"):
        run(folder, out, PROMPTS[:2], FakeModel(fail_after=3))
    (folder / "000-new.jpg").write_bytes(jpeg())
    paths[0].write_bytes(jpeg(30))  # answered
    paths[1].write_bytes(jpeg(31))  # one of two questions answered
    paths[2].write_bytes(jpeg(32))  # not answered yet
    paths[3].unlink()
    with pytest.raises(VlmcError, match="gone"):
        run(folder, out, PROMPTS[:2], FakeModel(fail_after=2))
    summary = run(folder, out, PROMPTS[:2])
    assert summary.changes == InputChanges(
        removed=(str(paths[3]),), changed=(str(paths[0]), str(paths[1]))
    )
    assert (summary.answers, summary.errors) == (8, 2)
    names = ["000.jpg", "001.jpg", "002.jpg", "003.jpg", "000-new.jpg"]
    assert images_of(out) == [(row, name) for row, name in enumerate(names) for _ in range(2)]


def test_a_repaired_file_is_no_longer_changed_once_it_is_answered(tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "answers.jsonl"
    paths = write_images(folder, 2, damaged=[1])
    run(folder, out)
    write_images(folder, 2)
    assert run(folder, out).changes.changed == (str(paths[1]),)
    assert not run(folder, out, retry_errors=True).changes
    assert run(folder, out).errors == 0


def test_files_that_cannot_be_read_are_rows_too(tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "answers.jsonl"
    folder.mkdir()
    os.mkfifo(folder / "pipe.jpg")
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    assert run(folder, out).errors == 6
    assert not run(folder, out).changes
    (folder / "nowhere.jpg").write_bytes(jpeg())
    changes = run(folder, out).changes
    assert changes.changed == (str(folder / "gone.jpg"),) and len(changes.added) == 1


def test_a_damaged_or_missing_index_is_refused(tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "answers.jsonl"
    write_images(folder, 1)
    run(folder, out)
    index = tmp_path / "answers.jsonl.files.jsonl"
    for content in (b'{"path": "a", "x": 1}\n', b"[1]\n", b"{"):
        index.write_bytes(content)
        with pytest.raises(IntegrityError, match=r"files\.jsonl:1: is damaged"):
            run(folder, out)
    index.unlink()
    with pytest.raises(IntegrityError, match="cannot be read"):
        run(folder, out)
    out.unlink()
    assert run(folder, out).answers == 3
