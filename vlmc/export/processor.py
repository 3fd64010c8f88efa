"""The files from which transformers builds an InternVL processor."""

from __future__ import annotations

from typing import Any

from vlmc.image.preprocess import MEAN, STD
from vlmc.image.tiles import TILE_SIZE, TOKENS_PER_TILE, TileRule
from vlmc.text.prompt import IMAGE_END, IMAGE_START, IMAGE_TOKEN

# The processor demands a token for videos, and no InternVL2 has one. This one marks quoted text
# in training data, and no template uses it.
VIDEO_TOKEN = "<quad>"
_BICUBIC = 3
_CLASS = "InternVLProcessor"


def processor_files(tiles: TileRule) -> dict[str, dict[str, Any]]:
    """Content by name of file; `tiles` is the rule as the engine applies it."""
    pixels = {
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": TILE_SIZE, "width": TILE_SIZE},
        "resample": _BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "processor_class": _CLASS,
    }
    image = {
        "image_processor_type": "GotOcr2ImageProcessorFast",
        "crop_to_patches": True,
        "min_patches": tiles.min,
        "max_patches": tiles.max,
    }
    return {
        "preprocessor_config.json": pixels | image,
        "video_preprocessor_config.json": pixels
        | {"video_processor_type": "InternVLVideoProcessor"},
        "processor_config.json": {
            "processor_class": _CLASS,
            "image_seq_length": TOKENS_PER_TILE,
        },
    }


def tokenizer_config(*, bos: str | None, stop: str, pad: str | None) -> dict[str, Any]:
    """tokenizer_config.json beside a tokenizer.json that holds all rules."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        # What ends an answer, so that engines stop there.
        "eos_token": stop,
        "pad_token": pad if pad is not None else stop,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,  # the decoder does it
        "model_max_length": int(1e30),
        "extra_special_tokens": {
            "start_image_token": IMAGE_START,
            "end_image_token": IMAGE_END,
            "context_image_token": IMAGE_TOKEN,
            "video_token": VIDEO_TOKEN,
        },
    }
