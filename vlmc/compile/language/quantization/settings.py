"""How the language model is quantized; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Method = Literal["awq", "gptq", "rtn"]
Dtype = Literal["float32", "bfloat16", "float16"]
_HELD_OUT_SHARE = 8


@dataclass(frozen=True, slots=True)
class Settings:
    """How the weights are quantized. `keep` names linears left in 16 bits."""

    method: Method
    group_size: int
    symmetric: bool
    dtype: Dtype  # of scales, and of what is left in 16 bits
    layers: int
    keep: tuple[str, ...] = ()
    samples: str | None = None  # the folder of the calibration embeddings

    @property
    def bits(self) -> int:
        """Of a quantized weight."""
        return 4


def held_out(samples: int) -> int:
    """How many of the last samples errors are measured on, which nothing is calibrated on."""
    return max(1, samples // _HELD_OUT_SHARE) if samples > 1 else 0
