"""Have AutoAWQ and AutoGPTQ read what vlmc lays out: `README.md` beside this says how."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import save_file
from torch import Tensor

from vlmc.checkpoint.packed import compressed_to_awq, compressed_to_gptq, pack

HERE = Path(__file__).parent
OUTPUTS, INPUTS = 32, 256
CASES = [(size, symmetric) for size in (32, 128) for symmetric in (False, True)]


def main(awq: Path, gptq: Path) -> None:
    """Read with the sources of AutoAWQ and AutoGPTQ in those folders, and write what they see."""
    packing = module(awq / "awq" / "utils" / "packing_utils.py")
    linears = module(gptq / "auto_gptq" / "nn_modules" / "qlinear" / "qlinear_cuda_old.py")
    by_awq: dict[str, Tensor] = {}
    by_gptq: dict[str, Tensor] = {}
    for seed, (size, symmetric) in enumerate(CASES):
        compressed = draw(size, symmetric, seed)
        laid_out = compressed_to_awq(compressed)
        weight = packing.dequantize_gemm(
            laid_out["qweight"], laid_out["qzeros"], laid_out["scales"], 4, size
        )
        case = f"group{size}-{'symmetric' if symmetric else 'asymmetric'}"
        by_awq |= named(case, compressed, laid_out, weight.T)

        laid_out = compressed_to_gptq(compressed)
        linear = linears.QuantLinear(4, size, INPUTS, OUTPUTS, bias=False)
        linear.load_state_dict(laid_out)
        # Times the identity, which adds nothing but zeros to a weight.
        weight = linear(torch.eye(INPUTS, dtype=torch.float16))
        by_gptq |= named(case, compressed, laid_out, weight.T)
    save_file(by_awq, HERE / "autoawq.safetensors")
    save_file(by_gptq, HERE / "autogptq.safetensors")


def draw(group_size: int, symmetric: bool, seed: int) -> dict[str, Tensor]:
    """A linear in compressed-tensors' layout with every integer and, unless symmetric, every zero
    point."""
    generator = torch.Generator().manual_seed(seed)
    groups = INPUTS // group_size
    q = torch.randint(0, 16, (OUTPUTS, INPUTS), generator=generator, dtype=torch.uint8)
    z = torch.randint(0, 16, (OUTPUTS, groups), generator=generator, dtype=torch.uint8)
    z[:16, 0] = torch.arange(16)
    scales = torch.rand(OUTPUTS, groups, generator=generator) * 0.02 + 0.001
    found = {
        "weight_packed": pack(q),
        "weight_scale": scales.half(),
        "weight_shape": torch.tensor(q.shape),
    }
    return found if symmetric else found | {"weight_zero_point": pack(z.T).T.contiguous()}


def named(
    case: str, compressed: dict[str, Tensor], laid_out: dict[str, Tensor], weight: Tensor
) -> dict[str, Tensor]:
    tensors = {**compressed, **laid_out, "read": weight.contiguous()}
    return {f"{case}.{name}": tensor for name, tensor in tensors.items()}


def module(path: Path) -> ModuleType:
    """One file, without its package, whose other imports are not needed."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
