"""Faults that a verification must catch: how each is made, and the part that must be named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlmc.artifact.manifest import Manifest, read_manifest
from vlmc.artifact.write import seal
from vlmc.image.decode import decode
from vlmc.image.preprocess import TiledImage
from vlmc.image.source import Pixels
from vlmc.image.tiles import TILE_SIZE, TileRule, choose_grid
from vlmc.runtime.images import prepare
from vlmc.runtime.scheduler import requests

Spoil = Callable[[Path, pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Fault:
    """What is spoilt in an artifact's folder or in what runs it, the exit code, and the rung that
    must be named, None where loading refuses the artifact."""

    spoil: Spoil
    rung: str | None
    code: int = 3


def reseal(folder: Path, change: Callable[[Manifest], Manifest] = lambda same: same) -> None:
    """Make the manifest true of the folder, as a build with the fault would have left it."""
    seal(folder, change(read_manifest(folder)))


def drop_thumbnail(folder: Path, _: pytest.MonkeyPatch) -> None:
    def change(manifest: Manifest) -> Manifest:
        tiles = manifest.image.tiles
        without = TileRule(tiles.name, tiles.min, tiles.max, False)
        return replace(manifest, image=replace(manifest.image, tiles=without))

    reseal(folder, change)


def swap_colours(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where an image of OpenCV is taken for one of Pillow."""
    _spoil_tiles(monkeypatch, lambda tiled, *_: np.ascontiguousarray(tiled[..., ::-1]))


def shrink_by_cubic(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV's cubic filter, which skips pixels where an image shrinks."""

    def cubic(_: Pixels, source: Any, rule: TileRule) -> Pixels:
        image = decode(source)
        grid = choose_grid(image.shape[1], image.shape[0], rule)
        size = (grid.columns * TILE_SIZE, grid.rows * TILE_SIZE)
        canvas = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
        parts = canvas.reshape(grid.rows, TILE_SIZE, grid.columns, TILE_SIZE, 3).swapaxes(1, 2)
        tiles = [*parts.reshape(-1, TILE_SIZE, TILE_SIZE, 3)]
        if grid.thumbnail:
            side = (TILE_SIZE, TILE_SIZE)
            tiles.append(cv2.resize(image, side, interpolation=cv2.INTER_CUBIC))
        return np.stack(tiles)

    _spoil_tiles(monkeypatch, cubic)


def _spoil_tiles(
    monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Pixels, Any, TileRule], Pixels]
) -> None:
    """Change the tiles of models that read images as the artifact does, which applies EXIF."""
    read = prepare.read_tiles

    def spoilt(source: Any, rule: TileRule, *rest: Any, **options: Any) -> TiledImage:
        tiled = read(source, rule, *rest, **options)
        if options["exif"] != "apply":
            return tiled
        return replace(tiled, tiles=spoil(tiled.tiles, source, rule))

    monkeypatch.setattr(prepare, "read_tiles", spoilt)


def forget_image_in_key(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of a prompt are found again by token ids alone."""
    keys = requests.block_keys

    def without(ids: Any, _: Any, *rest: Any) -> list[bytes]:
        return keys(ids, [], *rest)

    monkeypatch.setattr(requests, "block_keys", without)


def round_to_three_bits(folder: Path, _: pytest.MonkeyPatch) -> None:
    def rounded(name: str, weight: Tensor) -> Tensor:
        if weight.ndim < 2 or "embed" in name or "lm_head" in name or "output" in name:
            return weight
        grouped = weight.float().reshape(weight.shape[0], -1, 32)
        scale = grouped.abs().amax(-1, keepdim=True) / 3.5
        return (torch.round(grouped / scale).clamp(-4, 3) * scale).view_as(weight).to(weight.dtype)

    _change_weights(folder, rounded)


def shift_zero_points(folder: Path, _: pytest.MonkeyPatch) -> None:
    """Each of the eight nibbles of a word, without a carry into the next."""

    def shifted(name: str, words: Tensor) -> Tensor:
        if not name.endswith("zero_point"):
            return words
        nibbles = (words.long()[..., None] >> torch.arange(0, 32, 4)) & 15
        moved = ((nibbles + 1).clamp(max=15) << torch.arange(0, 32, 4)).sum(-1)
        return torch.where(moved >= 1 << 31, moved - (1 << 32), moved).int()

    assert any(name.endswith("zero_point") for name in _weights(folder))
    _change_weights(folder, shifted)


def spoil_one_weight(folder: Path, _: pytest.MonkeyPatch) -> None:
    done = []

    def spoilt(name: str, weight: Tensor) -> Tensor:
        if weight.ndim == 2 and not done:
            done.append(name)
            weight[0, 0] = float("nan")
        return weight

    _change_weights(folder, spoilt)


def lower_rope_base(folder: Path, _: pytest.MonkeyPatch) -> None:
    def change(values: dict[str, Any]) -> None:
        values["rope_theta"] /= 10

    _change_json(folder / "language" / "config.json", change)
    reseal(folder)


def take_another_bos(folder: Path, _: pytest.MonkeyPatch) -> None:
    def change(values: dict[str, Any]) -> None:
        values["bos_token"] = "</s>"

    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        _change_json(folder / "language" / name, change)
    reseal(folder)


def _change_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def _weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "language" / "model.safetensors")


def _change_weights(folder: Path, change: Callable[[str, Tensor], Tensor]) -> None:
    tensors = {name: change(name, tensor) for name, tensor in _weights(folder).items()}
    path = folder / "language" / "model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    reseal(folder)


def replace_vision(folder: Path, other: Path) -> None:
    """Take the tower of another artifact of the same shape."""
    shutil.rmtree(folder / "vision")
    shutil.copytree(other / "vision", folder / "vision")
    reseal(folder)


FAULTS: dict[str, Fault] = {
    "thumbnail dropped": Fault(drop_thumbnail, "tile rule"),
    "BGR for RGB": Fault(swap_colours, "resampler"),
    "cubic shrinking": Fault(shrink_by_cubic, "resampler"),
    "RTN at 3 bits": Fault(round_to_three_bits, "language model"),
    "prefix key without the image": Fault(forget_image_in_key, "cache and graphs"),
    "rope base of a tenth": Fault(lower_rope_base, "language model"),
    "one NaN weight": Fault(spoil_one_weight, "language model"),
    "another BOS": Fault(take_another_bos, None, code=4),
}
QUICK = ("BGR for RGB", "prefix key without the image", "another BOS")
"""What every push can afford; the slow tests have all."""
