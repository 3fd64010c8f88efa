"""The vision tower computes what the original computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import oracle
from tests.miniature import MINIATURES
from tests.models.loaded import load, tiles
from vlmc.checkpoint.huggingface import tower_tensors
from vlmc.checkpoint.source import open_checkpoint
from vlmc.models.vision.load import load_tower
from vlmc.models.vision.tower import normalize_tiles

# Features have a deviation of 1.5; what differs is the order of fp32 sums, seen up to 4e-6.
TOLERANCE = 5e-5


@pytest.mark.parametrize(("image", "maximum"), oracle.FEATURE_PICTURES)
@pytest.mark.parametrize("name", MINIATURES)
@torch.inference_mode()
def test_features_are_the_originals(
    name: str, image: str, maximum: int, miniatures: Callable[[str], Path]
) -> None:
    expected = oracle.features(name, image, maximum)
    found = load(miniatures(name)).tower(normalize_tiles(tiles(image, maximum), torch.float32))
    assert found.shape == (*expected.token_means.shape, expected.channel_means.shape[1])
    pairs = (
        (found[:, [0, 17, 255]], expected.rows),
        (found.double().mean(dim=2), expected.token_means),
        (found.double().mean(dim=1), expected.channel_means),
        (found.double().square().mean(dim=(1, 2)), expected.square_sums / found[0].numel()),
    )
    for values, reference in pairs:
        np.testing.assert_allclose(values.numpy(), reference, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", MINIATURES)
@torch.inference_mode()
def test_last_hidden_state_is_the_originals(name: str, miniatures: Callable[[str], Path]) -> None:
    image, maximum = oracle.FEATURE_PICTURES[1]
    expected = oracle.features(name, image, maximum).tower_rows
    with open_checkpoint(miniatures(name)) as checkpoint:
        whole = replace(checkpoint.config, select_layer=-1)
        tensors = tower_tensors(checkpoint.weights, whole)
        tower = load_tower(whole, tensors, dtype=torch.float32, device="cpu")
    states = tower.vision_model(normalize_tiles(tiles(image, maximum), torch.float32))
    found = states[:, [0, 1, 500, 1024]].numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
