"""The Python package behind each engine: its version here, and how to get it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version


@dataclass(frozen=True, slots=True)
class EnginePackage:
    """A package by the name it is imported by, and those it may be installed under."""

    module: str
    distributions: tuple[str, ...]
    install: str  # what to do where it is missing

    @property
    def version(self) -> str | None:
        """As installed here; None where it is not. Imports nothing."""
        return next(iter(self._installed().values()), None)

    @property
    def cuda(self) -> str | None:
        """The major version of CUDA that the installed package is for, if its name says so."""
        for name in self._installed():
            found = re.search(r"-cu(\d+)$", name)
            if found is not None:
                return found[1]
        return None

    def _installed(self) -> dict[str, str]:
        versions = {}
        for name in self.distributions:
            try:
                versions[name] = version(name)
            except PackageNotFoundError:
                continue
        return versions


PACKAGES: dict[str, EnginePackage] = {
    "onnxruntime": EnginePackage("onnxruntime", ("onnxruntime",), "pip install vlmc"),
    "tensorrt": EnginePackage(
        "tensorrt",
        ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
        "pip install 'vlmc[tensorrt]', whose libraries NVIDIA's own index holds: add "
        "--extra-index-url https://pypi.nvidia.com",
    ),
    "tensorrt-rtx": EnginePackage(
        "tensorrt_rtx",
        ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"),
        "pip install 'vlmc[tensorrt-rtx]'",
    ),
    "inductor": EnginePackage("torch", ("torch",), "pip install vlmc"),
}
"""Engine, as recipes and manifests name it → its package."""

# https://docs.nvidia.com/cuda/cuda-toolkit-release-notes, minor version compatibility.
MIN_DRIVER = {"11": 450, "12": 525, "13": 580}
"""Major version of CUDA → the oldest branch of NVIDIA's Linux driver that runs it."""
