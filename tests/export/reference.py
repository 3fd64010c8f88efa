"""Logits of an artifact by the reference loop, and the parts that transformers loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlmc.artifact.manifest import read_manifest
from vlmc.artifact.vision_files import TOWER
from vlmc.checkpoint.config import parse_language_config
from vlmc.checkpoint.quantization import find_quantization
from vlmc.export.weights import language_files, read_tensor
from vlmc.models.language.load import load_decoder
from vlmc.models.language.reference_loop import embed
from vlmc.models.vision.tower import normalize_tiles
from vlmc.models.vision.tower_file import read_tower
from vlmc.text.prompt import IMAGE_TOKEN, PromptBuilder
from vlmc.text.template import TEMPLATES
from vlmc.text.tokenizer import load_tokenizer


def prompts(artifact: Path) -> PromptBuilder:
    """The artifact's own builder of prompts."""
    rules = read_manifest(artifact).prompt
    tokenizer = load_tokenizer(artifact / "language")
    return PromptBuilder(tokenizer, TEMPLATES[rules.template], rules.system_message)


def image_tokens(artifact: Path) -> int:
    """The id of the image token."""
    return load_tokenizer(artifact / "language").token_id(IMAGE_TOKEN)


def logits(artifact: Path, ids: list[int], tiles: Tensor | None = None) -> Tensor:
    """(tokens, vocabulary), fp32, of a prompt with at most one image, in the artifact's dtype."""
    dtype = getattr(torch, read_manifest(artifact).language_dtype)
    folder = artifact / "language"
    values = json.loads((folder / "config.json").read_bytes())
    decoder = load_decoder(
        parse_language_config(values, folder / "config.json"),
        ((name, read_tensor(path, name)) for name, path in language_files(folder).items()),
        dtype=dtype,
        device="cpu",
        quantization=find_quantization(values, folder / "config.json"),
    )
    features: list[Tensor] = []
    with torch.inference_mode():
        if tiles is not None:
            tower = read_tower(artifact / "vision" / TOWER, dtype=dtype, device="cpu")
            features = [tower(normalize_tiles(tiles, dtype)).flatten(0, 1)]
        row = embed(decoder, ids, image_tokens(artifact), features)
        return decoder.logits(decoder(row[None])).float()[0]


def processor(folder: Path) -> Any:
    """transformers' processor of an export, without its part for videos, which needs torchvision.

    With torchvision, `AutoProcessor.from_pretrained(folder)` gives the same.
    """
    import transformers
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    return transformers.InternVLProcessor(
        image_processor=GotOcr2ImageProcessorPil.from_pretrained(folder),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
        video_processor=object.__new__(transformers.BaseVideoProcessor),
        chat_template=(folder / "chat_template.jinja").read_text(encoding="utf-8"),
        image_seq_length=json.loads((folder / "processor_config.json").read_bytes())[
            "image_seq_length"
        ],
    )
