"""Pickled weights to safetensors: `python -m vlmc.checkpoint.convert FOLDER OUT_FOLDER`.

The one place where vlmc opens a pickle, and it opens it with `weights_only`, which admits tensors
and containers of them and nothing else. Everything after works on the converted folder.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vlmc.checkpoint.weight_files import INDEX, pickled_weights
from vlmc.errors import CheckpointError, UsageError, VlmcError
from vlmc.files.atomic import move_into_place
from vlmc.files.staging import staging_folder
from vlmc.files.strict_json import write_json

if TYPE_CHECKING:
    from torch import Tensor

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle")
_LEFT_BEHIND = (*_PICKLES, ".py", ".safetensors", ".bin.index.json", ".safetensors.index.json")


def convert(source: Path, target: Path) -> Path:
    """Write a copy of `source` with safetensors weights, one shard for each pickled file.

    The folder appears whole or not at all. Python files are left behind.

    Raises:
        CheckpointError: there are no pickled weights, or a file holds something other than tensors.
        UsageError: `target` exists already.
    """
    if target.exists():
        raise UsageError(f"{target} exists already. Name a new folder, or remove that one first.")
    shards = pickled_weights(source)
    if not shards:
        raise CheckpointError(f"{source} holds no pickled weights (*.bin), nothing to convert")
    target.parent.mkdir(parents=True, exist_ok=True)
    with staging_folder(target.parent, target.name) as partial:
        placed = _convert_shards(shards, partial)
        total = sum(path.stat().st_size for path in partial.glob("*.safetensors"))
        index = {"metadata": {"total_size": total}, "weight_map": placed}
        write_json(partial / INDEX, index)
        for path in sorted(source.iterdir()):
            if path.is_file() and not path.name.endswith(_LEFT_BEHIND):
                shutil.copy(path, partial / path.name)
        move_into_place(partial, target)
    return target


def _convert_shards(shards: list[Path], folder: Path) -> dict[str, str]:
    from safetensors.torch import save_file

    placed: dict[str, str] = {}
    for number, path in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        print(f"{path.name} -> {name}", file=sys.stderr)
        tensors = _read_pickle(path)
        for key in tensors:
            if key in placed:
                raise CheckpointError(f"{path}: tensor {key} is also in an earlier shard")
            placed[key] = name
        save_file(tensors, folder / name, metadata={"format": "pt"})
    return placed


def _read_pickle(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # the unpickler raises many types; none of them runs code
        raise CheckpointError(
            f"{path} is not a file of plain tensors: {error}. It may be truncated, in the format "
            "of an old torch, or hold code; vlmc does not load it."
        ) from error
    if not isinstance(found, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in found.items()
    ):
        raise CheckpointError(f"{path} does not hold a plain mapping of names to tensors")
    # Safetensors refuses tensors that share memory; a clone of each view unties them.
    return {key: value.detach().clone().contiguous() for key, value in found.items()}


def main(arguments: list[str]) -> int:
    """Command line: two folders. Returns the exit code."""
    if len(arguments) != 2:
        print("usage: python -m vlmc.checkpoint.convert FOLDER OUT_FOLDER", file=sys.stderr)
        return UsageError.exit_code
    try:
        print(convert(Path(arguments[0]), Path(arguments[1])))
    except VlmcError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
