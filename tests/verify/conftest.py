"""A few questions for the miniature, and its artifact to verify."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def questions(images: Path, tmp_path: Path) -> Path:
    """Six questions on two pictures; the labels are words that nobody answers."""
    folder = tmp_path / "data"
    folder.mkdir()
    lines: list[dict[str, Any]] = []
    for name in ("448x448.jpg", "480x320.jpg"):
        shutil.copy(images / name, folder / name)
        for question in ("What is this?", "Is it a room?", "图中有插座吗？"):
            lines.append(
                {
                    "image": name,
                    "prompt": question,
                    "label": "yes",
                    "question": "presence" if "room" in question else "other",
                    "positive": ["yes"],
                }
            )
    path = folder / "eval.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def copied(artifact: Path, tmp_path: Path) -> Path:
    """The miniature's artifact, which a test may damage and write reports into."""
    return shutil.copytree(artifact, tmp_path / "artifact")
