"""Miniatures and the oracle's requests to them, loaded once in a process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from tests import oracle
from vlmc.checkpoint.config import ModelConfig
from vlmc.checkpoint.huggingface import language_tensors, tower_tensors
from vlmc.checkpoint.source import open_checkpoint
from vlmc.image.decode import decode
from vlmc.image.preprocess import make_tiles
from vlmc.image.tiles import TileRule
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.load import load_decoder
from vlmc.models.language.reference_loop import embed
from vlmc.models.vision.load import load_tower
from vlmc.models.vision.tower import VisionTower, normalize_tiles
from vlmc.text.prompt import Prompt, PromptBuilder
from vlmc.text.template import TEMPLATES

Tensors = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Loaded:
    """All parts of one miniature, in one dtype on one device."""

    config: ModelConfig
    prompts: PromptBuilder
    tower: VisionTower
    decoder: Decoder
    dtype: torch.dtype
    device: str


@cache
def load(folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Loaded:
    """The parts of the checkpoint in `folder`; shared by all tests, so read only."""
    with open_checkpoint(folder) as checkpoint:
        config, weights = checkpoint.config, checkpoint.weights
        prompts = PromptBuilder(
            checkpoint.tokenizer, TEMPLATES[config.template], config.system_message
        )
        return Loaded(
            config,
            prompts,
            load_tower(config, tower_tensors(weights, config), dtype=dtype, device=device),
            load_decoder(
                config.language,
                language_tensors(weights, config.language),
                dtype=dtype,
                device=device,
            ),
            dtype,
            device,
        )


@cache
def tiles(image: str, maximum: int) -> Tensor:
    """uint8 tiles (T, 448, 448, 3) of one of the oracle's pictures, by the original's rule."""
    rule = TileRule("original", min=1, max=maximum, thumbnail=True)
    return torch.from_numpy(make_tiles(decode(oracle.IMAGES / image), rule, "pillow"))


@cache
def features(folder: Path, image: str, maximum: int, dtype: torch.dtype, device: str) -> Tensor:
    """Features (256 · T, hidden) of a picture by the miniature in `folder`."""
    pixels = normalize_tiles(tiles(image, maximum).to(device), dtype)
    with torch.inference_mode():
        found: Tensor = load(folder, dtype, device).tower(pixels)
    return found.flatten(0, 1)


def tile_counts(chat: oracle.Chat) -> list[int]:
    """Tiles of each picture of a conversation."""
    return [len(tiles(image, maximum)) for image, maximum in chat.pictures]


def prompt_of(loaded: Loaded, chat: oracle.Chat) -> Prompt:
    """The prompt of a conversation."""
    return loaded.prompts.build(chat.question, tile_counts(chat), chat.history)


def embed_chat(folder: Path, loaded: Loaded, chat: oracle.Chat) -> Tensor:
    """The embedded prompt (tokens, hidden) of a conversation, image features in place."""
    found = [features(folder, *picture, loaded.dtype, loaded.device) for picture in chat.pictures]
    prompt = prompt_of(loaded, chat)
    with torch.inference_mode():
        return embed(loaded.decoder, prompt.ids, prompt.image_token_id, found)


def parts(folder: Path) -> tuple[ModelConfig, Tensors, Tensors]:
    """Configuration, tower tensors and language tensors."""
    with open_checkpoint(folder) as checkpoint:
        config = checkpoint.config
        return (
            config,
            dict(tower_tensors(checkpoint.weights, config)),
            dict(language_tensors(checkpoint.weights, config.language)),
        )
