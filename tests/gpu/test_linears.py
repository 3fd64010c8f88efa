"""On CUDA, quantized linears compute what their dequantized twins do on the CPU.

Each shape that humming-kernels meets first is compiled for 20 s, so there are few.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.models.language.sequences import sequence
from tests.models.linears.quantized import FP8, fp8, int4, quantized_and_dense, w4a16
from vlmc.checkpoint.quantization import Quantization
from vlmc.errors import HardwareError
from vlmc.models.language.load import load_decoder
from vlmc.models.linears import autotune
from vlmc.models.linears.dequantize import dequantize_int4, quantize_tokens
from vlmc.models.linears.humming_tuning import candidate_tiles
from vlmc.models.linears.kernel import Kernel
from vlmc.models.linears.w4a16 import W4A16Linear, choose_kernel

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
needs_humming = pytest.mark.skipif(
    torch.cuda.is_available() and find_spec("humming") is None, reason="needs humming-kernels"
)

Folder = Callable[[str], Path]
OUTPUTS, INPUTS = 384, 512
ROWS = (1, 7, 32, 65, 300)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def weight(
    dtype: torch.dtype,
    group_size: int,
    symmetric: bool,
    shape: tuple[int, int] = (OUTPUTS, INPUTS),
) -> tuple[Tensor, ...]:
    """Packed, scales and zero points on the GPU, and the exact weight rounded to `dtype`."""
    generator = torch.Generator().manual_seed(group_size)
    tensors, _ = int4(
        torch.randn(shape, generator=generator) * 0.05, group_size, symmetric=symmetric
    )
    packed, scales = tensors["weight_packed"], tensors["weight_scale"].to(dtype)
    zeros = tensors.get("weight_zero_point", torch.empty(0))
    exact = dequantize_int4(packed, scales, None if symmetric else zeros, dtype)
    return packed.cuda(), scales.cuda(), zeros.cuda(), exact


def kernel_of(dtype: torch.dtype, group_size: int, symmetric: bool) -> tuple[Kernel, Tensor]:
    packed, scales, zeros, exact = weight(dtype, group_size, symmetric)
    return choose_kernel(packed, scales, None if symmetric else zeros, dtype), exact


def check(kernel: Kernel, exact: Tensor) -> None:
    """Dequantized to the bit, multiplied as closely as the dtype allows."""
    assert torch.equal(kernel.dequantize().cpu(), exact)
    generator = torch.Generator().manual_seed(3)
    linear = W4A16Linear(kernel, None)
    for count in ROWS:
        rows = torch.randn(count, INPUTS, generator=generator).to(exact.dtype)
        expected = rows.float() @ exact.float().T
        found = [linear(rows.cuda())]
        if count <= kernel.max_rows:
            found.append(kernel.multiply(rows.cuda()))
        for product in found:
            error = (product.cpu().float() - expected).norm() / expected.norm()
            assert float(error) < (0.01 if exact.dtype == torch.bfloat16 else 0.002), count


@needs_humming
@pytest.mark.parametrize(
    ("dtype", "group_size", "symmetric"),
    [
        (torch.bfloat16, 128, False),
        (torch.bfloat16, 32, True),
        (torch.float16, 64, False),
    ],
    ids=str,
)
def test_humming(dtype: torch.dtype, group_size: int, symmetric: bool) -> None:
    kernel, exact = kernel_of(dtype, group_size, symmetric)
    assert kernel.name.startswith("humming")
    check(kernel, exact)


@needs_humming
@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() != (9, 0),
    reason="needs a GPU with candidate tiles (sm90)",
)
@pytest.mark.parametrize(
    ("dtype", "group_size", "symmetric"),
    [(torch.bfloat16, 128, False), (torch.float16, 32, False), (torch.bfloat16, 64, True)],
    ids=str,
)
def test_tiles_for_few_rows(
    dtype: torch.dtype, group_size: int, symmetric: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlmc.models.linears import humming_kernel

    monkeypatch.setattr(humming_kernel, "_prepared", {})
    monkeypatch.setattr(autotune, "_decided", {})
    # A shape that all of them fit, and products by each whatever is quickest.
    packed, scales, zeros, exact = weight(dtype, group_size, symmetric, (512, 512))
    kernel = choose_kernel(packed, scales, None if symmetric else zeros, dtype)
    assert isinstance(kernel, humming_kernel.HummingKernel)
    candidates = candidate_tiles(kernel.shape, (9, 0))
    assert {len(tiles) for tiles in candidates.values()} == {3}
    generator = torch.Generator().manual_seed(3)
    for most, tiles in candidates.items():
        for count in {1, most - 3, most}:
            rows = torch.randn(count, 512, generator=generator).to(dtype)
            expected = rows.float() @ exact.float().T
            for tile in tiles:
                monkeypatch.setattr(kernel, "_tiles", json.dumps(tile))
                # Twice, for its locks must be as they were.
                for _ in range(2):
                    product = kernel.multiply(rows.cuda()).cpu().float()
                    error = (product - expected).norm() / expected.norm()
                    assert float(error) < (0.01 if dtype == torch.bfloat16 else 0.002), tile


@needs_humming
def test_tiles_are_chosen_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a GPU with candidate tiles (sm90)")
    from vlmc.models.linears import humming_kernel

    path = tmp_path / "vlmc" / "kernels" / "w4a16-tiles.json"
    chosen = []
    for _ in range(2):
        monkeypatch.setattr(humming_kernel, "_prepared", {})
        monkeypatch.setattr(autotune, "_decided", {})
        kernel, exact = kernel_of(torch.bfloat16, 128, False)
        check(kernel, exact)
        chosen.append(path.read_text())
        monkeypatch.setattr(humming_kernel, "fastest_tiles", None)
    assert chosen[0] == chosen[1]
    ((key, choice),) = json.loads(chosen[0]).items()
    assert "384x512" in key
    assert set(choice) <= {"8", "16", "32"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", [16, 32, 64, 128])
def test_torch_alone(
    dtype: torch.dtype, group_size: int, symmetric: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmc.models.linears.w4a16.humming_version", lambda: None)
    kernel, exact = kernel_of(dtype, group_size, symmetric)
    assert kernel.name == "torch"
    assert (kernel.max_rows > 0) == (dtype == torch.bfloat16 and group_size >= 32)
    check(kernel, exact)


def test_what_is_quicker_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmc.models.linears.w4a16.humming_version", lambda: None)
    monkeypatch.setattr(autotune, "_decided", {})
    kernel, _ = kernel_of(torch.bfloat16, 64, True)
    crossover = W4A16Linear(kernel, None).crossover_rows
    path = tmp_path / "vlmc" / "kernels" / "w4a16-rows.json"
    assert path.parent.stat().st_mode & 0o777 == 0o700
    ((key, kept),) = json.loads(path.read_text()).items()
    assert torch.cuda.get_device_name() in key
    assert crossover == min(kept, kernel.max_rows + 1)
    path.write_text(json.dumps({key: 5}))
    monkeypatch.setattr(autotune, "_decided", {})
    assert W4A16Linear(kernel, None).crossover_rows == 5


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 9),
    reason="needs a GPU that multiplies fp8",
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_tokens_are_quantized_in_one_kernel(dtype: torch.dtype) -> None:
    from vlmc.models.linears.triton_kernels import quantize_rows

    rows = torch.randn(33, 3000, device="cuda", dtype=dtype)
    rows[5] = 0
    values, scales = quantize_rows(rows)
    expected, expected_scales = quantize_tokens(rows)
    assert torch.equal(scales, expected_scales)
    assert torch.equal(values.view(torch.uint8), expected.view(torch.uint8))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("quantization", [w4a16(32, symmetric=False), FP8], ids=["w4a16", "fp8"])
@pytest.mark.parametrize("name", ["internlm2-300m", "qwen2-300m", "phi3-300m"])
@torch.inference_mode()
def test_decoder(
    name: str,
    quantization: Quantization,
    dtype: torch.dtype,
    miniatures: Folder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vlmc.models.linears.w4a16.humming_version", lambda: None)
    config, tensors, _ = quantized_and_dense(miniatures(name), quantization)
    here, there = (
        load_decoder(config, tensors, dtype=kind, device=device, quantization=quantization)
        for kind, device in ((torch.float32, "cpu"), (dtype, "cuda"))
    )
    states = sequence(here, 70)[None]
    expected = here(states)
    found = there(states.to("cuda", dtype)).cpu().float()
    # fp8 rounds what differs in 16 bits to other values.
    bound = 0.1 if quantization is FP8 else 0.02
    assert float((found - expected).norm() / expected.norm()) < bound


def test_fp8_says_which_sizes_it_cannot_multiply() -> None:
    from vlmc.models.linears.fp8 import Fp8Linear

    tensors, _ = fp8(torch.randn(24, 40))
    with pytest.raises(HardwareError, match=r"multiples of 16.*\[24, 40\]"):
        Fp8Linear(
            tensors["weight"].cuda(), tensors["weight_scale"].float().cuda(), None, torch.bfloat16
        )
