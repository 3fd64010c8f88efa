"""InternViT, pixel shuffle and projector: tiles in, image tokens out (INTERNVL2 reference, 2)."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmc.checkpoint.config import VisionConfig
from vlmc.image.preprocess import MEAN, STD
from vlmc.models.norm import RMSNorm


class TowerConfig(Protocol):
    """The part of a model's configuration that defines the tower."""

    @property
    def vision(self) -> VisionConfig:
        """Configuration of the encoder."""

    @property
    def vision_layers(self) -> int:
        """Number of blocks to run."""

    @property
    def pixel_shuffle(self) -> Literal["v1", "v2"]:
        """Version of pixel shuffle, which sets the token order."""

    @property
    def hidden_size(self) -> int:
        """Hidden size of the language model, and of the features."""


class VisionTower(nn.Module):
    """InternViT encoder and projector, with the original checkpoint's parameter names.

    Only the blocks up to `select_layer` are created.
    """

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.pixel_shuffle_version = config.pixel_shuffle
        self.vision_model = VisionEncoder(config.vision, config.vision_layers)
        shuffled = 4 * config.vision.hidden_size
        hidden = config.hidden_size
        self.mlp1 = nn.Sequential(
            nn.LayerNorm(shuffled),
            nn.Linear(shuffled, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Compute features of normalized tiles.

        Args:
            pixel_values: (tiles, 3, 448, 448) in the tower's dtype.

        Returns:
            (tiles, 256, language hidden size) in the tower's dtype.
        """
        patches = self.vision_model(pixel_values)[:, 1:]
        features: Tensor = self.mlp1(pixel_shuffle(patches, self.pixel_shuffle_version))
        return features

    @property
    def blocks(self) -> list[VisionBlock]:
        """The encoder's blocks, in order."""
        return list(self.vision_model.encoder.layers)  # type: ignore[arg-type]


class VisionEncoder(nn.Module):
    """Patch embedding and pre-norm blocks, without a norm before the first or after the last."""

    def __init__(self, config: VisionConfig, layers: int) -> None:
        super().__init__()
        self.embeddings = PatchEmbeddings(config)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(VisionBlock(config) for _ in range(layers))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(tiles, 3, 448, 448) → (tiles, 1025, hidden), the class token first."""
        states: Tensor = self.embeddings(pixel_values)
        for block in self.encoder.layers:  # type: ignore[union-attr]
            states = block(states)
        return states


class PatchEmbeddings(nn.Module):
    """Patch embedding with class token and position embedding."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        hidden, patch = config.hidden_size, config.patch_size
        self.grid = config.grid
        self.class_embedding = nn.Parameter(torch.zeros(1, 1, hidden))
        self.position_embedding = nn.Parameter(torch.zeros(1, config.positions, hidden))
        self.patch_embedding = nn.Conv2d(3, hidden, kernel_size=patch, stride=patch)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(tiles, 3, 448, 448) → (tiles, 1025, hidden)."""
        patches = self.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(patches.shape[0], -1, -1)
        embedded: Tensor = torch.cat((first, patches), dim=1) + self.positions()
        return embedded

    def positions(self) -> Tensor:
        """Position embedding of a 448-pixel tile, (1, 1025, hidden).

        The original always resamples. At the tile's own size, bicubic resampling with
        align_corners=False is the exact identity, so it is skipped.
        """
        return tile_positions(self.position_embedding, self.grid)


def tile_positions(stored: Tensor, grid: int) -> Tensor:
    """Resample a position embedding (1, 1 + side², hidden) to a tile's (1, 1 + grid², hidden)."""
    if stored.shape[1] == 1 + grid**2:
        return stored
    side = round((stored.shape[1] - 1) ** 0.5)
    square = stored[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = functional.interpolate(square, size=(grid, grid), mode="bicubic", align_corners=False)
    rows = resized.flatten(2).transpose(1, 2).to(stored.dtype)
    return torch.cat((stored[:, :1], rows), dim=1)


class VisionBlock(nn.Module):
    """Pre-norm attention and MLP, each with a layer scale."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1 = _norm(config)
        self.attn = VisionAttention(config)
        self.norm2 = _norm(config)
        self.mlp = VisionMLP(config)
        self.ls1 = nn.Parameter(torch.ones(config.hidden_size))
        self.ls2 = nn.Parameter(torch.ones(config.hidden_size))

    def forward(self, states: Tensor) -> Tensor:
        """(tiles, tokens, hidden), same shape out."""
        states = states + self.attn(self.norm1(states)) * self.ls1
        mixed: Tensor = states + self.mlp(self.norm2(states)) * self.ls2
        return mixed


class VisionAttention(nn.Module):
    """Full attention. The 6B tower normalizes queries and keys over all heads together."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.heads = config.heads
        self.qkv = nn.Linear(hidden, 3 * hidden, bias=config.qkv_bias)
        self.proj = nn.Linear(hidden, hidden)
        self.q_norm = RMSNorm(hidden, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(hidden, config.norm_eps) if config.qk_norm else None

    def forward(self, states: Tensor) -> Tensor:
        """(tiles, tokens, hidden), same shape out."""
        query, key, value = self.qkv(states).chunk(3, dim=-1)  # each (tiles, tokens, hidden)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        attended = functional.scaled_dot_product_attention(
            self._split(query), self._split(key), self._split(value)
        )
        mixed: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return mixed

    def _split(self, states: Tensor) -> Tensor:
        return states.view(*states.shape[:2], self.heads, -1).transpose(1, 2)


class VisionMLP(nn.Module):
    """Two linears around an exact (erf) GELU."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, states: Tensor) -> Tensor:
        """(tiles, tokens, hidden), same shape out."""
        mixed: Tensor = self.fc2(functional.gelu(self.fc1(states)))
        return mixed


def pixel_shuffle(patches: Tensor, version: Literal["v1", "v2"]) -> Tensor:
    """Fold 2×2 neighbours into channels: (tiles, side², C) → (tiles, side²/4, 4C).

    Channels come from the patches at (0,0), (0,1), (1,0), (1,1). `v1` leaves the tokens in
    column-major order, because the original omits the last transposition.
    """
    tiles, count, channels = patches.shape
    side = round(count**0.5)
    square = patches.reshape(tiles, side // 2, 2, side // 2, 2, channels)
    order = (0, 1, 3, 2, 4, 5) if version == "v2" else (0, 3, 1, 2, 4, 5)
    return square.permute(order).reshape(tiles, count // 4, 4 * channels)


def normalize_tiles(tiles: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 tiles (N, 448, 448, 3) → normalized pixels (N, 3, 448, 448) in `dtype`.

    Computes in fp32, in the same order as the original's ToTensor and Normalize.
    """
    # Cast first: TensorRT supports no other operation on uint8.
    pixels = tiles.to(torch.float32).permute(0, 3, 1, 2) / 255
    mean = torch.tensor(MEAN, device=tiles.device).view(1, 3, 1, 1)
    deviation = torch.tensor(STD, device=tiles.device).view(1, 3, 1, 1)
    return ((pixels - mean) / deviation).to(dtype)


def _norm(config: VisionConfig) -> nn.Module:
    if config.norm == "layer_norm":
        return nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
    return RMSNorm(config.hidden_size, config.norm_eps)
