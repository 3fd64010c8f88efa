"""The step that compiles the language model's kernels for a GPU, in a build and in a rebuild."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vlmc.builder.steps.step import Step
from vlmc.checkpoint.config import LanguageConfig
from vlmc.compile.language.kernels import compile_kernels, kernel_settings
from vlmc.machine.aoti_environment import device_for, torch_cuda
from vlmc.machine.packages import PACKAGES
from vlmc.machine.triton_cache import environment

_SOURCES = ("models/language/*_kernels.py", "models/linears/*_kernels.py")


def kernels_step(target: str, config: LanguageConfig, scheme: str, dtype: str) -> Step:
    """The kernels of one target, such as sm90, where an engine of the tower is compiled too.

    Args:
        target: compute capability.
        config: of the language model.
        scheme: none, fp8 or w4a16.
        dtype: what the language model computes in, as torch calls it.
    """
    settings = kernel_settings(config, scheme, dtype)

    def check() -> None:
        device_for(target)

    def work(folder: Path) -> None:
        compile_kernels(settings, folder, target=target)

    here = environment(target)
    return Step(
        name=f"language.kernels-{target}",
        version=1,
        inputs={"kernels": _sources_digest()},
        parameters={**settings, "target": target},
        tools={
            "torch": PACKAGES["inductor"].version or "not installed",
            "cuda": torch_cuda(),
            "triton": here["triton"],
            "python": here["python"],
        },
        work=work,
        reproducible=False,
        check=check,
    )


def _sources_digest() -> str:
    """Whoever edits a kernel need not remember the step's version."""
    digest = hashlib.sha256()
    folder = Path(__file__).parents[2]
    for pattern in _SOURCES:
        for path in sorted(folder.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()
