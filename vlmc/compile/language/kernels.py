"""Compile the kernels that run the language model on a GPU, before an artifact is loaded there."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmc.artifact.language_files import kernels_file
from vlmc.checkpoint.config import LanguageConfig
from vlmc.errors import BuildError
from vlmc.machine.aoti_environment import device_for
from vlmc.machine.child_process import module_command, module_environment
from vlmc.machine.triton_cache import CACHE_VARIABLE, pack_cache

_SHAPE = (
    "architecture",
    "hidden_size",
    "heads",
    "kv_heads",
    "head_dim",
    "intermediate_size",
    "norm_eps",
    "rope_theta",
    "max_positions",
)
# Triton's key of a launcher holds what `platform.architecture` says, which depends on whether the
# machine has the command `file`. Launchers are compiled under both keys, kernels once.
_LINKAGES = ("ELF", "")
# The first layer and the last one, which are run in different ways; kernels do not depend on the
# number of layers, nor on the vocabulary.
_SMALL: dict[str, Any] = {"layers": 2, "vocab_size": 128}


def kernel_settings(config: LanguageConfig, scheme: str, dtype: str) -> dict[str, object]:
    """What decides which kernels there are, as JSON values.

    4-bit products bring kernels of their own, which the serving machine compiles.
    """
    shape = {name: getattr(config, name) for name in _SHAPE}
    return {"shape": shape, "fp8": scheme == "fp8", "dtype": dtype}


def compile_kernels(settings: Mapping[str, object], folder: Path, *, target: str) -> None:
    """Run the kernels of a small model of that shape in a process of its own, and keep them.

    Args:
        settings: of `kernel_settings`.
        folder: gets `kernels-<target>.zip`.
        target: compute capability, such as `sm90`.

    Raises:
        HardwareError: no GPU of this machine is the target.
        BuildError: a kernel does not compile or run; holds the compiler's words.
    """
    device = device_for(target)
    with tempfile.TemporaryDirectory() as cache:
        for linkage in _LINKAGES:
            failed = run_apart(str(device), settings, cache, linkage)
            if failed:
                raise BuildError(
                    f"the language model's kernels cannot be compiled for {target}:\n{failed}"
                )
        pack_cache(Path(cache), folder / Path(kernels_file(target)).name, target)


def run_apart(device: str, settings: Mapping[str, object], cache: str, linkage: str) -> str:
    """Run the kernels in a new process, since Triton compiles nothing that is loaded already.

    `linkage` is what `platform.architecture` is to say there.

    Returns:
        The end of what it wrote to stderr if it failed, else nothing.
    """
    done = subprocess.run(
        module_command(__name__, device, json.dumps(settings), linkage),
        env=module_environment({CACHE_VARIABLE: cache}),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr[-4000:].strip() if done.returncode else ""


def _run_kernels(device: str, settings: Mapping[str, Any]) -> None:
    import torch

    from vlmc.models.language.kernel_warmup import WARMUP_PAGES, warm_up
    from vlmc.models.language.load import load_decoder
    from vlmc.models.language.packed_decoder import PackedDecoder
    from vlmc.models.language.paged_cache import PagedCache
    from vlmc.models.language.random_weights import FP8, random_tensors

    config = LanguageConfig(**settings["shape"], **_SMALL)
    dtype, place = getattr(torch, settings["dtype"]), torch.device(device)
    # Layers that a recipe keeps in 16 bits take the kernels of an unquantized model.
    for quantization in (None, FP8) if settings["fp8"] else (None,):
        tensors = random_tensors(config, quantization, dtype, place)
        decoder = load_decoder(
            config, tensors, dtype=dtype, device=place, quantization=quantization
        )
        cache = PagedCache(config, WARMUP_PAGES, dtype=dtype, device=place)
        warm_up(PackedDecoder(decoder, cache))


if __name__ == "__main__":
    bits = platform.architecture()[0]
    platform.architecture = lambda *_: (bits, sys.argv[3])
    _run_kernels(sys.argv[1], json.loads(sys.argv[2]))
