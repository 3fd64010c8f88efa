"""Speed of the language model served on a GPU: `python -m benchmarks.language_serving OUT.json`.

InternVL2-8B's language model with random weights, served by the runtime's own loop: prompts of one
image and 78 tokens of text, five new tokens, no reuse of prefixes. Image features are random, so
neither the vision tower nor preprocessing is part of it.
"""

from __future__ import annotations

import argparse
import json
import secrets
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.language_gpu import load, w4a16
from benchmarks.random_language_model import DEVICE, DTYPE, FP8, MODEL
from vlmc.artifact.manifest import RuntimeRules
from vlmc.models.language.decoder import Decoder
from vlmc.runtime.images.prepare import PreparedRequest
from vlmc.runtime.requests.request import PreparedImage
from vlmc.runtime.scheduler.loop import ServingLoop
from vlmc.runtime.scheduler.requests import make_sequence
from vlmc.runtime.scheduler.sequence import Result, Sampling, Spent
from vlmc.runtime.scheduler.service import serve

TEXT_TOKENS, NEW_TOKENS, TILE_TOKENS = 78, 5, 256
IMAGE_TOKEN = 5
# Tiles of an image → requests of a run.
SHAPES = {1: 480, 2: 280, 7: 80, 13: 40}
LONG_ROWS, LONG_TOKENS = 32, 256
RUNS = 3


class RandomFeatures:
    """Features of images by their number of tiles."""

    batch_tiles = 26

    def __init__(self) -> None:
        self._features: dict[int, Tensor] = {}

    def encode(self, images: Sequence[PreparedImage]) -> list[Tensor]:
        return [self._of(len(image.tiles)) for image in images]

    def _of(self, tiles: int) -> Tensor:
        if tiles not in self._features:
            shape = (tiles * TILE_TOKENS, MODEL.hidden_size)
            self._features[tiles] = 0.02 * torch.randn(shape, device=DEVICE, dtype=DTYPE)
        return self._features[tiles]


def requests(tiles: int, count: int) -> list[PreparedRequest]:
    """Prompts with one image each, all different."""
    before = (1,) * 50
    made = []
    for _ in range(count):
        image = PreparedImage(secrets.token_bytes(32), np.zeros((tiles, 1, 1, 3), np.uint8))
        text = np.random.randint(8, 90000, TEXT_TOKENS - len(before)).tolist()
        ids = (*before, *(IMAGE_TOKEN,) * (TILE_TOKENS * tiles), *text)
        made.append(PreparedRequest(ids, IMAGE_TOKEN, (image,), 0.0))
    return made


def seconds(loop: ServingLoop, asked: Sequence[PreparedRequest], new_tokens: int) -> float:
    """Time until the last of all requests is answered."""
    finished = threading.Event()
    left = [len(asked)]

    def done(result: Result, spent: Spent) -> None:
        if isinstance(result, Exception):
            raise result
        left[0] -= 1
        if not left[0]:
            finished.set()

    begin = time.perf_counter()
    for request in asked:
        work = Sampling(new_tokens)
        loop.submit(make_sequence(request, work, done, policy="off", salt=b"", config=MODEL))
    finished.wait()
    return time.perf_counter() - begin


def measure(decoder: Decoder, max_batch_tokens: int) -> dict[str, float]:
    """Requests a minute by tiles, and seconds of long answers."""
    begin = time.perf_counter()
    loop = serve(
        decoder,
        RandomFeatures(),
        stop_id=-1,
        vocabulary=MODEL.vocab_size,
        rules=RuntimeRules(prefix_cache="off", max_batch_tokens=max_batch_tokens),
        cache_tokens=4 * max_batch_tokens,
    )
    found = {"start_seconds": round(time.perf_counter() - begin, 1)}
    seconds(loop, requests(1, 60), NEW_TOKENS)
    for tiles, count in SHAPES.items():
        asked = requests(tiles, count)
        times = sorted(seconds(loop, asked, NEW_TOKENS) for _ in range(RUNS))
        found[f"{tiles} tiles, ms a request"] = round(1e3 * times[RUNS // 2] / count, 3)
    asked = requests(1, LONG_ROWS)
    times = sorted(seconds(loop, asked, LONG_TOKENS) for _ in range(RUNS))
    found[f"{LONG_ROWS} answers of {LONG_TOKENS} tokens, s"] = round(times[RUNS // 2], 3)
    loop.close()
    return found


def main() -> None:
    """Measure bf16, fp8 and 4 bits, and write everything as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--max-batch-tokens", type=int, default=16384)
    parser.add_argument("--schemes", nargs="+", default=["bf16", "fp8", "w4a16"])
    options = parser.parse_args()
    torch.manual_seed(0)
    schemes = {"bf16": None, "fp8": FP8, "w4a16": w4a16(128, False)}
    report: dict[str, object] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    for name in options.schemes:
        decoder = load(MODEL, schemes[name], {})
        report[name] = measure(decoder, options.max_batch_tokens)
        print(name, json.dumps(report[name]), flush=True)
        del decoder
        torch.cuda.empty_cache()
    options.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
