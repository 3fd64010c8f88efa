"""The five kinds of tokenizers and the templates that their models use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from vlmc.text.tokenizer import Tokenizer, load_tokenizer

FOLDER = Path(__file__).parents[1] / "miniature" / "tokenizers"
TEMPLATE_NAMES = {
    "internlm2": "internlm2-chat",
    "qwen2": "Hermes-2",
    "phi3": "phi3-chat",
    "yi": "Hermes-2",
    "llama3": "internlm2-chat",
}
KINDS = tuple(TEMPLATE_NAMES)


@cache
def tokenizer(kind: str) -> Tokenizer:
    """The committed tokenizer of a kind."""
    return load_tokenizer(FOLDER / kind)


def edited(kind: str, folder: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a kind's files in `folder`, its tokenizer_config.json changed by `edit`."""
    copy = Path(shutil.copytree(FOLDER / kind, folder / "tokenizer"))
    path = copy / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    edit(config)
    path.write_text(json.dumps(config), encoding="utf-8")
    return copy
