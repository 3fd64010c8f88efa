"""The support table: which engine runs which precision on which GPU, and why not.

Recipes are checked against it, and `docs/engines.md` is generated from it. Sources: NVIDIA's
support matrices for TensorRT and TensorRT-RTX, and test builds.
"""

from __future__ import annotations

from typing import Literal, get_args

EngineName = Literal["onnxruntime", "tensorrt", "tensorrt-rtx", "inductor"]
Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
Target = Literal["sm75", "sm80", "sm86", "sm89", "sm90", "sm100", "sm120", "sm121"]

ENGINES: tuple[EngineName, ...] = get_args(EngineName)
REBUILT: tuple[EngineName, ...] = tuple(name for name in ENGINES if name != "onnxruntime")
"""Engines that `vlmc rebuild` builds; onnxruntime runs the graph that every artifact holds."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
TARGETS: tuple[Target, ...] = get_args(Target)

CARDS: dict[Target, str] = {
    "sm75": "Turing: T4, RTX 20",
    "sm80": "Ampere: A100, A30",
    "sm86": "Ampere: RTX 30, A10, A40",
    "sm89": "Ada: RTX 40, L4, L40S",
    "sm90": "Hopper: H100, H200",
    "sm100": "Blackwell: B200",
    "sm120": "Blackwell: RTX 50, RTX PRO",
    "sm121": "Blackwell: GB10",
}
CARD_MEMORY: dict[str, tuple[str, int]] = {
    "sm75": ("T4", 16 * 10**9),
    "sm80": ("A100", 80 * 10**9),
    "sm86": ("RTX 3090", 24 * 10**9),
    "sm89": ("RTX 4090", 24 * 10**9),
    "sm90": ("H100", 80 * 10**9),
    "sm100": ("B200", 180 * 10**9),
    "sm120": ("RTX 5090", 32 * 10**9),
    "sm121": ("GB10", 128 * 10**9),
}
"""A usual card of each target, and its memory as its maker states it."""
RUNS_ON: dict[EngineName, str] = {
    "onnxruntime": "any CPU; takes no targets",
    "tensorrt": "the targets named; without targets, the GPU of the machine that builds",
    "tensorrt-rtx": "the targets named, which it needs; built on any machine, with or without GPU",
    "inductor": "as tensorrt; built on a machine with such a GPU",
}

DTYPE_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""A recipe's name of a dtype → torch's."""

MIN_FEATURE_COSINE: dict[Precision, float] = {
    "fp32": 0.99999,
    "fp16": 0.9999,
    "bf16": 0.999,
    "int8": 0.99,
    "fp8": 0.995,
}
"""Values of `accuracy.min_feature_cosine: auto`: the worst tile's cosine to the fp32 tower."""

_NO_BF16 = "the tensor cores of sm75 (Turing) have no bf16, which came with sm80"
_NO_FP8 = "fp8 tensor cores came with sm89 (Ada)"

NOT_BY_ENGINE: dict[tuple[EngineName, Precision], str] = {
    ("onnxruntime", "bf16"): "ONNX Runtime has no bf16 kernels for the CPU",
    ("onnxruntime", "fp8"): "ONNX Runtime has no fp8 kernels for the CPU",
    ("inductor", "int8"): (
        "int8 lives in the ONNX graph's quantize and dequantize nodes, which inductor does not read"
    ),
}
NOT_BY_TARGET: dict[tuple[Target, Precision], str] = {
    ("sm75", "bf16"): _NO_BF16,
    ("sm75", "fp8"): _NO_FP8,
    ("sm80", "fp8"): _NO_FP8,
    ("sm86", "fp8"): _NO_FP8,
}
NOT_TOGETHER: dict[tuple[EngineName, Target], str] = {
    **{
        ("onnxruntime", target): "onnxruntime runs on the CPU here, and takes no targets"
        for target in TARGETS
    },
    ("tensorrt-rtx", "sm90"): "TensorRT-RTX is for workstation cards and refuses Hopper",
    ("tensorrt-rtx", "sm100"): "TensorRT-RTX is for workstation cards and has no target sm100",
}
NOT_ALL_THREE: dict[tuple[EngineName, Target, Precision], str] = {
    ("tensorrt-rtx", "sm75", "fp32"): "TensorRT-RTX has no fp32 matrix products for sm75 (Turing)",
    ("tensorrt-rtx", "sm75", "int8"): "TensorRT-RTX runs sm75 in fp16 only",
}


def refusal(engine: EngineName, precision: Precision, target: Target | None = None) -> str | None:
    """The reason why `engine` cannot run `precision` on `target`, or on any GPU if None.

    Returns None if it is supported.
    """
    reason = NOT_BY_ENGINE.get((engine, precision))
    if reason is not None or target is None:
        return reason
    return (
        NOT_TOGETHER.get((engine, target))
        or NOT_BY_TARGET.get((target, precision))
        or NOT_ALL_THREE.get((engine, target, precision))
    )


def targets_of(engine: EngineName, precision: Precision) -> tuple[Target, ...]:
    """The targets on which `engine` runs `precision`."""
    return tuple(target for target in TARGETS if refusal(engine, precision, target) is None)


def precisions_of(engine: EngineName) -> tuple[Precision, ...]:
    """The precisions that `engine` supports on any machine."""
    return tuple(precision for precision in PRECISIONS if refusal(engine, precision) is None)
