"""4-bit linears through humming-kernels, which JIT-compiles a kernel for each shape and GPU."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from vlmc.distribution import install_command
from vlmc.errors import HardwareError
from vlmc.machine.user_cache import user_cache
from vlmc.models.linears.autotune import describe
from vlmc.models.linears.humming_tuning import (
    Interval,
    Tile,
    candidate_tiles,
    fastest_tiles,
    override_tiles,
    tuned_tiles,
)
from vlmc.models.linears.int4_layout import TiledLayout, find_positions
from vlmc.models.linears.triton_kernels import dequantize_tiles
from vlmc.progress.channel import report
from vlmc.progress.events import Note

_GROUPS = (32, 64, 128, 256)
_TILE_N, _TILE_K = 64, 16
_MULTIPLE_N, _MULTIPLE_K = 128, 64
# int32 words per output in a tile: 16 inputs of 4 bits.
_WORDS = 2
_LOCKS = 2048
_NO_LIMIT = 1 << 30
# (weight configuration, device) → tuning configuration of its compiled kernels.
_prepared: dict[tuple[str, int], str] = {}


class HummingKernel:
    """A weight in humming's layout of tensor-core fragments.

    The layout only permutes the 4-bit values, so `dequantize` reads it too, and no second copy of
    the weight is needed.
    """

    def __init__(self, packed: Tensor, scales: Tensor, zeros: Tensor | None) -> None:
        """Convert a compressed-tensors weight on a GPU, and compile its kernels if not cached.

        Args:
            packed: int32 (outputs, inputs / 8).
            scales: (outputs, groups), in the dtype of the activations.
            zeros: int32 (outputs / 8, groups), or None for symmetric weights.

        Raises:
            HardwareError: the kernels cannot be compiled.
        """
        outputs, inputs = packed.shape[0], 8 * packed.shape[1]
        self.name = f"humming {version('humming-kernels')}"
        self.shape, self.group_size = (outputs, inputs), inputs // scales.shape[1]
        self.symmetric, self.dtype = zeros is None, scales.dtype
        self.max_rows = _NO_LIMIT
        self.locks = torch.zeros(_LOCKS, dtype=torch.int32, device=packed.device)
        with _explain_failure(packed.device):
            self._config, tensors = _transform(packed, scales, zeros)
            key = (self._config.to_str(), packed.device.index)
            if key not in _prepared:
                report(
                    Note(
                        f"preparing 4-bit kernels for {inputs} inputs and {outputs} outputs (20 s "
                        "on 16 cores the first time on a GPU, then cached)"
                    )
                )
                _prepared[key] = self._prepare(tensors)
            self._tiles = _prepared[key]
        self._tensors = tensors
        positions, columns = _probe(self.dtype, packed.device)
        self.layout = TiledLayout(
            _TILE_N, _TILE_K, _WORDS * _TILE_N, _WORDS * outputs, positions, columns
        )

    @staticmethod
    def takes(packed: Tensor, scales: Tensor) -> bool:
        """Whether the kernels support this shape and group size."""
        outputs, inputs = packed.shape[0], 8 * packed.shape[1]
        fits = outputs % _MULTIPLE_N == 0 and inputs % _MULTIPLE_K == 0
        return fits and inputs // scales.shape[1] in _GROUPS

    def multiply(self, rows: Tensor) -> Tensor:
        """(rows, inputs) → (rows, outputs)."""
        return self._launch(rows, self._tensors, self._tiles)

    def _launch(self, rows: Tensor, tensors: Mapping[str, Tensor], tiles: str) -> Tensor:
        from humming.forward import humming_forward

        product: Tensor = humming_forward(
            self._config, inputs=rows, locks=self.locks, tuning_config=tiles, **tensors
        )
        return product

    def _prepare(self, tensors: Mapping[str, Tensor]) -> str:
        """Compile the kernels of this shape, and tune the tiles for few rows."""
        from humming.kernel.humming import HummingKernel as Compiled
        from humming.tune import get_heuristics_config

        device = tensors["weight"].device
        capability = torch.cuda.get_device_capability(device)
        found = get_heuristics_config(self._config, device=device)
        defaults = [(above, rows, tile) for above, rows, tile in found]

        def compile_for(intervals: list[Interval]) -> str:
            text = json.dumps(intervals)
            Compiled.prepare_kernels(self._config.to_str(), None, text, device)
            return text

        candidates = candidate_tiles(self.shape, capability)

        def measure() -> dict[int, Tile]:
            # One call compiles all candidates in parallel.
            compile_for(
                defaults + [(0, rows, tile) for rows, tiles in candidates.items() for tile in tiles]
            )
            with torch.cuda.device(device):
                return fastest_tiles(
                    candidates, defaults, tensors, self.shape[1], self.dtype, self._launch
                )

        return compile_for(
            override_tiles(defaults, tuned_tiles(describe(self), candidates, measure))
        )

    def dequantize(self) -> Tensor:
        """The weight (outputs, inputs), rounded once to its dtype."""
        zeros = self._tensors.get("zero_point")
        # Scales and zero points are (groups, outputs), with permuted columns.
        return dequantize_tiles(
            self._tensors["weight"],
            self.layout,
            self._tensors["weight_scale"].T,
            None if zeros is None else zeros.T,
            self.shape,
        )


def _transform(
    packed: Tensor, scales: Tensor, zeros: Tensor | None
) -> tuple[Any, dict[str, Tensor]]:
    _import()
    from humming import dtypes
    from humming.schema import HummingWeightSchema
    from humming.transform import prepare_and_transform_humming_tensors

    outputs, inputs = packed.shape[0], 8 * packed.shape[1]
    tensors = {"weight": packed.contiguous(), "weight_scale": scales.contiguous()}
    if zeros is not None:
        tensors["zero_point"] = zeros.contiguous()
    with torch.cuda.device(packed.device):
        config, transformed = prepare_and_transform_humming_tensors(
            tensors,
            outputs,
            inputs,
            HummingWeightSchema(
                b_dtype=dtypes.DataType.from_str("uint4"),
                bs_dtype=dtypes.DataType.from_torch_dtype(scales.dtype),
                weight_scale_group_size=inputs // scales.shape[1],
                has_zero_point=zeros is not None,
            ),
            torch_dtype=scales.dtype,
            device=packed.device,
        )
    found: dict[str, Tensor] = transformed
    return config, found


@cache
def _probe(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Positions of a tile's elements and of scale columns in the installed version's layout."""
    scales = torch.arange(64, dtype=dtype, device=device)[:, None]

    def repack(packed: Tensor) -> Tensor:
        # A tile is (64, 16), but humming packs at least 64 inputs.
        padded = torch.nn.functional.pad(packed, (0, 6))
        _, tensors = _transform(padded, scales.expand(-1, 2).contiguous(), None)
        return tensors["weight"][0]

    positions = find_positions(repack, _TILE_N, _TILE_K, device)
    zeros = torch.zeros(64, 8, dtype=torch.int32, device=device)
    _, tensors = _transform(zeros, scales.expand(-1, 2).contiguous(), None)
    columns = torch.empty(64, dtype=torch.int32, device=device)
    columns[tensors["weight_scale"][0].long()] = torch.arange(64, dtype=torch.int32, device=device)
    return positions, columns


@cache
def _import() -> None:
    """Import humming, with its kernel cache below vlmc's cache folder."""
    folder = user_cache("kernels") / "humming"
    for made in (folder.parent, folder):
        made.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ.setdefault("HUMMING_CACHE_DIR", str(folder))
    os.environ.setdefault("HUMMING_TMP_DIR", str(folder / "locks"))
    # Otherwise the import starts a process that builds what the wheel already contains.
    with _variable("HUMMING_DISABLE_PARALLEL_BUILD", "1"):
        import humming.forward  # noqa: F401


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def _explain_failure(device: torch.device) -> Iterator[None]:
    """Convert compilation errors to HardwareError."""
    try:
        yield
    except (RuntimeError, OSError, AssertionError) as error:
        raise HardwareError(
            f"humming-kernels cannot compile its kernels for {torch.cuda.get_device_name(device)}: "
            f"{error}. It needs the CUDA runtime headers and NVRTC of torch's CUDA version: "
            f"{install_command('cuda')}, or uninstall humming-kernels to use torch's kernels."
        ) from error
