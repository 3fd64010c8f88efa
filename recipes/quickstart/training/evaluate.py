"""Measures a trained quickstart checkpoint on freshly drawn scenes, by tile rule.

python -m recipes.quickstart.training.evaluate --first-seed 0 --count 300 --json OUT/evaluation.json
"""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from recipes.quickstart.training.layout import CHECKPOINT, read_weights
from recipes.quickstart.training.measure import draw_scenes, measure
from recipes.quickstart.training.prompts import Prompts
from recipes.quickstart.training.samples import RULES
from vlmc.image.resize import RESAMPLERS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--weights", type=Path, default=CHECKPOINT, help="folder that holds them")
    parser.add_argument("--first-seed", type=int, required=True)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--rules", nargs="+", choices=list(RULES), default=list(RULES))
    parser.add_argument("--resampler", choices=RESAMPLERS, default="pillow")
    parser.add_argument("--processes", type=int, default=14)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--bf16", action="store_true", help="autocast; fp32 otherwise")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.count)
    scenes = draw_scenes(seeds, options.questions, options.processes)
    device = torch.device(options.device)
    tower, decoder = read_weights(options.weights)
    tower.to(device).eval()
    decoder.to(device).eval()
    prompts = Prompts()

    def precision() -> Any:
        return torch.autocast(device.type, torch.bfloat16) if options.bf16 else nullcontext()

    found = {
        rule: measure(
            tower,
            decoder,
            prompts,
            scenes,
            rule,
            options.resampler,
            precision,
            options.processes,
        )
        for rule in options.rules
    }
    names = list(next(iter(found.values())))
    print(" " * 22 + "".join(f"{rule:>13}" for rule in found))
    for name in names:
        cells = (row[name] for row in found.values())
        print(f"{name:22}" + "".join(f"{'-' if c is None else f'{c:.4g}':>13}" for c in cells))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
