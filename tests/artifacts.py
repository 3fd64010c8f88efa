"""Artifacts built from the miniatures, for the tests of everything that reads one."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vlmc.artifact.identity import IDENTITY
from vlmc.artifact.manifest import MANIFEST
from vlmc.builder.build import build
from vlmc.recipe.read import read_recipe

# What a build of every push can afford: two language models with a rope scaling of their own,
# both towers. The others are built by the slow tests.
QUICK = ("internlm2-300m", "phi3-300m", "llama-yi-6b")
RECIPE = """\
version: 1
name: miniature
model:
  checkpoint: {checkpoint}
vision:
  precision: fp32
"""
# As the oracle's values were made.
AS_ORACLE = ("model.dtype=fp32", "image.resampler=pillow")


def write_recipe(path: Path, checkpoint: Path) -> Path:
    """Write a recipe of the required keys alone and return its path."""
    path.write_text(RECIPE.format(checkpoint=checkpoint), encoding="utf-8")
    return path


def build_from(checkpoint: Path, output: Path, overrides: Iterable[str] = AS_ORACLE) -> Path:
    """Build the artifact `output` in this process."""
    recipe = write_recipe(output.with_name(f"{output.name}.yaml"), checkpoint)
    return build(read_recipe(recipe, overrides), output)


def build_once(checkpoint: Path, output: Path) -> Path:
    """As `build_from`, unless another test process has built it already."""
    output.parent.mkdir(exist_ok=True)
    with output.with_name(f"{output.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return output if output.exists() else build_from(checkpoint, output)


def copy_with(artifact: Path, folder: Path, **changes: Any) -> Path:
    """Copy an artifact with values of its manifest replaced, `image__exif="apply"` for nested.

    The copy carries no identity, as the artifacts of earlier versions.
    """
    shutil.copytree(artifact, folder, ignore=shutil.ignore_patterns(IDENTITY))
    path = folder / MANIFEST
    values = json.loads(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        *above, last = key.split("__")
        target = values
        for name in above:
            target = target[name]
        target[last] = value
    path.write_text(json.dumps(values), encoding="utf-8")
    return folder
