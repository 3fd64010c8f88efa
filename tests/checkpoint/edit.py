"""Copies of miniatures with something changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def copy(source: Path, target: Path) -> Path:
    """A copy of a miniature that a test may change."""
    return Path(shutil.copytree(source, target))


def edit_config(folder: Path, changes: Mapping[str, Any]) -> None:
    """Set dotted keys of config.json; a value of `...` removes the key."""
    path = folder / "config.json"
    path.write_text(json.dumps(changed(json.loads(path.read_text()), changes)))


def changed(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `values` with dotted keys set, and those of value `...` removed."""
    values = deepcopy(values)
    for dotted, value in changes.items():
        *parents, key = dotted.split(".")
        part = values
        for parent in parents:
            part = part[parent]
        if value is ...:
            del part[key]
        else:
            part[key] = value
    return values


def load(path: Path) -> dict[str, Tensor]:
    """Copies of a file's tensors, so that it may be overwritten."""
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a miniature."""
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load(path)
    return found


def write_tensors(folder: Path, values: Mapping[str, Tensor]) -> None:
    """Replace all weights by one file."""
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    contiguous = {name: tensor.contiguous() for name, tensor in values.items()}
    save_file(contiguous, folder / SINGLE, metadata={"format": "pt"})


def edit_tensors(folder: Path, changes: Mapping[str, Tensor | None]) -> None:
    """Set tensors by name, or remove those whose value is None."""
    values = tensors(folder) | {name: value for name, value in changes.items() if value is not None}
    removed = {name for name, value in changes.items() if value is None}
    write_tensors(folder, {name: value for name, value in values.items() if name not in removed})


def edit_index(folder: Path, changes: Mapping[str, Any]) -> None:
    """Place tensors in other files by the index."""
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"] |= changes
    (folder / INDEX).write_text(json.dumps(index))
