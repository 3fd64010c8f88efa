"""Operations counted from shapes: against a count by hand, and against torch's own counter."""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vlmc.checkpoint.config import LanguageConfig, VisionConfig
from vlmc.models.flops import RowWork, language_flops, tower_flops
from vlmc.models.vision.tower import VisionTower
from vlmc.models.vision.tower_file import TowerFileConfig

LANGUAGE = LanguageConfig(
    architecture="LlamaForCausalLM",
    hidden_size=4,
    layers=2,
    heads=2,
    kv_heads=1,
    head_dim=2,
    intermediate_size=6,
    vocab_size=10,
    norm_eps=1e-5,
    rope_theta=1e4,
    max_positions=64,
)
VISION = VisionConfig(hidden_size=32, layers=3, heads=2, intermediate_size=96)


def test_a_step_by_hand() -> None:
    # Two new tokens after three. Layer 0: queries 4·4, keys and values 2 · 4·2, output 4·4, and
    # three MLP products of 4·6, for both tokens: 2 · (32 + 16 + 72) multiply-adds.
    first = 2 * (32 + 16 + 72)
    # The last layer: queries, keys and values of both tokens, the rest of the last one.
    last = 2 * 32 + 16 + 72
    # Token 4 sees 4 keys and token 5 sees 5; in the last layer the last token alone sees its 5.
    attended = 2 * 4 * (4 + 5) + 2 * 4 * 5
    logits = 4 * 10
    row = RowWork(start=3, count=2, is_decode=False, ends_prompt=True)
    assert language_flops(LANGUAGE, [row]) == 2 * (first + last + attended + logits)
    unfinished = RowWork(start=3, count=2, is_decode=False, ends_prompt=False)
    assert language_flops(LANGUAGE, [unfinished]) == 2 * (first + last + attended)
    both = language_flops(LANGUAGE, [row, unfinished])
    assert both == 2 * (2 * (first + last + attended) + logits)


def test_a_tile_by_hand() -> None:
    embedding = 1024 * 588 * 32
    block = 1025 * (4 * 32 * 32 + 2 * 32 * 96) + 2 * 1025 * 1025 * 32
    projector = 256 * (128 * 64 + 64 * 64)
    assert tower_flops(VISION, 3, 64) == 2 * (embedding + 3 * block + projector)


def test_a_tile_by_torch() -> None:
    tower = VisionTower(TowerFileConfig(VISION, -1, "v2", 64)).eval()
    math = sdpa_kernel(SDPBackend.MATH)  # the counter does not know the CPU's own kernel
    with math, FlopCounterMode(display=False) as counter, torch.no_grad():
        tower(torch.zeros(1, 3, 448, 448))
    assert counter.get_total_flops() == tower_flops(VISION, 3, 64)
