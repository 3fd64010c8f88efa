"""Many small pictures, each with a question and a label."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from PIL import Image

from tests.image.patterns import scene


def many_questions(folder: Path, count: int) -> Path:
    """A dataset of `count` rows on `count` different pictures, and one that no choice answers."""
    rows: list[dict[str, Any]] = [
        {
            "image": "0.png",
            "prompt": "What?",
            "label": "EXIT",
            "question": "read",
            "positive": ["EXIT"],
        }
    ]
    draw = random.Random(0)
    for index in range(count):
        picture = Image.fromarray(scene(64, 64))
        colour = (draw.randrange(256), draw.randrange(256), draw.randrange(256))
        picture.paste(colour, (0, 0, 32, draw.randrange(8, 64)))
        picture.save(folder / f"{index}.png")
        label = draw.choice(("yes", "no"))
        row = {"image": f"{index}.png", "prompt": "Is it a door?", "label": label}
        rows.append(row | {"question": "door", "positive": ["yes"]})
    path = folder / "eval.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
