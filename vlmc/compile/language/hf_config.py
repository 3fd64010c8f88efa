"""The small files of the language folder: settings and tokenizer; needs no torch."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmc.files.strict_json import write_json
from vlmc.text.tokenizer import TOKENIZER_FILES

_TOKEN_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")


def write_settings(values: Mapping[str, Any], folder: Path) -> None:
    """Write `config.json` with these values, and `generation_config.json` with their tokens."""
    write_json(folder / "config.json", values)
    write_json(folder / "generation_config.json", {key: values[key] for key in _TOKEN_KEYS})


def copy_tokenizer(checkpoint: Path, folder: Path) -> None:
    """Copy the tokenizer's files as they are."""
    for name in TOKENIZER_FILES:
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, folder / name)
