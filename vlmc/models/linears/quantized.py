"""Create quantized linears from their tensors.

A quantized linear is stored as several tensors, and is created when all of them are loaded. On a
GPU it computes with the quantized weight. On the CPU the weight is dequantized once, which is
faster than unpacking it for every product.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

import torch
from torch import Tensor, nn

from vlmc.checkpoint.finite import is_finite
from vlmc.checkpoint.quantization import PER_WORD, Quantization
from vlmc.errors import CheckpointError
from vlmc.models.linears.dequantize import dequantize_fp8, dequantize_int4
from vlmc.models.linears.fp8 import DenseFp8Linear, Fp8Linear
from vlmc.models.linears.w4a16 import W4A16Linear, choose_kernel

_FLOATS = {torch.float32, torch.bfloat16, torch.float16}
_Layouts = dict[str, tuple[tuple[int, ...], torch.dtype]]  # shapes and dtypes by name


class JoinedLinear(nn.Module):
    """A fused projection whose parts have different storage; concatenates their outputs."""

    def __init__(self, parts: Iterable[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, states: Tensor) -> Tensor:
        """(…, inputs) → (…, outputs of all parts)."""
        return torch.cat([part(states) for part in self.parts], dim=-1)


class QuantizedTensors:
    """Collects the tensors of one quantized linear while a model loads."""

    def __init__(
        self,
        linear: nn.Linear,
        name: str,
        quantization: Quantization,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.name, self.quantization, self.dtype, self.device = name, quantization, dtype, device
        self.outputs, self.inputs = linear.out_features, linear.in_features
        self.parts: dict[str, dict[int, Tensor]] = {}  # by name and first output
        self.layouts: _Layouts = {}
        self.layouts |= self._int4() if quantization.layout == "w4a16" else self._fp8()
        if linear.bias is not None:
            self.layouts["bias"] = ((self.outputs,), dtype)

    def fill(self, kind: str, start: int, stop: int | None, tensor: Tensor, source: str) -> int:
        """Store a tensor for the outputs from `start` to `stop`.

        Args:
            kind: name of the tensor within the linear, such as `weight_scale`.
            start: first output.
            stop: end of the outputs, or None for the last.
            tensor: may be mapped from a file.
            source: full name of the tensor, for error messages.

        Returns:
            The number of outputs filled.

        Raises:
            CheckpointError: the tensor has the wrong shape or dtype, or contains NaN or infinity.
        """
        last = self.outputs if stop is None else stop
        first, end = start, last
        if kind == "weight_zero_point":
            if start % PER_WORD or last % PER_WORD:
                self._fail(f"outputs {start} to {last} share words of zero points with others")
            first, end = start // PER_WORD, last // PER_WORD
        shape, dtype = self.layouts[kind]
        check_shape(source, tensor, (end - first, *shape[1:]))
        if tensor.dtype != dtype and not {tensor.dtype, dtype} <= _FLOATS:
            raise CheckpointError(f"tensor {source} is {tensor.dtype}; its layout needs {dtype}")
        if not is_finite(tensor):
            raise CheckpointError(f"tensor {source} holds NaN or infinite values")
        self.parts.setdefault(kind, {})[start] = tensor
        return last - start

    def make(self) -> nn.Module:
        """Create the linear from the tensors, and release them.

        Raises:
            HardwareError: the GPU does not support this layout.
        """
        tensors = {kind: self._whole(kind, dtype) for kind, (_, dtype) in self.layouts.items()}
        # A copy, so that the mapped file can be closed.
        bias = tensors["bias"].clone() if "bias" in tensors else None
        scales = tensors["weight_scale"]
        if self.quantization.layout == "fp8":
            if self.device.type == "cuda":
                return Fp8Linear(tensors["weight"], scales, bias, self.dtype)
            return DenseFp8Linear(dequantize_fp8(tensors["weight"], scales, self.dtype), bias)
        zeros = tensors.get("weight_zero_point")
        if self.device.type == "cuda":
            kernel = choose_kernel(tensors["weight_packed"], scales, zeros, self.dtype)
            return W4A16Linear(kernel, bias)
        dense = nn.Linear(self.inputs, self.outputs, bias=bias is not None, device="meta")
        weight = dequantize_int4(tensors["weight_packed"], scales, zeros, self.dtype)
        dense.weight = nn.Parameter(weight, requires_grad=False)
        if bias is not None:
            dense.bias = nn.Parameter(bias, requires_grad=False)
        return dense

    def _whole(self, kind: str, dtype: torch.dtype) -> Tensor:
        """The tensor for all outputs, on the device."""
        parts = self.parts.pop(kind)
        moved = [parts[start].to(self.device, dtype) for start in sorted(parts)]
        return torch.cat(moved) if len(moved) > 1 else moved[0]

    def _int4(self) -> _Layouts:
        size = self.quantization.group_size or self.inputs
        if self.inputs % size or self.inputs % PER_WORD:
            self._fail(f"groups of {size} do not divide its {self.inputs} inputs")
        groups = self.inputs // size
        layouts: _Layouts = {
            "weight_packed": ((self.outputs, self.inputs // PER_WORD), torch.int32),
            "weight_scale": ((self.outputs, groups), self._scale_dtype()),
        }
        if not self.quantization.symmetric:
            if self.outputs % PER_WORD:
                self._fail(f"{self.outputs} outputs do not fill words of zero points")
            layouts["weight_zero_point"] = ((self.outputs // PER_WORD, groups), torch.int32)
        return layouts

    def _fp8(self) -> _Layouts:
        return {
            "weight": ((self.outputs, self.inputs), torch.float8_e4m3fn),
            "weight_scale": ((self.outputs, 1), torch.float32),
        }

    def _scale_dtype(self) -> torch.dtype:
        """GPU kernels need scales in the activations' dtype; the CPU dequantizes in fp32."""
        return self.dtype if self.device.type == "cuda" else torch.float32

    def _fail(self, reason: str) -> NoReturn:
        raise CheckpointError(f"{self.name}: {reason}; the quantization_config does not fit it")


def check_shape(source: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raise CheckpointError unless the tensor has the shape that the model needs."""
    if tensor.shape != shape:
        raise CheckpointError(
            f"tensor {source} has shape {list(tensor.shape)}; the model's configuration needs "
            f"{list(shape)}"
        )
