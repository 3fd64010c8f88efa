"""Reading the JSON files of a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmc.errors import TokenizerError
from vlmc.files.strict_json import read_json

# The largest of the family, a whole tokenizer.json, is 9 MB.
MAX_BYTES = 32 << 20


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises TokenizerError if it cannot be read or is not an object."""
    try:
        value = read_json(path, MAX_BYTES)
    except FileNotFoundError:
        raise TokenizerError(
            f"{path}: the file is missing; copy the checkpoint's tokenizer files again"
        ) from None
    except (OSError, ValueError) as error:
        raise TokenizerError(
            f"{path}: cannot be read as JSON ({error}); copy the file from the checkpoint again"
        ) from error
    if not isinstance(value, dict):
        raise TokenizerError(
            f"{path}: holds a JSON {type(value).__name__} where an object is needed; "
            "copy the file from the checkpoint again"
        )
    return value


def read_flag(settings: Mapping[str, Any], key: str, default: bool, path: Path) -> bool:
    """The boolean under `key`; null counts as absent. Raises TokenizerError for other types."""
    value = settings.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise TokenizerError(f"{path}: {key} is {value!r}, it must be true or false")
    return value
