"""The language model's compiled kernels on a GPU: from the artifact, or from this machine."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import torch

from vlmc.artifact.integrity import Artifact
from vlmc.artifact.language_files import kernels_file
from vlmc.errors import HardwareError
from vlmc.machine.gpu import gpu_of
from vlmc.machine.triton_cache import install, unfit
from vlmc.models.language.kernel_warmup import warm_up
from vlmc.models.language.packed_decoder import PackedDecoder
from vlmc.progress.channel import report
from vlmc.progress.events import Note

# Kernels that are found take less.
_COMPILED_SECONDS = 5.0


def install_kernels(artifact: Artifact, device: torch.device) -> None:
    """Let Triton find the kernels that the artifact holds for this GPU.

    Raises:
        IntegrityError: the file does not hold kernels.
    """
    if device.type != "cuda":
        return
    target = gpu_of(device.index or 0).target
    name = kernels_file(target)
    if name not in artifact.manifest.payload:
        return
    path = artifact.path(name)
    reason = unfit(path, target)
    if reason is None:
        from triton import knobs

        cache = Path(knobs.cache.dir)
        try:
            install(path, cache)
        except OSError as error:
            report(Note(f"the language model's kernels are compiled here: {cache}: {error}"))
    else:
        report(Note(f"the language model's kernels are compiled here: {name} is for {reason}"))


def run_all_kernels(packed: PackedDecoder) -> None:
    """Compile what no cache holds before the first request, and say so where it takes long.

    Raises:
        HardwareError: a kernel has to be compiled, and there is no C compiler.
    """
    begin = time.perf_counter()
    try:
        warm_up(packed)
    except (RuntimeError, FileNotFoundError) as error:
        # The second is what Triton makes of a variable CC that names no program.
        if isinstance(error, RuntimeError) and "C compiler" not in str(error):
            raise
        raise HardwareError(
            "the language model's kernels have to be compiled, and there is no C compiler. Install "
            "one (such as gcc), or build the artifact with the engine inductor for this GPU and "
            "the same packages: it then holds the kernels."
        ) from error
    seconds = time.perf_counter() - begin
    if seconds > _COMPILED_SECONDS:
        report(Note(f"compiled the language model's kernels in {seconds:.0f} s, kept for later"))


def kernels_here(artifact: Artifact, device: torch.device) -> str:
    """What `vlmc doctor` says of the kernels: where a load on the device finds them."""
    if device.type != "cuda":
        return "not needed on the CPU"
    target = gpu_of(device.index or 0).target
    name = kernels_file(target)
    compiler = shutil.which(os.environ.get("CC", "gcc")) or shutil.which("clang")
    compiled = f"compiled at the first load with {compiler}" if compiler else "no C compiler"
    if name not in artifact.manifest.payload:
        return f"none for {target} in the artifact; {compiled}"
    reason = unfit(artifact.path(name), target)
    return f"{name}, compiled ahead" if reason is None else f"{name} is for {reason}; {compiled}"
