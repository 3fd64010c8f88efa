"""The graph that an artifact holds beside engines for GPUs."""

from __future__ import annotations

from vlmc.artifact.manifest import EngineRecord, Manifest
from vlmc.artifact.vision_files import GRAPH, payload_name


def bundled_graph(manifest: Manifest) -> EngineRecord | None:
    """The artifact's graph as an engine for the CPU, if it is not one already."""
    file = payload_name(GRAPH)
    listed = any(engine.target == "cpu" for engine in manifest.engines)
    if listed or not manifest.engines or file not in manifest.payload:
        return None
    first = manifest.engines[0]
    return EngineRecord(
        engine="onnxruntime",
        target="cpu",
        precision=first.precision,
        file=file,
        profiles=first.profiles,
        versions={},
        device_memory_bytes=None,
        min_feature_cosine=first.min_feature_cosine,
    )
