"""Write config and tokenizer files of the language folder. Does not import torch."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmc.files.strict_json import write_json
from vlmc.text.tokenizer import TOKENIZER_FILES

_TOKEN_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")


def write_hf_config(values: Mapping[str, Any], folder: Path) -> None:
    """Write `config.json`, and `generation_config.json` with its special tokens."""
    write_json(folder / "config.json", values)
    write_json(folder / "generation_config.json", {key: values[key] for key in _TOKEN_KEYS})


def copy_tokenizer(checkpoint: Path, folder: Path) -> None:
    """Copy the tokenizer's files unchanged."""
    for name in TOKENIZER_FILES:
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, folder / name)
