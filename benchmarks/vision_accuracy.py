"""Compare features and answers of an artifact's vision engine with fp32.

python -m benchmarks.vision_accuracy FP32_ARTIFACT ARTIFACT … --dataset eval.jsonl

The fp32 artifact's bundled graph runs on the CPU with ONNX Runtime. The others do too unless you
pass `--engine` and `--device`. `--bf16` adds the tower in bf16 with torch, because ONNX Runtime has
no bf16 kernels for the CPU. The cosine is that of the worst flattened tile. Each artifact uses its
own language model and tile rule.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import vlmc
from vlmc.artifact.vision_files import TOWER, payload_name
from vlmc.compile.onnx.typed_tower import TypedTower
from vlmc.image.decode import decode
from vlmc.image.preprocess import make_tiles
from vlmc.models.cosine import tile_cosines
from vlmc.models.vision.tower_file import read_tower
from vlmc.runtime.load import load
from vlmc.verify.metrics import LabelledAnswer, score

TOKENS_PER_TILE = 256


def main() -> None:
    """Print one JSON line for each artifact."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("reference", type=Path, help="the artifact in fp32")
    parser.add_argument("artifacts", type=Path, nargs="*")
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--images", type=int, help="only so many")
    parser.add_argument("--bf16", action="store_true", help="the fp32 artifact's tower in bf16")
    parser.add_argument("--engine", default="onnxruntime", help="of the artifacts compared")
    parser.add_argument("--device", default="cpu", help="of the artifacts compared")
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.dataset.open(encoding="utf-8")]
    chosen = list(dict.fromkeys(line["image"] for line in lines))[: options.images]
    lines = [line for line in lines if line["image"] in set(chosen)]
    images = [options.dataset.parent / image for image in chosen]
    expected = list(features_of(options.reference, images))
    said = answers_of(options.reference, lines, options.dataset.parent)
    show("fp32", expected, expected, lines, said, said)
    for artifact in options.artifacts:
        where = {"engine": options.engine, "device": options.device}
        found = features_of(artifact, images, **where)
        answers = answers_of(artifact, lines, options.dataset.parent, **where)
        show(str(artifact), found, expected, lines, answers, said)
    if options.bf16:
        show("bf16", bf16_features(options.reference, images), expected, lines, None, said)


def features_of(
    artifact: Path, images: list[Path], engine: str = "onnxruntime", device: str = "cpu"
) -> Iterator[Tensor]:
    """Features of each image, (tiles, 256 · hidden) fp32 on the CPU."""
    with load(artifact, device=device, engine=engine) as model:
        for image in images:
            (features,) = model.encode([image])
            yield features.float().cpu().reshape(len(features) // TOKENS_PER_TILE, -1)


def bf16_features(artifact: Path, images: list[Path]) -> Iterator[Tensor]:
    """Like `features_of`, with the typed tower in bf16."""
    opened = vlmc.open_artifact(artifact)
    rules = opened.manifest.image
    stored = read_tower(opened.path(payload_name(TOWER)), dtype=torch.float32, device="cpu")
    tower = TypedTower(stored, torch.bfloat16)
    for image in images:
        tiles = make_tiles(decode(image, exif=rules.exif), rules.tiles, rules.resampler)
        with torch.inference_mode():
            yield tower(torch.from_numpy(tiles)).float().flatten(1)


def answers_of(
    artifact: Path,
    lines: list[dict[str, Any]],
    folder: Path,
    engine: str = "onnxruntime",
    device: str = "cpu",
) -> list[str]:
    """The answer to each line."""
    with load(artifact, device=device, engine=engine) as model:
        requests = ((folder / line["image"], line["prompt"]) for line in lines)
        return [answer.text for answer in model.stream(requests)]


def show(
    name: str,
    found: Any,
    expected: list[Tensor],
    lines: list[dict[str, Any]],
    answers: list[str] | None,
    reference: list[str],
) -> None:
    """Print the results of one artifact."""
    pairs = zip(found, expected, strict=True)
    cosines = torch.cat([tile_cosines(one, other) for one, other in pairs])
    values: dict[str, Any] = {
        "artifact": name,
        "tiles": len(cosines),
        "worst_cosine": float(cosines.min()),
        "mean_cosine": float(cosines.mean()),
    }
    if answers is not None:
        equal = sum(one == other for one, other in zip(answers, reference, strict=True))
        recall, before = recall_of(lines, answers), recall_of(lines, reference)
        values |= {
            "questions": len(lines),
            "agreement": equal / len(lines),
            "recall": recall,
            "recall_drop": before - recall,
        }
    print(json.dumps(values), flush=True)


def recall_of(lines: list[dict[str, Any]], answers: list[str]) -> float:
    """Recall of the positive labels."""
    judged = [
        LabelledAnswer(line["question"], line["label"], answer, tuple(line.get("positive", ())))
        for line, answer in zip(lines, answers, strict=True)
    ]
    return score(judged).recall.value


if __name__ == "__main__":
    main()
