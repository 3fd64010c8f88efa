"""Build TensorRT and TensorRT-RTX engines: one engine per target, with all profiles.

TensorRT-RTX can build for other GPUs, and does not need a GPU. TensorRT builds only for the GPU of
this machine. Precision is set by the graph's types and Q/DQ nodes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmc.artifact.manifest import Profile
from vlmc.compile.engines.layer_precisions import LAYER_LIST, engine_products, layers_by_precision
from vlmc.compile.engines.tensorrt_package import Messages, import_tensorrt, message_collector
from vlmc.errors import BuildError, HardwareError
from vlmc.files.hashing import file_sha256
from vlmc.files.strict_json import write_json
from vlmc.image.tiles import TILE_SIZE
from vlmc.machine.gpu import gpus
from vlmc.machine.packages import PACKAGES

_INPUT = "tiles"
# Without a GPU that can load the engine, memory sizes are available only from the log.
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
"""Target → memory of the largest GPU with it."""


def build_engine(
    graph: Path, folder: Path, *, engine: str, target: str, profiles: Sequence[Profile]
) -> None:
    """Build an engine, such as `tensorrt-rtx-sm89.engine`, and a report below `report/`.

    Args:
        graph: the ONNX graph.
        folder: where to write.
        engine: `tensorrt` or `tensorrt-rtx`.
        target: compute capability, such as `sm89`.
        profiles: optimization profiles, in tiles.

    Raises:
        UsageError: the engine's package is not installed.
        HardwareError: TensorRT cannot build for `target` on this machine.
        BuildError: TensorRT rejects the graph, the target or a profile, or the build fails.
    """
    check_machine(engine, target)
    tensorrt = import_tensorrt(engine)
    messages: Messages = []
    logger = message_collector(tensorrt, messages)
    what = f"{engine} {tensorrt.__version__}"
    builder = tensorrt.Builder(logger)
    network = _parse(tensorrt, builder, logger, graph, what)
    config = builder.create_builder_config()
    # Otherwise fp32 products use TF32, with its 10-bit mantissa.
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    # Otherwise the log lists layers without types.
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED
    if engine == "tensorrt-rtx":
        _set_target(tensorrt, config, target, what)
    for index, profile in enumerate(profiles):
        _add_profile(builder, config, index, profile, what)
    before = len(messages)
    serialized = builder.build_serialized_network(network, config)
    built = messages[before:]
    if serialized is None:
        reasons = _errors(messages) or "no reason given"
        raise BuildError(
            f"{what} cannot build {graph.name} for {target}: {reasons}. "
            "If the reason is a size or memory, lower max in vision.profiles; otherwise choose "
            "another engine in vision.engines."
        )
    known = _memory(built, profiles)
    check_memory(known, target)
    path = folder / f"{engine}-{target}.engine"
    path.write_bytes(memoryview(serialized))
    values = known | {
        "engine": engine,
        "target": target,
        # The version that the loader compares, which is read without importing the package.
        "version": PACKAGES[engine].version or tensorrt.__version__,
        "sha256": file_sha256(path),
        "layers": layers_by_precision(network),
        "products": _products(built),
    }
    (folder / "report").mkdir()
    write_json(folder / "report" / f"vision-{engine}-{target}.json", values)


def check_machine(engine: str, target: str) -> None:
    """Check that this machine can build for `target`. TensorRT needs a GPU of that target.

    Raises:
        HardwareError: TensorRT, and no GPU of this machine is the target.
    """
    if engine == "tensorrt-rtx":
        return
    here = [gpu for gpu in gpus() if gpu.target == target]
    if not here:
        found = ", ".join(f"{gpu.name} ({gpu.target})" for gpu in gpus()) or "no GPU"
        raise HardwareError(
            f"the step vision.{engine}-{target} must run on a machine with an {target} GPU, and "
            f"this one has {found}. Run the same command there. To reuse steps finished on this "
            "machine, set VLMC_CACHE to the same shared folder on both. To run the other steps "
            "here, select them with --steps, such as --steps vision.graph,language."
        )


def _parse(tensorrt: Any, builder: Any, logger: Any, graph: Path, what: str) -> Any:
    # TensorRT 11 and TensorRT-RTX are always strongly typed, and ignore the flag.
    typed = 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        problems = [parser.get_error(index) for index in range(parser.num_errors)]
        reasons = "; ".join(_problem(problem) for problem in problems)
        raise BuildError(
            f"{what} cannot read {graph.name}: {reasons or 'it is not an ONNX model'}. Build the "
            "graph again with `--force vision.graph`, or choose another engine in vision.engines."
        )
    return network


def _problem(problem: Any) -> str:
    description = str(problem.desc()).strip().splitlines()
    # Drop lines about a missing driver, which parsing does not need.
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
        raise BuildError(f"vision.engines: {what} rejects the target {target}")


def _add_profile(builder: Any, config: Any, index: int, profile: Profile, what: str) -> None:
    shapes = builder.create_optimization_profile()
    sizes = (profile.min, profile.opt, profile.max)
    shapes.set_shape(_INPUT, *((size, TILE_SIZE, TILE_SIZE, 3) for size in sizes))
    if config.add_optimization_profile(shapes) != index:
        raise BuildError(
            f"vision.profiles[{index}]: {what} rejects min {profile.min}, opt {profile.opt}, max "
            f"{profile.max}"
        )


def check_memory(known: Mapping[str, Any], target: str) -> None:
    """Check that profiles and weights fit the memory of the target's largest GPU.

    Raises:
        BuildError: a profile needs more memory; names the first.
    """
    largest = LARGEST_CARD_GIB[target] << 30
    weights = known["weights_bytes"] or 0
    for index, profile in enumerate(known["profiles"]):
        needed = weights + (profile["device_memory_bytes"] or 0)
        if needed > largest:
            raise BuildError(
                f"vision.profiles[{index}] with max {profile['max']} needs {needed:,} bytes of "
                f"device memory including weights, but no {target} GPU has more than {largest:,}. "
                "Lower its max: larger batches are split."
            )


def _memory(messages: Messages, profiles: Sequence[Profile]) -> dict[str, Any]:
    """Memory sizes from TensorRT's log; None if not logged."""
    text = "\n".join(message for _, message in messages)
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


def _products(messages: Messages) -> dict[str, int] | None:
    """The engine's products by precision; None if its layers are not logged, as by TensorRT."""
    lists = [message for _, message in messages if message.startswith(LAYER_LIST)]
    return engine_products(lists[0]) if len(lists) == 1 else None


def _errors(messages: Messages) -> str:
    """TensorRT's error messages, except those about the driver, which a build does not need."""
    reasons = [
        message.strip()
        for severity, message in messages
        if severity in ("ERROR", "INTERNAL_ERROR") and "cudaError" not in message
    ]
    return "; ".join(dict.fromkeys(reasons))
