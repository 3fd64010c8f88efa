"""Settings for quantizing the language model. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Method = Literal["awq", "gptq", "rtn"]
Dtype = Literal["float32", "bfloat16", "float16"]
_HELD_OUT_SHARE = 8


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of 4-bit quantization; `keep` names linears to keep in 16 bits."""

    method: Method
    group_size: int
    symmetric: bool
    dtype: Dtype  # of scales and of unquantized tensors
    layers: int
    keep: tuple[str, ...] = ()
    samples: str | None = None  # the folder of the calibration embeddings

    @property
    def bits(self) -> int:
        """Bits per quantized weight."""
        return 4


def held_out(samples: int) -> int:
    """Number of final samples that are used to measure errors, not to calibrate."""
    return max(1, samples // _HELD_OUT_SHARE) if samples > 1 else 0
