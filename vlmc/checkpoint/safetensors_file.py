"""Safetensors files, opened only if their header is small and unambiguous."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from vlmc.errors import CheckpointError
from vlmc.files.bounded_read import LfsPointerError, refuse_lfs_pointer
from vlmc.files.strict_json import parse_json

# A shard of the 76B model has 100 KiB; the library takes 100 MB, and many times that to parse it.
MAX_HEADER_BYTES = 4 << 20
_LENGTH_BYTES = 8


def open_safetensors(path: Path, framework: str) -> Any:
    """The library's handle of a mapped file whose tensors fill it without gap or overlap.

    Raises:
        FileNotFoundError: the file does not exist.
        CheckpointError: it is truncated, damaged, a Git LFS pointer, or its header is too large.
    """
    try:
        _check_header(path)
        return safe_open(path, framework=framework)
    except FileNotFoundError:
        raise
    except LfsPointerError as error:
        raise CheckpointError(f"{path}: {error}.") from error
    except (SafetensorError, OSError, ValueError) as error:
        size = path.stat().st_size if path.exists() else 0
        raise CheckpointError(
            f"{path} ({size:,} bytes) is not a whole safetensors file: {error}. "
            "It is truncated or damaged; download it again."
        ) from error


def _check_header(path: Path) -> None:
    """Check what the library does not: the header's size, and names that are given twice."""
    with path.open("rb") as file:
        refuse_lfs_pointer(file.read(64))
        file.seek(0)
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"its header would be {length:,} bytes")
        parse_json(file.read(length))
