"""Run an AOTInductor package: kernels from a file, weights passed at load time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vlmc.errors import HardwareError


class AotiPackage:
    """Loaded kernels and the weights that they reference. Not thread-safe."""

    def __init__(self, path: Path, weights: Mapping[str, Tensor], device: torch.device) -> None:
        """Load the package.

        Args:
            path: the `.pt2` file.
            weights: tensors on `device`, by the names used at export.
            device: the GPU, or the CPU.

        Raises:
            HardwareError: torch cannot load the file, or `weights` lacks a tensor it needs.
        """
        index = -1 if device.type == "cpu" else device.index or 0
        # torch's `aoti_load_package` runs the C++ compiler to detect the CPU's vector
        # instructions. The loader that it wraps compiles nothing.
        # Locks and events between runs cannot be captured in a CUDA graph.
        single_threaded, runners = True, 1
        try:
            self._loader = torch._C._aoti.AOTIModelPackageLoader(
                str(path), "model", single_threaded, runners, index
            )
        except RuntimeError as error:
            raise HardwareError(
                f"torch {torch.__version__} cannot load {path}: {error}. {rebuild(path)}"
            ) from error
        names = self._loader.get_constant_fqns()
        missing = sorted(set(names) - weights.keys())
        if missing:
            raise HardwareError(
                f"{path} needs {len(missing)} weights that the tower does not have, first "
                f"{missing[0]}: it was compiled for another tower or precision. {rebuild(path)}"
            )
        # The loader references the tensors without keeping them alive.
        self._weights = {name: weights[name] for name in names}
        use_inactive, check_full_update, user_managed = False, True, True
        self._loader.load_constants(self._weights, use_inactive, check_full_update, user_managed)

    def run(self, tiles: Tensor) -> Tensor:
        """uint8 tiles (N, 448, 448, 3) → features (N, 256, hidden), on the current stream."""
        features: Tensor = self._loader.run([tiles])[0]
        return features

    def close(self) -> None:
        """Free kernels and weights."""
        del self._loader
        self._weights.clear()


def rebuild(package: Path, target: str = "smXX") -> str:
    """Advice for error messages: the command that compiles the package again."""
    return (
        f"Compile it for this machine with `vlmc rebuild {package.parent.parent} --engine inductor "
        f"--target {target}`."
    )
