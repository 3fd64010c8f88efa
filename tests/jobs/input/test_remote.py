"""Inputs at addresses of fsspec: memory:// here, as s3:// elsewhere."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.jobs.fake import FakeModel
from tests.jobs.input.shards import write_shard
from tests.jobs.input.write import jpeg, write_jsonl
from tests.jobs.small_job import PROMPTS, run
from vlmc.errors import UsageError, VlmcError
from vlmc.jobs.input.open import open_input
from vlmc.jobs.input.remote import RemoteFile, is_remote
from vlmc.jobs.output.upload import upload, writable_output
from vlmc.jobs.question_runner import Outcome, Work
from vlmc.runtime.requests.request import Request


@pytest.fixture
def bucket() -> Iterator[str]:
    """The address of an empty folder in memory."""
    yield "memory://bucket"
    memory = fsspec.filesystem("memory")
    if memory.exists("/bucket"):
        memory.rm("/bucket", recursive=True)


def put(url: str, content: bytes | str) -> str:
    data = content.encode() if isinstance(content, str) else content
    fsspec.filesystem("memory").pipe_file(url.removeprefix("memory:/"), data)
    return url


def lines_of(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.open()]


@pytest.mark.parametrize(
    ("text", "remote"),
    [
        ("s3://bucket/a.jpg", True),
        ("file:///a.jpg", True),
        ("memory://a", True),
        ("simplecache::https://host/a.jpg", True),
        ("https://host/a.jpg", False),
        ("HTTP://host/a.jpg", False),
        ("data:image/png;base64,", False),
        ("c:/a.jpg", False),
        ("folder/a.jpg", False),
        ("a::b.jpg", False),
    ],
)
def test_addresses(text: str, remote: bool) -> None:
    assert is_remote(text) is remote


def test_tables_and_their_images(bucket: str, tmp_path: Path) -> None:
    put(f"{bucket}/images/a.jpg", jpeg(10))
    (tmp_path / "b.jpg").write_bytes(jpeg(11))
    rows = [
        {"image": "images/a.jpg"},
        {"image": f"file://{tmp_path}/b.jpg"},
        {"image": f"{bucket}/images/absent.jpg"},
        {"image": "https://host/a.jpg"},
        {"image": [f"{bucket}/images/a.jpg", "images/a.jpg"]},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    out = tmp_path / "answers.jsonl"
    for source in (put(f"{bucket}/rows.jsonl", text), str(tmp_path / "rows.jsonl")):
        (tmp_path / "rows.jsonl").write_text(text.replace("images/a", f"{bucket}/images/a", 1))
        out.unlink(missing_ok=True)
        model = FakeModel()
        summary = run(source, out, PROMPTS[:1], model)
        assert summary.errors == (2 if source.startswith("memory") else 3)
        lines = lines_of(out)
        assert (
            lines[2]["error"]
            == f"{bucket}/images/absent.jpg: there is no such file; check the path"
        )
        assert "is a URL, and vlmc reads" in str(lines[3]["error"])
        assert lines[0]["answer"] != lines[1]["answer"]
    csv = put(f"{bucket}/rows.csv", "image,n\nimages/a.jpg,1\n")
    assert [row.image for row in open_input(csv).read()] == [RemoteFile(f"{bucket}/images/a.jpg")]
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": ["images/a.jpg"], "n": [1]}), buffer)
    parquet = open_input(put(f"{bucket}/rows.parquet", buffer.getvalue()))
    assert [row.image for row in parquet.read()] == [RemoteFile(f"{bucket}/images/a.jpg")]
    with pytest.raises(UsageError, match=r"memory://bucket/none\.jsonl: there is no such file"):
        open_input(f"{bucket}/none.jsonl")


def test_folders_patterns_and_changes(bucket: str, tmp_path: Path) -> None:
    for name, content in {
        "p/a.jpg": jpeg(10),
        "p/deep/b": jpeg(11),
        "p/.hidden.jpg": jpeg(12),
        "p/notes.txt": b"words",
    }.items():
        put(f"{bucket}/{name}", content)
    out = tmp_path / "answers.jsonl"
    summary = run(f"{bucket}/p", out, PROMPTS[:1])
    assert (summary.rows, summary.errors) == (2, 0)
    assert dict(summary.left_out) == {"hidden": 1, ".txt": 1}
    again = FakeModel()
    assert not run(f"{bucket}/p", out, PROMPTS[:1], again).changes and not again.asked
    put(f"{bucket}/p/c.jpg", jpeg(13))
    put(f"{bucket}/p/a.jpg", jpeg(14))
    fsspec.filesystem("memory").rm_file("/bucket/p/deep/b")
    changes = run(f"{bucket}/p", out, PROMPTS[:1]).changes
    found = [len(names) for names in (changes.added, changes.removed, changes.changed)]
    assert found == [1, 1, 1]
    assert len(lines_of(out)) == 3
    assert len(open_input(f"{bucket}/p/*.jpg")) == 2
    assert len(open_input(f"{bucket}/p/a.jpg")) == 1
    for missing in (f"{bucket}/none", f"{bucket}/none/*.jpg"):
        with pytest.raises(UsageError, match=r"no such file|has no image file"):
            open_input(missing)


def test_shards(bucket: str, tmp_path: Path) -> None:
    for number in range(2):
        path = write_shard(tmp_path / "s.tar", {f"{number}.jpg": jpeg(10 + number)})
        put(f"{bucket}/s-{number}.tar", path.read_bytes())
    for pattern in ("s-*.tar", "s-{0..1}.tar"):
        rows = list(open_input(f"{bucket}/{pattern}").read())
        assert [row.image for row in rows] == [jpeg(10), jpeg(11)]


def test_outputs_are_uploaded_whole(bucket: str, tmp_path: Path) -> None:
    put(f"{bucket}/p/a.jpg", jpeg(10))
    url = f"{bucket}/out/{tmp_path.name}.jsonl"
    local = writable_output(url)
    run(f"{bucket}/p", local, PROMPTS[:1])
    assert not RemoteFile(url).exists()
    upload(local, RemoteFile(url))
    assert RemoteFile(url).read() == local.read_bytes()
    assert fsspec.filesystem("memory").ls("/bucket/out", detail=False) == [url[8:]]
    # The same machine may go on, and knows what is done.
    assert run(f"{bucket}/p", writable_output(url), PROMPTS[:1]).resumed == 1
    put(f"{bucket}/other.jsonl", "of another machine\n")
    with pytest.raises(UsageError, match="cannot be resumed here; choose another output"):
        writable_output(f"{bucket}/other.jsonl")
    with pytest.raises(VlmcError, match=r"The complete output is in .*to upload it"):
        upload(local, RemoteFile("file:///proc/none/a.jsonl"))
    with pytest.raises(UsageError, match=r"file:///proc/none/a\.jsonl: cannot be written"):
        writable_output("file:///proc/none/a.jsonl")
    assert writable_output("answers.jsonl") == Path("answers.jsonl")


def test_images_are_fetched_side_by_side_and_once(bucket: str, tmp_path: Path) -> None:
    images = 8
    together = threading.Barrier(images, timeout=60)

    class Store(MemoryFileSystem):  # type: ignore[misc]
        """Answers once all images are asked for."""

        protocol = "slow"
        asked: ClassVar[list[str]] = []

        def cat_file(self, path: str, **options: Any) -> bytes:
            self.asked.append(path)
            together.wait()
            return jpeg()

    class Ahead(FakeModel):
        """Reads all requests before the first image is decoded."""

        def try_each(
            self, requests: Iterable[tuple[Request, Work]]
        ) -> Generator[Outcome, None, None]:
            yield from super().try_each(list(requests))

    fsspec.register_implementation("slow", Store, clobber=True)
    rows = write_jsonl(tmp_path / "r.jsonl", *({"image": f"slow://{n}.jpg"} for n in range(images)))
    assert run(rows, tmp_path / "answers.jsonl", model=Ahead()).errors == 0
    assert len(Store.asked) == images


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"nothing://a/b\.jsonl: cannot be opened"):
        open_input("nothing://a/b.jsonl")
    with pytest.raises(UsageError, match=r"https://host/rows\.jsonl: is a web address"):
        open_input("https://host/rows.jsonl")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(UsageError, match=r"remote files need fsspec .*\[remote\]"):
        open_input("memory://bucket/a.jsonl")
