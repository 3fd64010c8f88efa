"""The folder that an export creates, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlmc.errors import UsageError
from vlmc.files.atomic import move_into_place
from vlmc.files.staging import staging_folder


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A temporary folder that becomes `output` when the block ends without an error.

    Raises:
        UsageError: `output` exists.
    """
    if output.exists():
        raise UsageError(f"{output} exists; name a new folder with -o")
    output.parent.mkdir(parents=True, exist_ok=True)
    with staging_folder(output.parent, output.name) as partial:
        yield partial
        move_into_place(partial, output)
