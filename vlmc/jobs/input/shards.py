"""Which shards an input names: one, a glob, or a range such as shard-{000..127}.tar."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from vlmc.errors import UsageError
from vlmc.jobs.input.remote import Location, is_remote, location, matching

SUFFIXES = (".tar", ".tar.gz", ".tgz")
MAX_SHARDS = 1_000_000
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def names_shards(text: str) -> bool:
    """Whether a text ends as a shard does."""
    return text.lower().endswith(SUFFIXES)


def find_shards(text: str) -> list[Location]:
    """The shards in the order of their names.

    Raises:
        UsageError: there are none, or the range is not ascending.
    """
    found: list[Location] = []
    for name in _expanded(text):
        if not glob.has_magic(name):
            found.append(location(name))
        elif is_remote(name):
            found += matching(name)
        else:
            # `Path.glob` takes no absolute pattern.
            found += [Path(match) for match in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207
    if not found:
        raise UsageError(f"{text}: no shard matches; check the pattern")
    return found


def _expanded(text: str) -> list[str]:
    """Every name of a text with ranges, as webdataset expands them."""
    match = _RANGE.search(text)
    if match is None:
        return [text]
    first, last = match.groups()
    count = int(last) - int(first) + 1
    if not 1 <= count <= MAX_SHARDS:
        raise UsageError(
            f"{text}: the range {match[0]} has {max(count, 0):,} numbers; write it from the lower "
            f"to the higher one, with at most {MAX_SHARDS:,}"
        )
    names = []
    for number in range(int(first), int(last) + 1):
        name = f"{text[: match.start()]}{number:0{len(first)}}{text[match.end() :]}"
        names += _expanded(name)
    return names
