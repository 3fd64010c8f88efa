"""fp8 linears: E4M3 weights with per-channel scales, activations with per-token scales."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmc.errors import HardwareError
from vlmc.models.linears.dequantize import quantize_tokens, round_tokens

# CUDA C++ Programming Guide, table of tensor core formats.
MIN_CAPABILITY = (8, 9)
_MULTIPLE = 16


class Fp8Linear(nn.Module):
    """fp8 linear on a GPU, through `torch._scaled_mm`."""

    def __init__(
        self, weight: Tensor, scales: Tensor, bias: Tensor | None, dtype: torch.dtype
    ) -> None:
        """Create the linear.

        Args:
            weight: E4M3 (outputs, inputs), on a GPU.
            scales: fp32 (outputs, 1).
            bias: (outputs), or None.

        Raises:
            HardwareError: the GPU does not support fp8, or the sizes are not supported.
        """
        super().__init__()
        capability = torch.cuda.get_device_capability(weight.device)
        if capability < MIN_CAPABILITY:
            raise HardwareError(
                f"{torch.cuda.get_device_name(weight.device)} does not support fp8 (sm"
                f"{capability[0]}{capability[1]}; it needs sm89). Build the artifact with "
                "language.scheme: w4a16 or none for this GPU."
            )
        if any(size % _MULTIPLE for size in weight.shape):
            raise HardwareError(
                f"fp8 linears need sizes that are multiples of {_MULTIPLE}, but a linear of this "
                f"model has {list(weight.shape)}. Add it to language.keep and build again."
            )
        self.register_buffer("weight", weight)
        self.register_buffer("scales", scales.T.contiguous())
        self.register_buffer("bias", bias)

    weight: Tensor
    scales: Tensor  # (1, outputs)
    bias: Tensor | None

    def forward(self, states: Tensor) -> Tensor:
        """(…, inputs) → (…, outputs) in the same dtype."""
        product = multiply_fp8(states, self.weight, self.scales)
        return product if self.bias is None else product + self.bias

    def multiply(self, values: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
        """E4M3 values (tokens, inputs) with scales (tokens, 1) → (tokens, outputs) in `dtype`."""
        product = scaled_product(values, scales, self.weight, self.scales).to(dtype)
        return product if self.bias is None else product + self.bias


class DenseFp8Linear(nn.Module):
    """fp8 linear on the CPU: a dequantized weight, and activations rounded to fp8."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    weight: Tensor
    bias: Tensor | None

    def forward(self, states: Tensor) -> Tensor:
        """(…, inputs) → (…, outputs) in the same dtype."""
        rounded = round_tokens(states.reshape(-1, states.shape[-1]))
        return functional.linear(rounded.view(states.shape), self.weight, self.bias)


def multiply_fp8(states: Tensor, weight: Tensor, weight_scales: Tensor) -> Tensor:
    """Quantize `states` and multiply them by an fp8 weight.

    Args:
        states: (…, inputs).
        weight: E4M3 (outputs, inputs).
        weight_scales: fp32 (1, outputs).

    Returns:
        (…, outputs) in the dtype of `states`.
    """
    values, scales = _quantize(states.reshape(-1, states.shape[-1]))
    product = scaled_product(values, scales, weight, weight_scales)
    return product.to(states.dtype).view(*states.shape[:-1], -1)


def scaled_product(values: Tensor, scales: Tensor, weight: Tensor, weight_scales: Tensor) -> Tensor:
    """Multiply E4M3 values (tokens, inputs) by a weight (outputs, inputs).

    Scales are (tokens, 1) and (1, outputs).

    Row-wise scales support bf16 output only. The precision lost against fp16 is far below the
    error of fp8.
    """
    return torch._scaled_mm(
        values,
        weight.T,
        scale_a=scales,
        scale_b=weight_scales,
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )


def _quantize(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize in one kernel, or in plain torch under torch.compile, which fuses it."""
    if torch.compiler.is_compiling():
        return quantize_tokens(rows)
    from vlmc.models.linears.triton_kernels import quantize_rows

    return quantize_rows(rows)
