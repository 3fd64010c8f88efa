"""Loads a model while `tests/test_memory.py` watches: `python -m tests.peak_memory HOW FOLDER`.

It imports everything, says what it holds so far, waits for a line, loads, and says what it holds
then and whether loading has imported torch's compiler.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import vlmc
from vlmc.checkpoint.huggingface import language_tensors, tower_tensors
from vlmc.checkpoint.source import open_checkpoint
from vlmc.models.language.load import load_decoder
from vlmc.models.vision.load import load_tower
from vlmc.runtime.language import load_language


def anonymous_bytes(process: int | str = "self") -> int:
    """Memory of a process that no file backs; mapped weights do not count."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0  # a process that has just ended


def load_source(folder: Path, dtype: torch.dtype) -> object:
    """Tower and language model of an original checkpoint."""
    with open_checkpoint(folder) as checkpoint:
        config, weights = checkpoint.config, checkpoint.weights
        return (
            load_tower(config, tower_tensors(weights, config), dtype=dtype, device="cpu"),
            load_decoder(
                config.language,
                language_tensors(weights, config.language),
                dtype=dtype,
                device="cpu",
            ),
        )


def main(how: str, folder: Path) -> None:
    """`how` is the dtype to load a checkpoint in, `artifact`, or `language` for its language
    folder."""
    load = vlmc.load  # imports the runtime
    torch.ones(64, 64).matmul(torch.ones(64, 64))  # starts torch's threads
    print(anonymous_bytes(), flush=True)
    sys.stdin.readline()
    if how == "artifact":
        held: object = load(folder, device="cpu")
    elif how == "language":
        held = load_language(folder, torch.bfloat16, torch.device("cpu"))
    else:
        held = load_source(folder, getattr(torch, how))
    print(anonymous_bytes(), "torch._inductor" in sys.modules, flush=True)
    del held


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
