"""The output and the files beside it while a job runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vlmc.files.atomic import remove_temporaries
from vlmc.jobs.input.rows import Rows
from vlmc.jobs.output.journal import encode_line, read_journal, write_chunks
from vlmc.jobs.output.parquet import read_parquet_lines, write_parquet


@dataclass(frozen=True, slots=True)
class OutputFiles:
    """Where a job writes.

    `journal` gathers the lines. It is the output itself unless that is Parquet: then it exists
    until all lines are there, and where both exist the journal counts. `corrections` gathers the
    lines that replace those of the journal. `index` is of the image files.
    """

    out: Path
    journal: Path
    corrections: Path
    index: Path

    @classmethod
    def of(cls, out: Path) -> OutputFiles:
        parquet = out.suffix == ".parquet"
        return cls(
            out,
            out.with_name(out.name + ".partial.jsonl") if parquet else out,
            out.with_name(out.name + ".retry.jsonl"),
            out.with_name(out.name + ".files.jsonl"),
        )

    @property
    def started(self) -> bool:
        return self.out.exists() or self.journal.exists()

    def remove_leftovers(self) -> None:
        """Remove what a kill left unfinished, and what belongs to an output that was removed."""
        for path in (self.out, self.journal, self.index):
            remove_temporaries(path)
        if not self.started:
            self.corrections.unlink(missing_ok=True)

    @contextmanager
    def opened(
        self, rows: Rows, columns: tuple[str, ...], complete: Callable[[], bool]
    ) -> Iterator[None]:
        """Have the journal within; then write the output in its own form if it is `complete`."""
        if self.journal == self.out:
            yield
            return
        as_unpacked = None
        if self.out.exists() and not self.journal.exists():
            lines = read_parquet_lines(self.out, columns)
            write_chunks(self.journal, map(encode_line, lines))
            as_unpacked = _version(self.journal)
        yield
        if not complete():
            return
        if _version(self.journal) != as_unpacked:
            write_parquet(self.out, read_journal(self.journal), rows, columns)
        self.journal.unlink()


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_size
