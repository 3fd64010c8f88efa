"""Compare an artifact's graph with the fp32 graph of its tower, tensor by tensor."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch

from vlmc.artifact.bundled_graph import bundled_graph
from vlmc.artifact.integrity import Artifact, open_artifact
from vlmc.artifact.vision_files import GRAPH, RANGES, TOWER, payload_name
from vlmc.checkpoint.huggingface import tower_tensors
from vlmc.checkpoint.source import open_checkpoint
from vlmc.errors import HardwareError, UsageError
from vlmc.machine.support import EngineName, Precision
from vlmc.models.cosine import cosine
from vlmc.models.vision.calibration_ranges import Ranges, read_ranges
from vlmc.models.vision.load import load_tower
from vlmc.models.vision.tower import VisionTower
from vlmc.models.vision.tower_file import read_tower
from vlmc.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from vlmc.runtime.engines.self_test import read_golden
from vlmc.verify.layers.compare import compare_graphs
from vlmc.verify.layers.result import LayerComparison
from vlmc.verify.layers.runners import COMPARED, skip_reason

WriteGraph = Callable[[VisionTower, Path, Ranges | None], None]
"""Writes the fp32 graph of a tower, as `vlmc.compile.vision.write_fp32_graph`."""

_SAME_TOWER = 0.99999
_CPU = torch.device("cpu")


def verify_layers(
    folder: Path,
    write_fp32_graph: WriteGraph,
    *,
    source: Path | None,
    engine: str | None,
    tiles: int,
) -> LayerComparison:
    """Compare every tensor of the artifact's graph with the fp32 one.

    Args:
        folder: the artifact.
        write_fp32_graph: writes the fp32 graph.
        source: checkpoint to take the fp32 tower from; without, the artifact's own.
        engine: run the graph on this engine only; without, on each that can run here.
        tiles: number of golden tiles.

    Raises:
        UsageError: the engine has no inner tensors, or `source` is another tower.
        VlmcError: a file is damaged, or an engine cannot run or fails.
    """
    artifact = open_artifact(folder)
    record = bundled_graph(artifact.manifest) or artifact.manifest.engines[0]
    precision = cast(Precision, record.precision)  # the manifest's reader has checked it
    engines, skipped = _engines(engine, precision)
    images, features = read_golden(artifact)
    images = images[:tiles]
    with tempfile.TemporaryDirectory(prefix="vlmc-fp32-") as name:
        graph = Path(name) / "fp32.onnx"
        _write_reference(artifact, source, graph, write_fp32_graph)
        reference = OnnxRuntimeEngine(graph, "fp32")
        found = reference.infer(images[:1])
        reference.close()
        if found.shape != features[:1].shape or cosine(found, features[:1]) < _SAME_TOWER:
            raise UsageError(
                f"the tower of {source or artifact.folder} does not compute the golden features of "
                f"{artifact.folder}, so they are not of the same model. Name the checkpoint that "
                "was built with --source, or build the artifact again."
            )
        errors, match = compare_graphs(
            graph,
            artifact.path(payload_name(GRAPH)),
            images.numpy(),
            precision=precision,
            engines=engines,
            min_cosine=record.min_feature_cosine,
        )
    return LayerComparison(
        artifact=artifact,
        record=record,
        reference=str(source or payload_name(TOWER)),
        tiles=len(images),
        errors=errors,
        skipped=skipped,
        unmatched=match.unmatched,
    )


def _engines(named: str | None, precision: Precision) -> tuple[list[EngineName], dict[str, str]]:
    """The engines to compare on, and why others are skipped."""
    if named is not None and named not in COMPARED:
        raise UsageError(
            f"--layers cannot compare {named}: its inner tensors cannot be read. Choose "
            f"{', '.join(COMPARED)}, or leave --layers out to compare its features."
        )
    engines: list[EngineName] = []
    skipped: dict[str, str] = {}
    for engine in COMPARED:
        if named not in (None, engine):
            continue
        reason = skip_reason(engine, precision)
        if reason is None and len(engines) == 2:
            reason = f"compared one by one; add --engine {engine}"
        if reason is None:
            engines.append(engine)
        elif named is None:
            skipped[engine] = reason
        else:
            raise HardwareError(f"--engine {engine} cannot run here: {reason}")
    return engines, skipped


def _write_reference(
    artifact: Artifact, source: Path | None, path: Path, write_fp32_graph: WriteGraph
) -> None:
    """Write the fp32 graph; the tower is freed when it returns."""
    if source is None:
        weights = artifact.path(payload_name(TOWER))
        tower = read_tower(weights, dtype=torch.float32, device=_CPU)
    else:
        with open_checkpoint(source) as checkpoint:
            tensors = tower_tensors(checkpoint.weights, checkpoint.config)
            tower = load_tower(checkpoint.config, tensors, dtype=torch.float32, device=_CPU)
    stored = payload_name(RANGES)
    ranges = read_ranges(artifact.path(stored)) if stored in artifact.manifest.payload else None
    try:
        write_fp32_graph(tower, path, ranges)
    except (KeyError, RuntimeError) as error:
        raise UsageError(
            f"the calibration ranges of {artifact.folder} do not fit the tower of "
            f"{source or artifact.folder} ({error}). Name the checkpoint that was built with "
            "--source, or build the artifact again."
        ) from error
