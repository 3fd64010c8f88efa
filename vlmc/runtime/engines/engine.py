"""What the runtime asks of an engine of the vision tower."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from vlmc.artifact.manifest import Profile


class VisionEngine(Protocol):
    """A loaded engine. It holds memory until `close`, and serves one thread at a time."""

    @property
    def name(self) -> str:
        """As recipes and manifests name it: onnxruntime, tensorrt, tensorrt-rtx, inductor."""

    @property
    def precision(self) -> str:
        """fp32, fp16, bf16, int8 or fp8."""

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """Numbers of tiles that it is made to run at once; onnxruntime runs any number up to the
        largest, and without profiles too."""

    @property
    def device(self) -> torch.device:
        """Where it takes tiles and leaves features."""

    @property
    def device_memory_bytes(self) -> int:
        """What it takes on the device beside its weights: activations and workspaces."""

    def infer(
        self,
        tiles: Tensor,
        out: Tensor | None = None,
        stream: torch.cuda.Stream | None = None,
    ) -> Tensor:
        """Features of any number of tiles, in as few runs as the profiles allow.

        Args:
            tiles: uint8 (N, 448, 448, 3) on `device`, N ≥ 1.
            out: where to write the features, as the result; memory of its own without.
            stream: the CUDA stream to run on, the current one without; the result is ready when
                the stream is. None on the CPU.

        Returns:
            (N, 256, hidden) on `device`, in the dtype that the engine computes them in.
        """

    def close(self) -> None:
        """Free the memory; the engine cannot be used after."""
