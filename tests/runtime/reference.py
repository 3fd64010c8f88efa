"""What a score must be, computed from the checkpoint without the runtime."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tests.models import loaded
from vlmc import Model
from vlmc.models.language.reference_loop import embed
from vlmc.models.vision.tower import normalize_tiles
from vlmc.runtime.requests.request import Request, split_request


def log_probability(
    model: Model, checkpoint: Path, request: Request, choice: str, end: tuple[int, ...] = ()
) -> float:
    """Of the choice's tokens and those of `end`, one after the other, each by a whole forward pass.

    Only the tiles are the model's own.
    """
    parts = loaded.load(checkpoint)
    images, question = split_request(request)
    tiles = [torch.from_numpy(model.prepare_image(image).tiles) for image in images]  # type: ignore[arg-type]
    prompt = parts.prompts.build(question, [len(part) for part in tiles])
    with torch.inference_mode():
        features = [_features(parts, part) for part in tiles]
        total, ids = 0.0, (*parts.prompts.choice_ids(choice), *end)
        for count, token in enumerate(ids):
            row = embed(parts.decoder, [*prompt.ids, *ids[:count]], prompt.image_token_id, features)
            logits = parts.decoder.logits(parts.decoder(row[None])[:, -1])
            total += float(logits.log_softmax(-1)[0, token])
    return total


def _features(parts: loaded.Loaded, tiles: Tensor) -> Tensor:
    features: Tensor = parts.tower(normalize_tiles(tiles, torch.float32))
    return features.flatten(0, 1)
