"""Artifacts to be attacked: copies, with their files' names and hashes made true again or not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.attempt import Ended, attempt
from vlmc.artifact.identity import IDENTITY
from vlmc.artifact.manifest import MANIFEST, read_manifest
from vlmc.artifact.write import seal

Change = Callable[[Path], object]


@pytest.fixture
def copied(artifact: Path, tmp_path: Path) -> Path:
    """An artifact that a test may damage."""
    return shutil.copytree(artifact, tmp_path / "artifact")


def reseal(folder: Path) -> None:
    """Make the manifest true again, as whoever makes an artifact to harm its users would."""
    (folder / IDENTITY).unlink()
    seal(folder, replace(read_manifest(folder), payload={}))


def edit_json(path: Path, **values: Any) -> None:
    """Set keys of a JSON object; `a__b` is `b` of the object or list item `a`."""
    whole = json.loads(path.read_text(encoding="utf-8"))
    for key, value in values.items():
        *above, last = key.split("__")
        inner = whole
        for name in above:
            inner = inner[int(name) if isinstance(inner, list) else name]
        inner[last] = value
    path.write_text(json.dumps(whole), encoding="utf-8")


def edit_manifest(**values: Any) -> Change:
    """An attack that changes the manifest alone."""
    return lambda folder: edit_json(folder / MANIFEST, **values)


def answer(artifact: Path, images: Path, **options: Any) -> Ended:
    """Ask it about a picture, beside the artifact; nothing may be written but what was said."""
    folder = artifact.parent
    before = {path.name for path in folder.iterdir()} | {"stdout", "stderr"}
    picture = sorted(images.glob("*.jpg"))[0]
    command = ("run", artifact, picture, "--prompt", "What?", "-o", "out.jsonl", "--device", "cpu")
    ended = attempt(folder, *command, "--tiles", "single", **options)
    if ended.exit_code:
        assert {path.name for path in folder.iterdir()} == before
    return ended
