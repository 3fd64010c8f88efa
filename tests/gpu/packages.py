"""What tests of AOTInductor packages share."""

from __future__ import annotations

import torch

from tests.models.vision.fused import (
    clips_of,
    some_tiles,
)
from vlmc.artifact.manifest import EngineRecord, Profile
from vlmc.models.vision.tower_precision import TowerPrecision

CUDA = torch.device("cuda", 0)
PROFILES = (Profile(1, 1, 3), Profile(4, 5, 7))
LEAST = {"fp16": 0.9999, "bf16": 0.999, "fp8": 0.995}


def plan_of(precision: str, tower: torch.nn.Module) -> TowerPrecision:
    """As calibration on three tiles gives it."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    clips = clips_of(tower, some_tiles(3)) if precision == "fp8" else {}  # type: ignore[arg-type]
    return TowerPrecision(dtype, clips)


def entry_of(precision: str) -> EngineRecord:
    """What a manifest says of a package compiled here."""
    from vlmc.machine.aoti_environment import aoti_environment_of

    needs = aoti_environment_of(CUDA)
    return EngineRecord(
        engine="inductor",
        target=needs.target,
        precision=precision,
        file=f"vision/inductor-{needs.target}.pt2",
        profiles=PROFILES,
        versions=needs.versions(),
        device_memory_bytes=None,
        min_feature_cosine=LEAST[precision],
    )
