"""The Python package of each engine: its installed version, and how to install it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from vlmc.distribution import DISTRIBUTION, install_command


@dataclass(frozen=True, slots=True)
class EnginePackage:
    """A package: its import name, and the distributions that provide it."""

    module: str
    distributions: tuple[str, ...]
    extra: str | None = None  # of vlmc that brings it; None: vlmc itself requires it
    index: str | None = None  # the package index that the extra needs beside PyPI

    @property
    def install(self) -> str:
        """The command that installs it."""
        if self.extra is None:
            return f"pip install {self.distributions[0]} (a dependency of {DISTRIBUTION})"
        if self.index is None:
            return install_command(self.extra)
        return f"{install_command(self.extra)}; add --extra-index-url {self.index}"

    @property
    def version(self) -> str | None:
        """The installed version, or None. Does not import the package."""
        return next(iter(self._installed().values()), None)

    @property
    def cuda(self) -> str | None:
        """CUDA major version of the installed package, if its name contains it."""
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
    "onnxruntime": EnginePackage("onnxruntime", ("onnxruntime",)),
    "tensorrt": EnginePackage(
        "tensorrt",
        ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
        "tensorrt",
        "https://pypi.nvidia.com",
    ),
    "tensorrt-rtx": EnginePackage(
        "tensorrt_rtx",
        ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"),
        "tensorrt-rtx",
    ),
    "inductor": EnginePackage("torch", ("torch",)),
}
"""Engine name in recipes and manifests → package."""

# https://docs.nvidia.com/cuda/cuda-toolkit-release-notes, minor version compatibility.
MIN_DRIVER = {"11": 450, "12": 525, "13": 580}
"""CUDA major version → oldest branch of the Linux driver that supports it."""
