"""The steps that make the artifact's vision folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from vlmc.build.engine_steps import engine_step, wanted_engines
from vlmc.build.ingredients import tool_versions, weight_files
from vlmc.build.resolve import Resolved
from vlmc.build.step import Step
from vlmc.checkpoint.source import Checkpoint


def vision_steps(
    resolved: Resolved, checkpoint: Checkpoint, digests: Mapping[str, str]
) -> list[Step]:
    """Weights, golden features, graph and engines of the tower."""
    # Not config.json as a whole: most of what it says does not touch the tower.
    config = checkpoint.config
    tower: dict[str, object] = {
        "vision": asdict(config.vision),
        "select_layer": config.select_layer,
        "pixel_shuffle": config.pixel_shuffle,
        "hidden_size": config.language.hidden_size,
    }
    precision: dict[str, object] = {"precision": resolved.recipe.vision.precision}
    inputs = weight_files(checkpoint, ("vision_model.", "mlp1."), digests)

    def weights(folder: Path) -> None:

        from vlmc.compile.vision import write_weights

        write_weights(checkpoint, folder)

    def graph(folder: Path) -> None:
        from vlmc.compile.vision import write_graph

        write_graph(checkpoint, folder)

    def golden(folder: Path) -> None:
        from vlmc.compile.vision import write_golden

        write_golden(checkpoint, folder)

    graph_step = Step(
        name="vision.graph",
        version=1,
        inputs=inputs,
        parameters=tower | precision,
        tools=tool_versions("torch", "onnx", "onnx-ir", "onnxscript"),
        work=graph,
    )
    return [
        Step(
            name="vision.weights",
            version=1,
            inputs=inputs,
            parameters=tower,
            tools=tool_versions("torch", "safetensors"),
            work=weights,
        ),
        Step(
            name="vision.golden",
            version=1,
            inputs=inputs,
            parameters=tower,
            tools=tool_versions("torch", "numpy"),
            work=golden,
        ),
        graph_step,
        *(
            engine_step(wanted, resolved.profiles, needs=(graph_step,))
            for wanted in wanted_engines(resolved.recipe.vision.engines)
            if wanted.engine != "onnxruntime"
        ),
    ]
