"""Runs the original implementation on the miniatures and writes the expected values beside it.

    python -m tests.data.oracle.make_oracle /path/to/InternVL [tokenization tiles models]

from the root of this repository, in an environment with transformers 4.37.2 (see README.md).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.data.oracle.models import write_models
from tests.data.oracle.original import import_original
from tests.data.oracle.tiles import tiles
from tests.data.oracle.tokenization import tokenization

FOLDER = Path(__file__).parent
TOKENIZERS = FOLDER.parents[1] / "miniature" / "tokenizers"
IMAGES = FOLDER.parent / "images"
PARTS = ("tokenization", "tiles", "models")


def write_json(path: Path, lists: dict[str, list[Any]]) -> None:
    """One line for each entry of the lists, so that changes can be read in a diff."""
    parts = []
    for key, entries in lists.items():
        rows = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
        parts.append(f"{json.dumps(key)}: [\n{rows}\n]")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def main(arguments: list[str]) -> None:
    original = import_original(Path(arguments[0]))
    parts = arguments[1:] or PARTS
    if "tokenization" in parts:
        write_json(FOLDER / "tokenization.json", tokenization(original, TOKENIZERS))
    if "tiles" in parts:
        write_json(FOLDER / "tiles.json", tiles(original, IMAGES))
    if "models" in parts:
        write_json(FOLDER / "chats.json", write_models(original, FOLDER, IMAGES))


if __name__ == "__main__":
    main(sys.argv[1:])
