"""Safetensors files, opened after their header is known to be small and to mean one thing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from vlmc.errors import CheckpointError
from vlmc.files.strict_json import parse_json

# A shard of the 76B model has 100 KiB; the library takes 100 MB, and many times that to parse it.
MAX_HEADER_BYTES = 4 << 20
_LENGTH_BYTES = 8


def open_safetensors(path: Path, framework: str) -> Any:
    """The library's handle, on a mapped file whose tensors fill it without gap or overlap.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is truncated, damaged, or its header is not one that a writer makes.
    """
    try:
        _check_header(path)
        return safe_open(path, framework=framework)
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        size = path.stat().st_size if path.exists() else 0
        raise CheckpointError(
            f"{path} ({size:,} bytes) is not a whole safetensors file: {error}. "
            "It is truncated or damaged; download it again."
        ) from error


def _check_header(path: Path) -> None:
    """What the library leaves open: how large a header may be, and names that are given twice."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"its header would be {length:,} bytes")
        parse_json(file.read(length))
