"""Artifacts of the miniatures exported for other engines, once a session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.artifacts import build_from
from vlmc import open_artifact
from vlmc.export.checkpoint import export_checkpoint
from vlmc.export.limits import Engine

# Builds beside those that all tests share.
VARIANTS: dict[str, tuple[str, ...]] = {
    "bf16": ("model.dtype=bf16",),
    "w4a16": (
        "model.dtype=fp32",
        "language.scheme=w4a16",
        "language.method=rtn",
        "language.group_size=32",
        "language.keep=[model.layers.0.mlp.down_proj]",
    ),
    "fp8": ("model.dtype=fp32", "language.scheme=fp8"),
}


@dataclass(frozen=True, slots=True)
class Exported:
    """An artifact and what was made of it."""

    artifact: Path
    folder: Path
    notes: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def built(
    artifacts: Callable[[str], Path],
    miniatures: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, str], Path]:
    """`built(name, variant)` is the artifact of a miniature; without a variant the shared one."""
    made: dict[tuple[str, str], Path] = {}

    def folder(name: str, variant: str = "") -> Path:
        if not variant:
            return artifacts(name)
        if (name, variant) not in made:
            output = tmp_path_factory.mktemp(f"{name}-{variant}") / "artifact"
            made[name, variant] = build_from(miniatures(name), output, VARIANTS[variant])
        return made[name, variant]

    return folder


@pytest.fixture(scope="session")
def exported(
    built: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Exported]:
    """`exported(name, engine, variant)`; read only."""
    made: dict[tuple[str, Engine, str], Exported] = {}

    def export(name: str, engine: Engine = "hf", variant: str = "") -> Exported:
        key = (name, engine, variant)
        if key not in made:
            artifact = built(name, variant)
            folder = tmp_path_factory.mktemp("exported") / "-".join(key)
            notes = export_checkpoint(open_artifact(artifact), engine, folder)
            made[key] = Exported(artifact, folder, notes)
        return made[key]

    return export
