"""The steps that make the artifact's vision folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from vlmc.artifact.manifest import CALIBRATED_PRECISIONS
from vlmc.artifact.vision_files import GRAPH, RANGES
from vlmc.builder.steps.context import BuildContext
from vlmc.builder.steps.engines import engine_step, engine_targets
from vlmc.builder.steps.step import Step
from vlmc.builder.steps.step_key import tool_versions

# Of a GPU beside the tower: one tile's activations, and the libraries.
_CALIBRATION_BYTES = 2 << 30


def vision_steps(context: BuildContext) -> list[Step]:
    """Weights, golden features, ranges, graph and engines of the tower."""
    # Not config.json as a whole: most of what it says does not touch the tower.
    resolved, checkpoint = context.resolved, context.checkpoint
    config, precision = checkpoint.config, context.recipe.vision.precision
    tower: dict[str, object] = {
        "vision": asdict(config.vision),
        "select_layer": config.select_layer,
        "pixel_shuffle": config.pixel_shuffle,
        "hidden_size": config.language.hidden_size,
    }
    inputs = context.weight_files("vision_model.", "mlp1.")
    needs: tuple[Step, ...] = ()
    if precision in CALIBRATED_PRECISIONS:
        needs = (_ranges_step(context, tower, inputs),)

    def weights(folder: Path) -> None:
        from vlmc.compile.vision import write_weights

        write_weights(checkpoint, folder)

    def graph(folder: Path, *ranges: Path) -> None:
        from vlmc.compile.vision import fp32_tower, write_graph
        from vlmc.models.vision.calibration_ranges import read_ranges

        measured = read_ranges(ranges[0] / RANGES) if ranges else None
        tower = fp32_tower(checkpoint)
        write_graph(tower, folder / GRAPH, precision, resolved.graph_dtype, measured)

    def golden(folder: Path) -> None:
        from vlmc.compile.vision import write_golden

        write_golden(checkpoint, folder)

    weights_step = Step(
        name="vision.weights",
        version=1,
        inputs=inputs,
        parameters=tower,
        tools=tool_versions("torch", "safetensors"),
        work=weights,
    )
    graph_step = Step(
        name="vision.graph",
        version=3,
        inputs=inputs,
        parameters=tower | {"precision": precision, "dtype": resolved.graph_dtype},
        tools=tool_versions("torch", "onnx", "onnx-ir", "onnxscript"),
        work=graph,
        needs=needs,
    )
    return [
        weights_step,
        Step(
            name="vision.golden",
            version=1,
            inputs=inputs,
            parameters=tower,
            tools=tool_versions("torch", "numpy"),
            work=golden,
        ),
        *needs,
        graph_step,
        *(
            engine_step(
                engine_target,
                resolved.profiles,
                precision,
                needs=(weights_step, *needs)
                if engine_target.engine == "inductor"
                else (graph_step,),
            )
            for engine_target in engine_targets(context.recipe.vision.engines)
            if engine_target.engine != "onnxruntime"
        ),
    ]


def _ranges_step(
    context: BuildContext, tower: Mapping[str, object], weights: Mapping[str, str]
) -> Step:
    recipe, resolved = context.recipe, context.resolved
    precision = recipe.vision.precision
    seed = recipe.calibration.seed
    inputs, parameters = dict(weights), {**tower, "precision": precision, "seed": seed}
    tools = ["torch", "numpy"]
    used = context.samples if "vision" in recipe.calibrated_wings else None
    if used is not None:
        inputs["calibration samples"] = used.digest
        parameters["tiles"] = str(resolved.tiles)
        parameters["resampler"], parameters["exif"] = recipe.image.resampler, recipe.image.exif
        tools += ["pillow", "opencv-python-headless"]
    if precision in ("int8", "fp8"):
        # It decides which layers stay in 16 bits; fp16 leaves none behind.
        parameters["min_feature_cosine"] = resolved.min_feature_cosine

    def work(folder: Path) -> None:
        from vlmc.compile.calibration.device import calibration_device
        from vlmc.compile.calibration.ranges import measure_ranges
        from vlmc.compile.calibration.report import write_report
        from vlmc.compile.calibration.tiles import CalibrationTiles
        from vlmc.compile.vision import fp32_tower
        from vlmc.models.vision.calibration_ranges import write_ranges

        tiles = None
        if used is not None:
            tiles = CalibrationTiles(
                used.images,
                resolved.tiles,
                resampler=recipe.image.resampler,
                exif=recipe.image.exif,
                seed=seed,
            )
        # The 8-bit grids need the quantized tower and the one it is compared with.
        copies = 2 if precision in ("int8", "fp8") else 1
        device = calibration_device(
            context.checkpoint, copies=copies, working_bytes=_CALIBRATION_BYTES
        )
        measured = measure_ranges(
            fp32_tower(context.checkpoint, device),
            precision,
            tiles,
            min_cosine=resolved.min_feature_cosine,
            seed=seed,
        )
        write_ranges(measured.ranges, folder / RANGES)
        write_report(measured, precision, resolved.graph_dtype, used, folder)

    return Step(
        name="vision.ranges",
        version=1,
        inputs=inputs,
        parameters=parameters,
        tools=tool_versions(*tools),
        work=work,
    )
