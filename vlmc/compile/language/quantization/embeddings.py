"""Embed calibration samples, with image features inserted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from vlmc.artifact.manifest import ImageRules
from vlmc.checkpoint.huggingface import EMBEDDING, language_tensors
from vlmc.checkpoint.source import Checkpoint
from vlmc.compile.calibration.dataset import CalibrationSet
from vlmc.compile.calibration.device import calibration_device
from vlmc.compile.vision import fp32_tower
from vlmc.image.preprocess import read_tiles
from vlmc.models.disable_tf32 import disable_tf32
from vlmc.models.language.splice import splice
from vlmc.models.vision.prune import prune_tokens
from vlmc.models.vision.tower import VisionTower, normalize_tiles
from vlmc.text.prompt import PromptBuilder

_TENSOR = "embeddings"
_TILES_AT_ONCE = {"cpu": 2, "cuda": 32}
# Memory for that many tiles in the 6B tower, and for libraries.
_WORKING_BYTES = 8 << 30


def write_embeddings(
    checkpoint: Checkpoint,
    samples: CalibrationSet,
    prompts: PromptBuilder,
    image: ImageRules | None,
    dtype: torch.dtype,
    folder: Path,
) -> None:
    """Embed prompt and answer of each sample, and write `00000.safetensors` and so on.

    Each file has an embedding (tokens, hidden) in `dtype`. The stop token is omitted, because it
    is never an input. The tower runs in fp32, on the GPU if there is one.

    Raises:
        PromptError: a prompt or answer does not fit the template.
        ImageError: an image can no longer be read.
    """
    table = _embedding_table(checkpoint)
    tower: VisionTower | None = None
    for path in dict.fromkeys(sample.image for sample in samples.samples):
        tile_counts: list[int] = []
        features: list[Tensor] = []
        if path is not None:
            if image is None:
                raise ValueError("samples with images need image rules")
            tower = tower or _tower(checkpoint)
            tiles = read_tiles(
                path,
                image.tiles,
                image.resampler,
                exif=image.exif,
                high_bit_depth=image.high_bit_depth,
            ).tiles
            tile_counts = [len(tiles)]
            whole = _features(tower, torch.from_numpy(tiles))
            features = [prune_tokens(whole, image.tokens_per_tile).flatten(0, 1)]
        for index, sample in enumerate(samples.samples):
            if sample.image != path:
                continue
            prompt = prompts.build(sample.prompt, tile_counts)
            answer = prompts.choice_ids(sample.answer) if sample.answer else ()
            ids = (*prompt.ids, *answer)
            embedded = splice(table, ids, prompt.image_token_id, features, dtype)
            save_file({_TENSOR: embedded}, folder / f"{index:05d}.safetensors")


def read_embeddings(folder: Path) -> Iterator[Tensor]:
    """Read the embeddings (tokens, hidden) in order."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            yield file.get_tensor(_TENSOR)


def _embedding_table(checkpoint: Checkpoint) -> Tensor:
    """The embedding table (vocabulary, hidden), mapped from the checkpoint."""
    tensors = language_tensors(checkpoint.weights, checkpoint.config.language)
    return next(tensor for name, tensor in tensors if name == EMBEDDING)


def _tower(checkpoint: Checkpoint) -> VisionTower:
    device = calibration_device(checkpoint, copies=1, working_bytes=_WORKING_BYTES)
    return fp32_tower(checkpoint, device)


@disable_tf32()
@torch.inference_mode()
def _features(tower: VisionTower, tiles: Tensor) -> Tensor:
    """uint8 (T, 448, 448, 3) to fp32 (T, 256, hidden) on the CPU."""
    device = next(tower.parameters()).device
    parts = [
        tower(normalize_tiles(part.to(device), torch.float32)).cpu()
        for part in torch.split(tiles, _TILES_AT_ONCE[device.type])
    ]
    return torch.cat(parts)
