"""The steps that make the artifact's vision folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from vlmc.artifact.manifest import CALIBRATED_PRECISIONS, ImageRules
from vlmc.artifact.vision_files import GRAPH, RANGES
from vlmc.builder.steps.context import BuildContext
from vlmc.builder.steps.engines import engine_step, engine_targets
from vlmc.builder.steps.keyed import TOWER, keyed
from vlmc.builder.steps.step import Step
from vlmc.builder.steps.step_key import tool_versions
from vlmc.checkpoint.source import Checkpoint
from vlmc.machine.support import MIN_FEATURE_COSINE, Precision

# Of a GPU beside the tower: one tile's activations, and the libraries.
_CALIBRATION_BYTES = 2 << 30


def vision_steps(context: BuildContext) -> list[Step]:
    """Weights, golden features, ranges, graph and engines of the tower."""
    resolved, precision = context.resolved, context.recipe.vision.precision
    dtype = resolved.graph_dtype
    source, tower = keyed(context.checkpoint, TOWER)
    inputs = context.weight_files("vision_model.", "mlp1.")
    needs: tuple[Step, ...] = ()
    if precision in CALIBRATED_PRECISIONS:
        needs = (_ranges_step(context, source, tower, inputs),)

    def weights(folder: Path) -> None:
        from vlmc.compile.vision import write_weights

        write_weights(source, folder)

    def graph(folder: Path, *ranges: Path) -> None:
        from vlmc.compile.vision import fp32_tower, write_graph
        from vlmc.models.vision.calibration_ranges import read_ranges

        calibrated = read_ranges(ranges[0] / RANGES) if ranges else None
        write_graph(fp32_tower(source), folder / GRAPH, precision, dtype, calibrated)

    def golden(folder: Path) -> None:
        from vlmc.compile.vision import write_golden

        write_golden(source, folder)

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
        parameters=tower | {"precision": precision, "dtype": dtype},
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


@dataclass(frozen=True, slots=True)
class _Ranges:
    """What the ranges' step acts on beside the tower: all of it is in the key."""

    precision: Precision
    dtype: str  # of the graph outside 8-bit layers, which the report names
    seed: int
    min_feature_cosine: float
    image: ImageRules | None  # None where no images are calibrated on


def _ranges_step(
    context: BuildContext,
    source: Checkpoint,
    tower: Mapping[str, object],
    weights: Mapping[str, str],
) -> Step:
    recipe, resolved = context.recipe, context.resolved
    precision = recipe.vision.precision
    used = context.samples if "vision" in recipe.calibrated_wings else None
    settings = _Ranges(
        precision,
        resolved.graph_dtype,
        recipe.calibration.seed,
        # It decides which layers stay in 16 bits; fp16 leaves none behind.
        resolved.min_feature_cosine
        if precision in ("int8", "fp8")
        else MIN_FEATURE_COSINE[precision],
        None if used is None else resolved.image_rules,
    )
    inputs, tools = dict(weights), ["torch", "numpy"]
    if used is not None:
        inputs["calibration samples"] = used.digest
        tools += ["pillow", "opencv-python-headless"]

    def work(folder: Path) -> None:
        from vlmc.compile.calibration.device import calibration_device
        from vlmc.compile.calibration.ranges import calibrate
        from vlmc.compile.calibration.report import write_report
        from vlmc.compile.calibration.tiles import CalibrationTiles
        from vlmc.compile.vision import fp32_tower
        from vlmc.models.vision.calibration_ranges import write_ranges

        tiles, image = None, settings.image
        if used is not None and image is not None:
            tiles = CalibrationTiles(
                used.images,
                image.tiles,
                resampler=image.resampler,
                exif=image.exif,
                high_bit_depth=image.high_bit_depth,
                seed=settings.seed,
            )
        # The 8-bit grids need the quantized tower and the one it is compared with.
        copies = 2 if settings.precision in ("int8", "fp8") else 1
        device = calibration_device(source, copies=copies, working_bytes=_CALIBRATION_BYTES)
        calibration = calibrate(
            fp32_tower(source, device),
            settings.precision,
            tiles,
            min_cosine=settings.min_feature_cosine,
            seed=settings.seed,
        )
        write_ranges(calibration.ranges, folder / RANGES)
        write_report(calibration, settings.precision, settings.dtype, used, folder)

    return Step(
        name="vision.ranges",
        version=1,
        inputs=inputs,
        parameters={**tower, **asdict(settings)},
        tools=tool_versions(*tools),
        work=work,
    )
