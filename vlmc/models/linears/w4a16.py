"""4-bit weights times 16-bit activations on a GPU, by whatever is quickest for the rows at hand."""

from __future__ import annotations

import re
import warnings
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmc.errors import HardwareError
from vlmc.machine.distribution import install_command
from vlmc.models.linears.dequantize_crossover import dequantize_from
from vlmc.models.linears.kernel import Kernel

HUMMING = "humming-kernels"
_HUMMING_VERSIONS = ((0, 1, 19), (0, 2))
_MIN_CAPABILITY = {torch.float16: (7, 5), torch.bfloat16: (8, 0)}


class W4A16Linear(nn.Module):
    """Few rows go through the kernel, many through cuBLAS after the weight is dequantized.

    The border was measured on this GPU, or is 0 or the kernel's last where one side is missing.
    """

    def __init__(self, kernel: Kernel, bias: Tensor | None) -> None:
        super().__init__()
        self.kernel = kernel
        self.dequantized_from = dequantize_from(kernel)
        self.register_buffer("bias", bias)

    bias: Tensor | None

    def forward(self, states: Tensor) -> Tensor:
        """(…, inputs) → (…, outputs) in the same dtype."""
        rows = states.reshape(-1, states.shape[-1])
        if len(rows) >= self.dequantized_from:
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
    """The kernel for a weight in compressed-tensors' layout on a GPU, scales in `dtype`.

    humming-kernels where it is installed and takes the size, else torch's own. Work that takes long
    is reported.

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
    """The installed version of humming-kernels, if it is one that vlmc works with.

    Warns, once in a process, of the speed that is lost without it.
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
        reason = f"{HUMMING} {found} is none of the versions that vlmc works with (0.1.19 to 0.1.*)"
    warnings.warn(
        f"{reason}: 4-bit linears run through torch alone. On an H100 a decode step of "
        "InternVL2-8B's size is as quick for one row, and takes 18.0 ms instead of 4.4 for 32. "
        f"Install it: {install_command('cuda')}",
        stacklevel=2,
    )
    return None
