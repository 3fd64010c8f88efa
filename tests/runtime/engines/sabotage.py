"""Artifacts whose engine does not answer as it should."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import numpy_helper

from tests.artifacts import copy_with
from vlmc.artifact.manifest import read_manifest
from vlmc.artifact.write import seal


def sabotaged(artifact: Path, folder: Path) -> Path:
    """A sealed copy whose graph answers with another scale in its last layer's first rows."""
    copy_with(artifact, folder)
    path = folder / "vision" / "model.onnx"
    model = onnx.load(path)
    weights = [i for i in model.graph.initializer if len(i.dims) == 2]
    values = numpy_helper.to_array(weights[-1]).copy()
    values[: len(values) // 2] *= 1.5
    weights[-1].CopyFrom(numpy_helper.from_array(values, weights[-1].name))
    onnx.save(model, path)
    seal(folder, read_manifest(folder))
    return folder
