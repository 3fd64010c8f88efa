"""A machine that compiles inductor's packages, told where there is no GPU."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from vlmc.machine.aoti_environment import AotiEnvironment
from vlmc.models.vision.fused_tower import FusedTower

NEEDS = AotiEnvironment(target="sm90", torch="2.11.0+cu130", cuda="13.0", driver="580.95.05")


def write_cache(cache: Path) -> None:
    """Triton's cache folder with two entries, one of them a group of files."""
    (cache / "KEY1").mkdir()
    (cache / "KEY1" / "launcher.so").write_bytes(b"library")
    (cache / "KEY2").mkdir()
    (cache / "KEY2" / "kernel.cubin").write_bytes(b"code")
    group = {"child_paths": {"kernel.cubin": str(cache / "KEY2" / "kernel.cubin")}}
    (cache / "KEY2" / "__grp__kernel.json").write_text(json.dumps(group))


def compiles_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this be such a machine: all is real but for its GPU and the compiler, which in place of
    kernels writes what it was given, so that nothing of it runs."""

    def compile_tower(tower: FusedTower, path: Path, opt_tiles: int) -> None:
        linears = sorted({str(tensor.dtype) for tensor in tower.state_dict().values()})
        path.write_text(f"{linears} for {opt_tiles} tiles")

    monkeypatch.setattr("vlmc.compile.engines.inductor.compile_tower", compile_tower)
    monkeypatch.setattr("vlmc.compile.engines.inductor.memory_of_runs", lambda *_: 7)

    def run_apart(device: str, settings: Mapping[str, object], cache: str, linkage: str) -> str:
        if not linkage:
            write_cache(Path(cache))
        return ""

    monkeypatch.setattr("vlmc.compile.language.kernels.run_apart", run_apart)
    monkeypatch.setattr("vlmc.compile.engines.cpp_compiler.try_compiler", lambda device: None)
    for user in (
        "vlmc.machine.aoti_environment",
        "vlmc.compile.engines.inductor",
        "vlmc.compile.language.kernels",
        "vlmc.builder.steps.language_kernels",
    ):
        monkeypatch.setattr(f"{user}.device_for", lambda target: torch.device("cpu"))
    monkeypatch.setattr("vlmc.compile.engines.inductor.aoti_environment_of", lambda device: NEEDS)
