"""What an artifact's engines are and need, as `vlmc inspect` prints it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlmc.artifact.integrity import REPORTS
from vlmc.artifact.manifest import EngineRecord, Manifest
from vlmc.machine.packages import MIN_DRIVER

# A report is a few hundred bytes; nothing else in that folder is read for an engine.
_MAX_REPORT_BYTES = 1 << 16
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


def engine_json(folder: Path, manifest: Manifest, engine: EngineRecord) -> dict[str, Any]:
    """The manifest's entry, the file's size, and layers and products by precision where known."""
    entry = manifest.payload.get(engine.file)
    return asdict(engine) | {
        "bytes": None if entry is None else entry.size,
        "layers": engine_layers(folder, manifest, engine),
        "products": engine_products(folder, manifest, engine),
        "min_driver": min_driver(engine),
    }


def engine_rows(
    folder: Path, manifest: Manifest, engine: EngineRecord
) -> Iterator[tuple[str, str]]:
    """Lines below the one that names the engine, each a key and a text."""
    profiles = "; ".join(f"{p.min} to {p.max} tiles, fastest at {p.opt}" for p in engine.profiles)
    if profiles:
        yield "profiles", profiles
    entry = manifest.payload.get(engine.file)
    size = "file is missing" if entry is None else f"{entry.size:,} bytes"
    memory = engine.device_memory_bytes
    yield (
        "size",
        size if memory is None else f"{size}, and {memory:,} bytes of device memory to run",
    )
    made = ", ".join(f"{name} {version}" for name, version in engine.versions.items())
    driver = min_driver(engine)
    if made:
        yield "made by", made if driver is None else f"{made}; needs driver {driver} or newer"
    layers = engine_layers(folder, manifest, engine)
    if layers:
        yield (
            "layers",
            "; ".join(
                f"{kind} {_listed(counts)}"
                for kind, counts in sorted(layers.items(), key=lambda item: -sum(item[1].values()))
            ),
        )
    products = engine_products(folder, manifest, engine)
    if products:
        yield "products", f"{_listed(products)} in the engine, over all profiles"


def min_driver(engine: EngineRecord) -> int | None:
    """The oldest branch of NVIDIA's driver that runs the engine; None where that is not known."""
    return MIN_DRIVER.get(engine.versions.get("cuda", ""))


def engine_layers(
    folder: Path, manifest: Manifest, engine: EngineRecord
) -> dict[str, dict[str, int]] | None:
    """Kind of layer → precision → number of layers, as the build wrote them into the reports.

    None where the artifact has no report on this very file, or one that cannot be read: reports
    are not payload.
    """
    try:
        layers = _report(folder, manifest, engine)["layers"]
        return {str(kind): _counts(counts) for kind, counts in layers.items()}
    except _UNREADABLE:
        return None


def engine_products(
    folder: Path, manifest: Manifest, engine: EngineRecord
) -> dict[str, int] | None:
    """Precision → number of matrix products in the engine itself, of all its profiles together.

    None where the build did not know, and as for `engine_layers`.
    """
    try:
        return _counts(_report(folder, manifest, engine)["products"])
    except _UNREADABLE:
        return None


def _report(folder: Path, manifest: Manifest, engine: EngineRecord) -> Mapping[str, Any]:
    path = folder / REPORTS / f"vision-{engine.engine}-{engine.target}.json"
    with path.open("rb") as file:
        values: Mapping[str, Any] = json.loads(file.read(_MAX_REPORT_BYTES))
    if values["sha256"] != manifest.payload[engine.file].sha256:
        raise ValueError("the report is on another file")
    return values


def _counts(values: Mapping[str, Any]) -> dict[str, int]:
    return {str(precision): int(number) for precision, number in values.items()}


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {precision}" for precision, number in counts.items())
