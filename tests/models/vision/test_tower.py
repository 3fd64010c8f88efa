"""Parts of the vision tower against plain computations of the same things."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests import oracle
from tests.models.loaded import load, tiles
from vlmc.checkpoint.config import ModelConfig
from vlmc.image.preprocess import normalize
from vlmc.models.vision.tower import PatchEmbeddings, VisionTower, normalize_tiles, pixel_shuffle

Folder = Callable[[str], Path]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_pixel_shuffle_folds_neighbours(version: Literal["v1", "v2"]) -> None:
    side, channels = 6, 3
    patches = torch.arange(2 * side * side * channels).reshape(2, side * side, channels)
    found = pixel_shuffle(patches, version)
    assert found.shape == (2, 9, 12)
    for row in range(3):
        for column in range(3):
            places = [(2 * row + i) * side + 2 * column + j for i in (0, 1) for j in (0, 1)]
            token = row * 3 + column if version == "v2" else column * 3 + row
            expected = torch.cat([patches[:, place] for place in places], dim=-1)
            assert torch.equal(found[:, token], expected)


@pytest.mark.parametrize("size", [224, 336, 672])
def test_positions_of_another_resolution_are_resampled_bicubically(
    size: int, miniature: Path
) -> None:
    config = load(miniature).config
    embeddings = PatchEmbeddings(replace(config.vision, image_size=size, hidden_size=4))
    side = size // 14
    stored = torch.randn(1, 1 + side * side, 4, generator=torch.Generator().manual_seed(size))
    embeddings.position_embedding.data = stored
    found = embeddings.positions().detach()
    assert torch.equal(found[:, 0], stored[:, 0])
    weights = cubic_weights(side, 32)  # (32, side)
    square = stored[0, 1:].double().numpy().reshape(side, side, 4)
    expected = np.einsum("ya,xb,abc->yxc", weights, weights, square).reshape(1024, 4)
    np.testing.assert_allclose(found[0, 1:].numpy(), expected, rtol=0, atol=1e-5)


def cubic_weights(source: int, target: int) -> NDArray[np.float64]:
    """Rows of weights of cubic convolution with a = -0.75, pixel centres at halves, edges held."""
    weights = np.zeros((target, source))
    for place in range(target):
        at = (place + 0.5) * source / target - 0.5
        for neighbour in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            x = abs(at - neighbour)
            near = (1.25 * x - 2.25) * x * x + 1
            far = ((-0.75 * x + 3.75) * x - 6) * x + 3
            weights[place, min(max(neighbour, 0), source - 1)] += near if x <= 1 else far
    return weights


def test_positions_of_a_tile_are_used_as_they_are(miniature: Path) -> None:
    embeddings = load(miniature).tower.vision_model.embeddings
    assert embeddings.positions() is embeddings.position_embedding


@pytest.mark.parametrize(
    ("select_layer", "blocks"), [(-1, 2), (2, 2), (-2, 1), (1, 1), (-3, 0), (0, 0)]
)
def test_only_blocks_that_are_needed_are_built(
    select_layer: int, blocks: int, miniature: Path
) -> None:
    config: ModelConfig = replace(load(miniature).config, select_layer=select_layer)
    tower = VisionTower(config)
    names = {name.split(".")[3] for name, _ in tower.named_parameters() if ".layers." in name}
    assert names == {str(index) for index in range(blocks)}


@pytest.mark.parametrize("name", ["internlm2-300m", "internlm2-6b"])
def test_norms_keep_tiny_signals_apart_by_their_epsilon(name: str, miniatures: Folder) -> None:
    """The tower's epsilon is the configuration's, the projector's always 1e-5."""
    loaded = load(miniatures(name))
    tower, vision = loaded.tower, loaded.config.vision
    assert vision.norm_eps == 1e-6
    block: Any = tower.vision_model.encoder.get_submodule("layers.0")
    signal = torch.tensor([1.0, -1.0]).repeat(vision.hidden_size // 2) * 1e-3
    bias = getattr(block.norm1, "bias", torch.zeros(1))
    scale = ((block.norm1(signal) - bias) / block.norm1.weight)[0]
    assert float(scale) == pytest.approx(1e-3 / (1e-6 + 1e-6) ** 0.5, rel=1e-4)
    projector = tower.mlp1[0]
    signal = torch.tensor([1.0, -1.0]).repeat(2 * vision.hidden_size) * 1e-3
    scale = ((projector(signal) - projector.bias) / projector.weight)[0]
    assert float(scale) == pytest.approx(1e-3 / (1e-6 + 1e-5) ** 0.5, rel=1e-4)


def test_normalization_of_tensors_is_that_of_arrays_to_the_bit() -> None:
    found = tiles("480x320.jpg", 6)
    assert np.array_equal(normalize_tiles(found, torch.float32).numpy(), normalize(found.numpy()))
    every = torch.arange(256, dtype=torch.uint8)[:, None].expand(1, 256, 3)
    every = every[:, :, None].expand(1, 256, 2, 3).contiguous()
    assert np.array_equal(normalize_tiles(every, torch.float32).numpy(), normalize(every.numpy()))


@pytest.mark.parametrize("name", ["internlm2-300m", "internlm2-6b"])
@torch.inference_mode()
def test_a_tile_is_the_same_beside_others(name: str, miniatures: Folder) -> None:
    tower = load(miniatures(name)).tower
    pixels = normalize_tiles(tiles(*oracle.FEATURE_PICTURES[1]), torch.float32)
    together = tower(pixels)
    for index in range(len(pixels)):
        alone = tower(pixels[index : index + 1])[0]
        torch.testing.assert_close(together[index], alone, rtol=0, atol=5e-5)
