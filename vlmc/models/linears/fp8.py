"""fp8 linears: E4M3 weights with a scale for each output, activations scaled token by token."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmc.errors import HardwareError
from vlmc.models.linears.dequantize import quantize_tokens, round_tokens

# https://docs.nvidia.com/cuda/cuda-c-programming-guide, table of tensor core formats.
MIN_CAPABILITY = (8, 9)
_MULTIPLE = 16


class Fp8Linear(nn.Module):
    """On a GPU, through `torch._scaled_mm` with both operands in fp8."""

    def __init__(
        self, weight: Tensor, scales: Tensor, bias: Tensor | None, dtype: torch.dtype
    ) -> None:
        """Take E4M3 values (outputs, inputs) and fp32 scales (outputs, 1), for states in `dtype`.

        Raises:
            HardwareError: the GPU multiplies no fp8, or not in these sizes.
        """
        super().__init__()
        capability = torch.cuda.get_device_capability(weight.device)
        if capability < MIN_CAPABILITY:
            raise HardwareError(
                f"{torch.cuda.get_device_name(weight.device)} multiplies no fp8 (sm"
                f"{capability[0]}{capability[1]}; sm89 and later do). Build the artifact with "
                "language.scheme: w4a16 or none for this GPU."
            )
        if any(size % _MULTIPLE for size in weight.shape):
            raise HardwareError(
                f"fp8 products need sizes that are multiples of {_MULTIPLE}; a linear of this "
                f"model has {list(weight.shape)}. Name it in language.keep."
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


class DenseFp8Linear(nn.Module):
    """On the CPU: the weight in the dtype that is computed in, activations rounded as fp8 is."""

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
    """States (…, inputs) times E4M3 (outputs, inputs) and its scales (1, outputs), in the states'
    dtype."""
    values, scales = _quantize(states.reshape(-1, states.shape[-1]))
    # Row-wise scales come with bf16 results alone; what fp16 could say more of an fp8 product is
    # far below its error.
    product = torch._scaled_mm(
        values,
        weight.T,
        scale_a=scales,
        scale_b=weight_scales,
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )
    return product.to(states.dtype).view(*states.shape[:-1], -1)


def _quantize(rows: Tensor) -> tuple[Tensor, Tensor]:
    """In one kernel; a compiler that looks on fuses the plain operations with what is before."""
    if torch.compiler.is_compiling():
        return quantize_tokens(rows)
    from vlmc.models.linears.triton_kernels import quantize_rows

    return quantize_rows(rows)
