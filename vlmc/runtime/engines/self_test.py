"""The golden tiles through an engine, once for each machine, engine and set of versions."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
import zipfile
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlmc.artifact.integrity import Artifact
from vlmc.artifact.manifest import EngineRecord
from vlmc.artifact.vision_files import GOLDEN, GOLDEN_TILES, payload_name
from vlmc.errors import HardwareError, IntegrityError
from vlmc.image.tiles import TILE_SIZE, TOKENS_PER_TILE
from vlmc.machine.gpu import driver_version, gpu_of
from vlmc.machine.packages import PACKAGES
from vlmc.machine.user_cache import read_private, user_cache, write_private
from vlmc.models.cosine import tile_cosines
from vlmc.runtime.engines.engine import VisionEngine
from vlmc.version import __version__

_NPY_HEADER_BYTES = 1024


@dataclass(frozen=True, slots=True)
class SelfTest:
    """How near the engine came to the fp32 features, on the worst golden tile."""

    worst_cosine: float
    tile: int
    threshold: float
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether the engine may be used."""
        return self.worst_cosine >= self.threshold


def check_golden(artifact: Artifact, entry: EngineRecord, engine: VisionEngine) -> SelfTest:
    """The self-test's result, from the user's cache where it passed there before.

    Raises:
        HardwareError: a tile's features are not those of the fp32 tower.
    """
    known = recorded(artifact, entry, engine.device)
    if known is not None and known.passed:
        return known
    result = run_self_test(artifact, entry, engine)
    _record(artifact, entry, engine.device, result)
    if not result.passed:
        raise HardwareError(
            f"{artifact.folder}: the self-test of {entry.engine} for {entry.target} failed on "
            f"{machine_name(engine.device)}: golden tile {result.tile} has cosine "
            f"{result.worst_cosine:.6f} to the fp32 features, and {result.threshold} is needed. "
            "Its answers would be wrong here. Update the driver, or build the engine for this "
            f"machine with `vlmc rebuild {artifact.folder} --engine {entry.engine} --target smXX`."
        )
    return result


def run_self_test(artifact: Artifact, entry: EngineRecord, engine: VisionEngine) -> SelfTest:
    """Run the golden tiles through the engine.

    Raises:
        IntegrityError: golden tiles or engine are not as a build leaves them.
        HardwareError: the engine fails.
    """
    tiles, expected = read_golden(artifact)
    start = time.perf_counter()
    with torch.inference_mode():
        # A GPU takes them as a batch, as it will take others; the CPU's memory is everybody's.
        size = 1 if engine.device.type == "cpu" else len(tiles)
        parts = [engine.infer(part.to(engine.device)).cpu() for part in torch.split(tiles, size)]
        features = torch.cat(parts)
    seconds = time.perf_counter() - start
    if features.shape != expected.shape:
        raise IntegrityError(
            f"the engine {entry.file} makes features of {list(features.shape[1:])} a tile where "
            f"the language model takes {list(expected.shape[1:])}: it is another model's. Build "
            "the artifact again."
        )
    cosines = tile_cosines(features, expected)
    tile = int(cosines.argmin())
    return SelfTest(float(cosines[tile]), tile, entry.min_feature_cosine, round(seconds, 3))


def read_golden(artifact: Artifact) -> tuple[Tensor, Tensor]:
    """uint8 tiles (8, 448, 448, 3) and their fp32 features (8, 256, hidden).

    Raises:
        IntegrityError: the file holds something else; no more than the two is read.
    """
    path = artifact.path(payload_name(GOLDEN))
    shapes = {
        "tiles": (GOLDEN_TILES, TILE_SIZE, TILE_SIZE, 3),
        "features": (GOLDEN_TILES, TOKENS_PER_TILE, artifact.manifest.hidden_size),
    }
    dtypes: dict[str, np.dtype[Any]] = {"tiles": np.dtype("u1"), "features": np.dtype("f4")}
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name, shape in shapes.items():
                size = math.prod(shape) * dtypes[name].itemsize
                if archive.getinfo(f"{name}.npy").file_size > size + _NPY_HEADER_BYTES:
                    raise ValueError(f"{name} is too large")
        with np.load(path, allow_pickle=False) as golden:
            for name, shape in shapes.items():
                array = golden[name]
                if (array.shape, array.dtype) != (shape, dtypes[name]):
                    raise ValueError(f"{name} is {array.dtype} {array.shape}")
                arrays[name] = torch.from_numpy(array)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise IntegrityError(
            f"{path} does not hold golden tiles and features ({error}); build the artifact again"
        ) from error
    return arrays["tiles"], arrays["features"]


def recorded(artifact: Artifact, entry: EngineRecord, device: torch.device) -> SelfTest | None:
    """The last result of this engine on this machine, if the user's cache has one."""
    try:
        values = json.loads(read_private(_record_path(artifact, entry, device)) or b"")
        return SelfTest(
            float(values["worst_cosine"]),
            int(values["tile"]),
            entry.min_feature_cosine,
            float(values["seconds"]),
        )
    except (ValueError, KeyError, TypeError):
        return None


def machine_name(device: torch.device) -> str:
    """The GPU with its driver, or the CPU's model."""
    if device.type == "cuda":
        return f"{gpu_of(device.index or 0).name}, driver {driver_version() or 'unknown'}"
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _record(
    artifact: Artifact, entry: EngineRecord, device: torch.device, result: SelfTest
) -> None:
    """Keep the result for the next load; a cache that cannot be written costs only time."""
    path = _record_path(artifact, entry, device)
    values = _key_parts(artifact, entry, device) | asdict(result)
    write_private(path, (json.dumps(values, indent=1) + "\n").encode())


def _record_path(artifact: Artifact, entry: EngineRecord, device: torch.device) -> Path:
    parts = _key_parts(artifact, entry, device)
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return user_cache("self-test") / f"{key}.json"


def _key_parts(artifact: Artifact, entry: EngineRecord, device: torch.device) -> dict[str, Any]:
    """All that decides what an engine computes here."""
    payload = artifact.manifest.payload
    return {
        "identity": artifact.identity,
        "engine": entry.engine,
        "target": entry.target,
        "file": payload[entry.file].sha256,
        "machine": machine_name(device),
        "versions": {
            "vlmc": __version__,
            "torch": torch.__version__,
            entry.engine: PACKAGES[entry.engine].version,
        },
    }
