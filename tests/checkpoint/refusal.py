"""Checkpoints that are refused, and files that may not stay open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vlmc.errors import CheckpointError


def refusal(attempt: Callable[[Path], object], folder: Path) -> str:
    """The message of the CheckpointError; the folder's files must not stay open."""
    try:
        attempt(folder)
    except CheckpointError as error:
        message = str(error)
    else:
        pytest.fail(f"{folder} was accepted")
    assert not [name for name in open_files() if name.startswith(str(folder))]
    assert str(folder) in message
    return message


def open_files() -> set[str]:
    """Weight files that this process holds open or mapped."""
    descriptors = Path("/proc/self/fd")
    found = {str(path.readlink()) for path in descriptors.iterdir() if path.is_symlink()}
    found |= {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    return {name for name in found if name.endswith((".safetensors", ".bin"))}
