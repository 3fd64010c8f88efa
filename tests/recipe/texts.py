"""Texts of recipes, and the messages that refuse them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmc.errors import RecipeError
from vlmc.recipe.read import read_recipe

MINIMAL = "version: 1\nname: small\nmodel: {checkpoint: weights}\nvision: {precision: fp32}\n"
HEAD = "version: 1\nname: small\nmodel:\n  checkpoint: weights\n"  # four lines
FULL = """\
version: 1
name: whole-8b.v2_x
model:
  checkpoint: ../weights
  dtype: bf16
  template: Hermes-2
  system_message: Answer in one word.
image:
  resampler: pillow
  exif: apply
  high_bit_depth: scale
  tiles: {rule: native, max: 4, thumbnail: true, tolerance: 0.1}
  prune: {keep: 0.75}
vision:
  precision: int8
  engines:
    - {engine: tensorrt-rtx, targets: [sm86, sm89]}
    - {engine: onnxruntime}
  profiles:
    - {min: 1, opt: 2, max: 4}
    - {min: 5, opt: 13, max: 26}
language:
  scheme: w4a16
  method: gptq
  group_size: 64
  symmetric: true
  keep: ["*.down_proj"]
calibration:
  dataset: calibration.jsonl
  modality: image_text
  samples: 32
  seed: 7
runtime:
  cuda_graphs: false
  prefix_cache: off
  max_batch_tokens: 4096
accuracy:
  dataset: ../eval.jsonl
  reference_dtype: fp32
  normalize: [nfkc]
  min_feature_cosine: 0.99
  min_answer_agreement: 1
  max_recall_drop: 0
"""


def refused(path: Path, text: str | bytes, *overrides: str) -> str:
    """The message for a recipe that is not read, its folder left out."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecipeError) as caught:
        read_recipe(path, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{path.parent}/", "")


def vision(precision: str, *engines: str) -> str:
    """Line 5 the part, 6 the precision, 7 the key, then a line for each engine."""
    lines = "".join(f"    - {{engine: {engine}}}\n" for engine in engines)
    return f"vision:\n  precision: {precision}\n  engines:\n{lines}"
