"""Checkpoints as transformers 5 saves them again, from what was recorded of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "data" / "saved_again"
TOKENIZERS = Path(__file__).parent / "miniature" / "tokenizers"
_TOKENIZER_FILES = (
    *("tokenizer.model", "tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json"),
    *("tokenizer_config.json", "special_tokens_map.json"),
)


def recorded_config(name: str) -> dict[str, Any]:
    """A config.json that transformers wrote."""
    values: dict[str, Any] = json.loads((RECORDED / "configs.json").read_text())[name]
    return values


def put_tokenizer(kind: str, folder: Path, *, pieces: bool = False) -> Path:
    """Replace a folder's tokenizer files by those that transformers wrote.

    `pieces` keeps the original tokenizer.model, as someone who copies it there would.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in _TOKENIZER_FILES:
        (folder / name).unlink(missing_ok=True)
    for path in (RECORDED / kind).iterdir():
        shutil.copy(path, folder / path.name)
    # transformers copies it for the slow tokenizers of remote code alone.
    if pieces or kind == "internlm2":
        shutil.copy(TOKENIZERS / kind / "tokenizer.model", folder)
    return folder
