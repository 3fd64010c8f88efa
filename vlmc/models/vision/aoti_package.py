"""A package of AOTInductor: kernels on disk, weights given when it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vlmc.errors import HardwareError


class AotiPackage:
    """Loaded kernels and the weights that they point to. One thread at a time runs it."""

    def __init__(self, path: Path, weights: Mapping[str, Tensor], device: torch.device) -> None:
        """Load `path`; `weights` are on `device`, under the names that were exported.

        torch's own `aoti_load_package` would call the C++ compiler, to learn the CPU's vector
        instructions; the loader beneath it compiles nothing.

        Raises:
            HardwareError: torch refuses the file, or it asks for other weights.
        """
        index = -1 if device.type == "cpu" else device.index or 0
        # Without locks and events between runs, which a CUDA graph cannot hold.
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
                f"{path} asks for {len(missing)} weights that the tower does not have, first "
                f"{missing[0]}: it was compiled for another tower or precision. {rebuild(path)}"
            )
        # The loader points to them and does not keep them alive.
        self._weights = {name: weights[name] for name in names}
        use_inactive, check_full_update, user_managed = False, True, True
        self._loader.load_constants(self._weights, use_inactive, check_full_update, user_managed)

    def run(self, tiles: Tensor) -> Tensor:
        """The package's one output for its one input, on the current stream."""
        features: Tensor = self._loader.run([tiles])[0]
        return features

    def close(self) -> None:
        """Free kernels and weights."""
        del self._loader
        self._weights.clear()


def rebuild(package: Path, target: str = "smXX") -> str:
    """What to do where a package of an artifact cannot be used."""
    return (
        f"Compile it for this machine with `vlmc rebuild {package.parent.parent} --engine inductor "
        f"--target {target}`."
    )
