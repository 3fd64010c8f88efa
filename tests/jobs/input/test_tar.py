"""Webdataset shards as an input."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.jobs.fake import FakeModel
from tests.jobs.input.shards import write_shard
from tests.jobs.input.write import jpeg
from tests.jobs.small_job import PROMPTS, run
from vlmc.errors import UsageError
from vlmc.jobs.input.open import open_input
from vlmc.jobs.input.tar import KEY, TarRows


def two_shards(folder: Path) -> str:
    """Five samples in two shards, and the pattern of both."""
    write_shard(
        folder / "s-00.tar",
        {
            "a/1.jpg": jpeg(10),
            "a/1.json": '{"label": "是", "n": [1]}',
            "a/1.txt": "one",
            "a/2.jpg": jpeg(11)[:200],
            "a/2.cls": "7",
            "._a": b"x",
            "README": b"not an image",
        },
    )
    write_shard(
        folder / "s-01.tar",
        {"b.left.png": jpeg(12), "b.right": jpeg(13), "b.npy": b"array", "c.txt": "no image"},
        "w:gz",
    )
    return str(folder / "s-*.tar")


def test_samples_are_rows(tmp_path: Path) -> None:
    rows = open_input(two_shards(tmp_path))
    assert isinstance(rows, TarRows) and not rows.prompted and not rows.text_only
    assert rows.columns == (KEY, "json", "txt", "cls")
    assert dict(rows.left_out) == {"hidden": 1, "without suffix": 1, ".npy": 1}
    assert rows.image_counts() == {1, 2}
    first, second, both, none = rows.read()
    assert first.name == f"{tmp_path}/s-00.tar/a/1.jpg" and first.image == jpeg(10)
    assert first.columns == {KEY: "a/1", "json": {"label": "是", "n": [1]}, "txt": "one"}
    assert second.columns == {KEY: "a/2", "cls": 7}
    assert both.image == [jpeg(12), jpeg(13)]
    assert both.name == [f"{tmp_path}/s-01.tar/b.{part}" for part in ("left.png", "right")]
    assert none.missing and none.columns == {KEY: "c", "txt": "no image"}
    for start in range(5):
        assert [row.number for row in rows.read(start)] == list(range(start, 4))
    assert [row.columns for row in rows.read_columns()] == [row.columns for row in rows.read()]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_job_on_shards(suffix: str, tmp_path: Path) -> None:
    source, out = two_shards(tmp_path / "shards"), tmp_path / f"answers{suffix}"
    model = FakeModel()
    summary = run(source, out, PROMPTS[:2], model)
    assert (summary.rows, summary.answers, summary.errors) == (4, 4, 4)
    lines = (
        pq.read_table(out).to_pylist()
        if suffix == ".parquet"
        else [json.loads(line) for line in out.open()]
    )
    assert [line[KEY] for line in lines[::2]] == ["a/1", "a/2", "b", "c"]
    assert "the sample c has no image" in lines[-1]["error"]
    assert lines[0]["json"]["label"] == "是" and lines[2]["cls"] == 7
    # Names and contents count, and not the shards: what is done stays done.
    again = FakeModel()
    assert run(source, out, PROMPTS[:2], again).resumed == 8 and not again.asked
    # Nothing is extracted.
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"shards", out.name, f"{out.name}.ledger.json"}


def test_keys_and_contents_identify_shards(tmp_path: Path) -> None:
    one = {"a.jpg": jpeg(10), "b.jpg": jpeg(11)}
    before = open_input(str(write_shard(tmp_path / "one.tar", one))).identity
    for name, members in {"x-0.tar": {"a.jpg": jpeg(10)}, "x-1.tar": {"b.jpg": jpeg(11)}}.items():
        write_shard(tmp_path / name, members)
    assert open_input(f"{tmp_path}/x-{{0..1}}.tar").identity == before
    assert open_input(f"{tmp_path}/x-{{1..1}}.tar").identity != before
    for changed in ({"a.jpg": jpeg(10), "c.jpg": jpeg(11)}, {"a.jpg": jpeg(10), "b.jpg": jpeg(12)}):
        path = write_shard(tmp_path / "two.tar", changed)
        assert open_input(str(path)).identity != before
    out = tmp_path / "answers.jsonl"
    run(tmp_path / "one.tar", out)
    with pytest.raises(UsageError, match=r"started as another job; input: was .* samples"):
        run(tmp_path / "two.tar", out)


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    whole = write_shard(tmp_path / "cut.tar", {"a.jpg": jpeg(10), "b.jpg": jpeg(11)})
    content = whole.read_bytes()
    second = content.index(b"b.jpg")
    whole.write_bytes(content[: second + 100])
    (tmp_path / "cut-data.tar").write_bytes(content[: second + 700])
    (tmp_path / "broken.tar").write_bytes(content[:second] + b"?" + content[second + 1 :])
    (tmp_path / "text.tar").write_bytes(b"x" * 2000)
    write_shard(
        tmp_path / "bad.tar", {"a.json": "{", "a.jpg": jpeg(), "b.cls": "x", "b.jpg": jpeg()}
    )
    write_shard(tmp_path / "empty.tar", {})
    with tarfile.open(tmp_path / "twice.tar", "w") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
    for name, said in {
        "cut.tar": r"cut\.tar: is not a whole tar file",
        "cut-data.tar": r"is not a whole tar file",
        "broken.tar": "a broken header",
        "text.tar": r"is not a whole tar file",
        "bad.tar": r"2 rows have errors:\n.*sample a: its json cannot (.|\n)*sample b: its cls",
        "empty.tar": "has no row",
        "absent.tar": "there is no such file",
        "absent-*.tar": "no shard matches",
        "x-{3..1}.tar": "from the lower to the higher",
        "twice.tar": r"has a\.txt twice",
    }.items():
        with pytest.raises(UsageError, match=said):
            open_input(str(tmp_path / name))


def test_links_and_large_members_are_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        link = tarfile.TarInfo("a.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        member = tarfile.TarInfo("b.jpg")
        member.size = len(jpeg())
        tar.addfile(member, io.BytesIO(jpeg()))
    rows = open_input(str(tmp_path / "s.tar"))
    assert len(rows) == 1 and dict(rows.left_out) == {"not a regular file": 1}
