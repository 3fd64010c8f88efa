"""Runs the original implementation on the miniatures and writes the expected values beside it.

    python -m tests.data.oracle.make_oracle /path/to/InternVL [tokenization tiles models]

from the root of this repository, in an environment with transformers 4.37.2 (see README.md).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.data.oracle.original import import_original
from tests.data.oracle.tokenization import tokenization

FOLDER = Path(__file__).parent
TOKENIZERS = FOLDER.parents[1] / "miniature" / "tokenizers"
IMAGES = FOLDER.parent / "images"
PARTS = ("tokenization", "tiles", "models")


def write_json(name: str, value: Any) -> None:
    """One line for each entry of the second level, so that changes can be read in a diff."""
    lines = []
    for key, entries in value.items():
        body = json.dumps(entries, ensure_ascii=False)
        if isinstance(entries, list):
            rows = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
            body = f"[\n{rows}\n]"
        lines.append(f"{json.dumps(key, ensure_ascii=False)}: {body}")
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    (FOLDER / name).write_text(text, encoding="utf-8")


def main(arguments: list[str]) -> None:
    original = import_original(Path(arguments[0]))
    parts = arguments[1:] or PARTS
    if "tokenization" in parts:
        values = tokenization(original, TOKENIZERS)
        flat = {
            f"{name}/{kind}": rows for name, both in values.items() for kind, rows in both.items()
        }
        write_json("tokenization.json", flat)
    if "tiles" in parts:
        from tests.data.oracle.tiles import tiles

        write_json("tiles.json", tiles(original, IMAGES))
    if "models" in parts:
        from tests.data.oracle.models import write_models

        write_models(original, FOLDER, IMAGES)


if __name__ == "__main__":
    main(sys.argv[1:])
