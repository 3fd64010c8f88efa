"""4-bit linears with 16-bit activations on a GPU."""

from __future__ import annotations

import re
import warnings
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmc.distribution import install_command
from vlmc.errors import HardwareError
from vlmc.models.linears.dequantize_crossover import crossover_rows
from vlmc.models.linears.kernel import Kernel

HUMMING = "humming-kernels"
_HUMMING_VERSIONS = ((0, 1, 19), (0, 2))
_MIN_CAPABILITY = {torch.float16: (7, 5), torch.bfloat16: (8, 0)}


class W4A16Linear(nn.Module):
    """Runs a 4-bit kernel for few rows; for many, dequantizes the weight and uses cuBLAS.

    The crossover is autotuned on this GPU and limited by what the kernel supports.
    """

    def __init__(self, kernel: Kernel, bias: Tensor | None) -> None:
        super().__init__()
        self.kernel = kernel
        self.crossover_rows = crossover_rows(kernel)
        self.register_buffer("bias", bias)

    bias: Tensor | None

    def forward(self, states: Tensor) -> Tensor:
        """(…, inputs) → (…, outputs) in the same dtype."""
        rows = states.reshape(-1, states.shape[-1])
        if len(rows) >= self.crossover_rows:
            product = functional.linear(rows, self.kernel.dequantize(), self.bias)
        else:
            product = self.kernel.multiply(rows)
            if self.bias is not None:
                product = product + self.bias
        return product.view(*states.shape[:-1], -1)


def choose_kernel(
    packed: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    dtype: torch.dtype,
) -> Kernel:
    """Create the kernel for a compressed-tensors weight on a GPU.

    This uses humming-kernels if it is installed and supports the shape, otherwise torch.

    Args:
        packed: int32 (outputs, inputs / 8).
        scales: (outputs, groups) in `dtype`.
        zeros: int32 (outputs / 8, groups), or None for symmetric weights.
        dtype: dtype of the activations.

    Raises:
        HardwareError: the GPU cannot compute in `dtype`, or the kernels cannot be compiled.
    """
    capability = torch.cuda.get_device_capability(packed.device)
    if dtype not in _MIN_CAPABILITY or capability < _MIN_CAPABILITY[dtype]:
        raise HardwareError(
            f"{torch.cuda.get_device_name(packed.device)} (sm{capability[0]}{capability[1]}) does "
            f"not run 4-bit weights with {dtype} activations. Build the artifact with model.dtype: "
            "fp16, or bf16 from sm80 on."
        )
    if humming_version() is not None:
        from vlmc.models.linears.humming_kernel import HummingKernel

        if HummingKernel.takes(packed, scales):
            return HummingKernel(packed, scales, zeros)
    from vlmc.models.linears.int4pack_kernel import Int4PackKernel

    return Int4PackKernel(packed, scales, zeros)


@cache
def humming_version() -> str | None:
    """The installed version of humming-kernels, or None if it is missing or not supported.

    Without it, this warns once per process.
    """
    try:
        found = version(HUMMING)
    except PackageNotFoundError:
        reason = f"{HUMMING} is not installed"
    else:
        numbers = tuple(int(part) for part in re.findall(r"\d+", found)[:3])
        least, below = _HUMMING_VERSIONS
        if least <= numbers < below:
            return found
        reason = f"{HUMMING} {found} is not supported (0.1.19 to 0.1.*)"
    warnings.warn(
        f"{reason}, so 4-bit linears use torch's slower kernels. On an H100, a decode step of "
        "InternVL2-8B takes the same time for one row, but 18.0 ms instead of 4.4 ms for 32 rows. "
        f"Install it: {install_command('cuda')}",
        stacklevel=2,
    )
    return None
