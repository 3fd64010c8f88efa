"""Webdataset shards: samples in tar files, read in order and never extracted."""

from __future__ import annotations

import hashlib
import json
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from vlmc.errors import UsageError
from vlmc.files.units import shorten
from vlmc.image.formats import IMAGE_SUFFIXES, RAW_SUFFIXES, content_looks_like_image
from vlmc.jobs.input.remote import Location, opened, place_text
from vlmc.jobs.input.rows import InputRow
from vlmc.jobs.input.table_errors import TableErrors
from vlmc.progress.channel import report
from vlmc.progress.events import Progress

KEY = "__key__"
MAX_MEMBER_BYTES = 1 << 30
REPORT_SAMPLES = 1000
# As webdataset decodes members, by the last part of their suffix.
_TEXT = {"txt", "text", "transcript"}
_INTEGER = {"cls", "cls2", "class", "count", "index", "inx", "id"}
_JSON = {"json", "jsn"}
_COLUMNS = _TEXT | _INTEGER | _JSON


@dataclass(slots=True)
class _Sample:
    """The members of one key: images by member name, and columns by suffix."""

    key: str
    shard: str
    images: dict[str, bytes] = field(default_factory=dict)
    columns: dict[str, bytes] = field(default_factory=dict)

    def row(self, number: int) -> InputRow:
        """The row, with its columns decoded; `UsageError` for one that cannot be."""
        names = [f"{self.shard}/{name}" for name in self.images]
        contents = list(self.images.values())
        columns: dict[str, Any] = {KEY: self.key}
        for suffix, content in self.columns.items():
            columns[suffix] = _decoded(content, suffix, f"{self.shard}, sample {self.key}")
        if len(names) == 1:
            return InputRow(number, contents[0], names[0], columns=columns)
        if not names:
            return InputRow(number, None, None, columns=columns, missing=True)
        return InputRow(number, list(contents), names, columns=columns)


class TarRows:
    """The samples of shards, each checked when they are opened.

    Members that follow each other and have the same name up to its first dot are a sample. Those
    that are images by name or content are its images, in their order. Those that webdataset decodes
    as text, numbers or JSON are columns by the rest of their name, such as `txt`; `__key__` is the
    sample's name. All others are left out and counted, such as members without a dot. The samples'
    names and contents identify the input, whatever the shards are called.

    Raises:
        UsageError: names the shard or the samples that are wrong.
    """

    prompted = text_only = False

    def __init__(self, source: str, shards: Sequence[Location]) -> None:
        self.source, self._shards = source, shards
        left_out: Counter[str] = Counter()
        columns: dict[str, None] = {KEY: None}
        counts: set[int] = set()
        errors = TableErrors(source)
        digest = hashlib.sha256()
        self._count = 0
        for sample in self._samples(0, True, left_out):
            with errors.collecting():
                sample.row(self._count)
            columns.update(dict.fromkeys(sample.columns))
            counts.add(len(sample.images))
            for name, content in (*sample.images.items(), *sample.columns.items()):
                head = json.dumps([sample.key, PurePosixPath(name).name, len(content)])
                digest.update(head.encode())
                digest.update(content)
            self._count += 1
            if self._count % REPORT_SAMPLES == 0:
                report(Progress("samples", self._count))
        errors.raise_if_any()
        self.columns, self.left_out = tuple(columns), left_out
        self.identity = f"{digest.hexdigest()}, {self._count} samples"
        self._image_counts = frozenset(counts - {0} or {0})

    def __len__(self) -> int:
        return self._count

    def image_counts(self) -> frozenset[int]:
        return self._image_counts

    def read(self, start: int = 0) -> Iterator[InputRow]:
        for number, sample in enumerate(self._samples(start, True, Counter()), start):
            yield sample.row(number)

    def read_columns(self) -> Iterator[InputRow]:
        """The rows without their images, whose content is not read."""
        for number, sample in enumerate(self._samples(0, False, Counter())):
            yield sample.row(number)

    def _samples(self, start: int, with_images: bool, left_out: Counter[str]) -> Iterator[_Sample]:
        """The samples from number `start` on; of those before nothing is read."""
        number = -1
        for shard in self._shards:
            name = place_text(shard)
            sample: _Sample | None = None
            with _naming_damage(name):
                for tar, member in _members(shard):
                    key, suffix = _split(member.name)
                    if kind := _unusual(member, key, suffix):
                        left_out[kind] += 1
                        continue
                    if sample is None or sample.key != key:
                        if sample is not None and number >= start:
                            yield sample
                        number += 1
                        sample = _Sample(key, name)
                    if number >= start:
                        _add(sample, member, suffix, tar, with_images, left_out)
            if sample is not None and number >= start:
                yield sample


def _members(shard: Location) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The members but folders, each with the archive to read it from before the next one."""
    with opened(shard) as file, tarfile.open(fileobj=file, mode="r:*") as tar:
        while (member := tar.next()) is not None:
            # The archive would keep every member's header.
            tar.members = []  # type: ignore[attr-defined]
            if not member.isdir():
                yield tar, member
        _check_end(tar)


@contextmanager
def _naming_damage(shard: str) -> Iterator[None]:
    """Raise `UsageError` for a damaged shard."""
    try:
        yield
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise UsageError(
            f"{shard}: is not a whole tar file ({error}); fetch it again, or leave it out"
        ) from error


def _check_end(tar: tarfile.TarFile) -> None:
    """`tarfile` takes a broken header for the end; only zeros or nothing are that."""
    if tar.fileobj is not None:
        tar.fileobj.seek(tar.offset)
        block = tar.fileobj.read(tarfile.BLOCKSIZE)
        if block.strip(b"\0") or 0 < len(block) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("a broken header")


def _add(
    sample: _Sample,
    member: tarfile.TarInfo,
    suffix: str,
    tar: tarfile.TarFile,
    with_images: bool,
    left_out: Counter[str],
) -> None:
    """Read a member into its sample, or count it as left out."""
    last = suffix.rpartition(".")[2].lower()
    is_column = last in _COLUMNS
    if not is_column and not with_images:
        return
    file = tar.extractfile(member)
    content = b"" if file is None else file.read()
    if is_column:
        if suffix in sample.columns:
            raise UsageError(f"{sample.shard}: has {shorten(member.name)} twice; remove one")
        sample.columns[suffix] = content
    elif f".{last}" in IMAGE_SUFFIXES or (
        f".{last}" not in RAW_SUFFIXES and content_looks_like_image(content)
    ):
        sample.images[member.name] = content
    else:
        left_out[f".{last}"] += 1


def _split(name: str) -> tuple[str, str]:
    """(key, suffix) of a member, split at the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    if not stem:
        return name, ""  # a hidden file
    return f"{folder}{slash}{stem}", suffix


def _unusual(member: tarfile.TarInfo, key: str, suffix: str) -> str | None:
    """The kind under which a member is left out whatever it holds."""
    if PurePosixPath(key).name.startswith("."):
        return "hidden"
    if not suffix:
        return "without suffix"
    if not member.isreg() or member.issparse():
        return "not a regular file"
    return f"larger than {MAX_MEMBER_BYTES >> 30} GiB" if member.size > MAX_MEMBER_BYTES else None


def _decoded(content: bytes, suffix: str, where: str) -> Any:
    last = suffix.rpartition(".")[2].lower()
    try:
        text = content.decode("utf-8")
        if last in _INTEGER:
            return int(text)
        return json.loads(text) if last in _JSON else text
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{where}: its {shorten(suffix)} cannot be read ({error}); correct it or leave it out"
        ) from error
