"""Inputs of jobs, written for tests."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from tests.image.patterns import pattern


def write_jsonl(path: Path, *lines: Any) -> Path:
    """Write lines, texts as they are and all else as JSON."""
    text = "".join(
        (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)) + "\n"
        for line in lines
    )
    path.write_text(text, encoding="utf-8")
    return path


def jpeg(width: int = 9) -> bytes:
    """The bytes of a small picture."""
    buffer = io.BytesIO()
    Image.fromarray(pattern(width, 8)).save(buffer, "JPEG")
    return buffer.getvalue()
