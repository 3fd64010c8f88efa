"""Build TensorRT and TensorRT-RTX engines: one plan for a card, with every profile in it.

TensorRT-RTX builds for the cards of another machine, with or without a GPU here. Full TensorRT
builds for the GPU that it runs on, so a build for another is refused. Precision comes from the
graph alone: its types and its quantize and dequantize nodes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmc.artifact.manifest import Profile
from vlmc.compile.engines.layer_precisions import LAYERS_TOLD, layers_by_precision, planned_products
from vlmc.compile.engines.tensorrt_package import Messages, import_tensorrt, message_collector
from vlmc.errors import BuildError, HardwareError
from vlmc.files.hashing import file_sha256
from vlmc.files.strict_json import write_json
from vlmc.image.tiles import TILE_SIZE
from vlmc.machine.gpu import gpus
from vlmc.machine.packages import PACKAGES

_INPUT = "tiles"
# What TensorRT logs of each profile, and nowhere else tells where no GPU can open the plan.
_ACTIVATIONS = re.compile(r"Total Activation Memory: (\d+) bytes")
_WEIGHTS = re.compile(r"Total Weights Memory: (\d+) bytes")

LARGEST_CARD_GIB = {
    "sm75": 48,
    "sm80": 80,
    "sm86": 48,
    "sm89": 48,
    "sm90": 141,
    "sm100": 192,
    "sm120": 96,
    "sm121": 128,
}
"""Target → memory of the largest card that has it."""


def build_plan(
    graph: Path, folder: Path, *, engine: str, target: str, profiles: Sequence[Profile]
) -> None:
    """Build `graph` for `target` into the folder as `tensorrt-rtx-sm89.engine`, say, and write
    what is known of it below `report/`.

    Raises:
        UsageError: the engine's package is not installed.
        HardwareError: full TensorRT, and this machine's GPU is not the target.
        BuildError: TensorRT refuses the graph, the target or a profile, or cannot build it.
    """
    check_machine(engine, target)
    tensorrt = import_tensorrt(engine)
    said: Messages = []
    logger = message_collector(tensorrt, said)
    what = f"{engine} {tensorrt.__version__}"
    builder = tensorrt.Builder(logger)
    network = _parse(tensorrt, builder, logger, graph, what)
    config = builder.create_builder_config()
    # Else fp32 products are made of TF32's ten bits.
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    # Else the plan's layers are logged without types.
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED
    if engine == "tensorrt-rtx":
        _set_target(tensorrt, config, target, what)
    for index, profile in enumerate(profiles):
        _add_profile(builder, config, index, profile, what)
    before = len(said)
    plan = builder.build_serialized_network(network, config)
    built = said[before:]
    if plan is None:
        raise BuildError(
            f"{what} cannot build {graph.name} for {target}: {_errors(said) or 'no reason given'}. "
            "Where it names a size or memory, a smaller max in vision.profiles helps; else choose "
            "another engine in vision.engines."
        )
    known = _memory(built, profiles)
    check_memory(known, target)
    path = folder / f"{engine}-{target}.engine"
    path.write_bytes(memoryview(plan))
    values = known | {
        "engine": engine,
        "target": target,
        # As the loader reads it, without importing the package.
        "version": PACKAGES[engine].version or tensorrt.__version__,
        "sha256": file_sha256(path),
        "layers": layers_by_precision(network),
        "products": _products(built),
    }
    (folder / "report").mkdir()
    write_json(folder / "report" / f"vision-{engine}-{target}.json", values)


def check_machine(engine: str, target: str) -> None:
    """Full TensorRT times kernels on the GPU of the machine; TensorRT-RTX needs none.

    Raises:
        HardwareError: the engine is built for the machine's own GPU, and that is not the target.
    """
    if engine == "tensorrt-rtx":
        return
    here = [gpu for gpu in gpus() if gpu.target == target]
    if not here:
        found = ", ".join(f"{gpu.name} ({gpu.target})" for gpu in gpus()) or "no GPU"
        raise HardwareError(
            f"the step vision.{engine}-{target} must run on a machine with an {target} GPU, and "
            f"this one has {found}. Run the same command there. With VLMC_CACHE naming the same "
            "folder on both, a build there takes the steps that are finished here; --steps, such "
            "as --steps vision.graph,language, makes them without this one."
        )


def _parse(tensorrt: Any, builder: Any, logger: Any, graph: Path, what: str) -> Any:
    # Ignored by TensorRT 11 and TensorRT-RTX, which know nothing else.
    typed = 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        problems = [parser.get_error(index) for index in range(parser.num_errors)]
        told = "; ".join(_problem(problem) for problem in problems)
        raise BuildError(
            f"{what} cannot read {graph.name}: {told or 'it is no ONNX model'}. Build the "
            "graph again with `--force vision.graph`, or choose another engine in vision.engines."
        )
    return network


def _problem(problem: Any) -> str:
    description = str(problem.desc()).strip().splitlines()
    # The last lines tell of a missing driver, which parsing does not need.
    first = " ".join(line for line in description if "cudaError" not in line)
    name, operator = problem.node_name(), problem.node_operator()
    return f"node {name} ({operator}): {first}" if name else first


def _set_target(tensorrt: Any, config: Any, target: str, what: str) -> None:
    capability = getattr(tensorrt.ComputeCapability, target.upper(), None)
    if capability is None:
        known = ", ".join(
            name.lower() for name in tensorrt.ComputeCapability.__members__ if name[:2] == "SM"
        )
        raise BuildError(
            f"vision.engines: {what} has no target {target}; it has {known}. Remove the target, or "
            "choose another engine for it."
        )
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(capability, 0):
        raise BuildError(f"vision.engines: {what} refuses the target {target}")


def _add_profile(builder: Any, config: Any, index: int, profile: Profile, what: str) -> None:
    shapes = builder.create_optimization_profile()
    sizes = (profile.min, profile.opt, profile.max)
    shapes.set_shape(_INPUT, *((size, TILE_SIZE, TILE_SIZE, 3) for size in sizes))
    if config.add_optimization_profile(shapes) != index:
        raise BuildError(
            f"vision.profiles[{index}]: {what} refuses min {profile.min}, opt {profile.opt}, max "
            f"{profile.max}"
        )


def check_memory(known: Mapping[str, Any], target: str) -> None:
    """Refuse profiles that no card of the target has the memory for, weights included.

    Raises:
        BuildError: naming the first such profile.
    """
    largest = LARGEST_CARD_GIB[target] << 30
    weights = known["weights_bytes"] or 0
    for index, profile in enumerate(known["profiles"]):
        needed = weights + (profile["device_memory_bytes"] or 0)
        if needed > largest:
            raise BuildError(
                f"vision.profiles[{index}] with max {profile['max']} takes {needed:,} bytes of "
                f"device memory, weights included, and no {target} card has more than "
                f"{largest:,}. Lower its max: larger batches are split."
            )


def _memory(said: Messages, profiles: Sequence[Profile]) -> dict[str, Any]:
    """Memory as TensorRT logged it while it built; None for what it did not log."""
    text = "\n".join(message for _, message in said)
    activations = [int(number) for number in _ACTIVATIONS.findall(text)]
    weights = _WEIGHTS.search(text)
    known = len(activations) == len(profiles)
    return {
        "profiles": [
            {
                "min": profile.min,
                "opt": profile.opt,
                "max": profile.max,
                "device_memory_bytes": activations[index] if known else None,
            }
            for index, profile in enumerate(profiles)
        ],
        "device_memory_bytes": max(activations) if known else None,
        "weights_bytes": None if weights is None else int(weights[1]),
    }


def _products(said: Messages) -> dict[str, int] | None:
    """Of the plan by precision; None where its layers are not logged, as full TensorRT's."""
    told = [message for _, message in said if message.startswith(LAYERS_TOLD)]
    return planned_products(told[0]) if len(told) == 1 else None


def _errors(said: Messages) -> str:
    """What TensorRT gave as reasons, but for the driver that a build needs none of."""
    reasons = [
        message.strip()
        for severity, message in said
        if severity in ("ERROR", "INTERNAL_ERROR") and "cudaError" not in message
    ]
    return "; ".join(dict.fromkeys(reasons))
