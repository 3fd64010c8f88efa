"""A checkpoint whose vocabulary is padded beyond its tokenizer's."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from tests.checkpoint import edit


def padded(source: Path, folder: Path, rows: int) -> Path:
    """A copy of the InternLM2 miniature with `rows` more ids, which win about every other time."""
    folder = edit.copy(source, folder)
    names = ("language_model.model.tok_embeddings.weight", "language_model.output.weight")
    for name in names:
        values: Tensor = edit.tensors(folder)[name]
        extra = values[-1:].expand(rows, -1) * 0 + values.mean()
        if name == names[1]:
            extra = values.float().sum(0, keepdim=True).sign().expand(rows, -1) * 50
        edit.edit_tensors(folder, {name: torch.cat([values, extra.to(values.dtype)])})
    size = json.loads((folder / "config.json").read_text())["llm_config"]["vocab_size"]
    edit.edit_config(folder, {"llm_config.vocab_size": size + rows})
    return folder
