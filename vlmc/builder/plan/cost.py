"""What a build will write and compute, counted from a checkpoint's headers."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from vlmc.artifact.vision_files import GOLDEN_TILES
from vlmc.checkpoint.config import ModelConfig
from vlmc.checkpoint.layout import original_shapes, quantized_bytes, quantized_linears
from vlmc.checkpoint.source import Checkpoint
from vlmc.image.tiles import TOKENS_PER_TILE
from vlmc.text.tokenizer import TOKENIZER_FILES

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_STORED_BYTES = {"F32": 4, "BF16": 2, "F16": 2}

# Sizes measured on built artifacts: a safetensors header's bytes for each tensor, the golden tiles
# compressed (the same in every artifact), and the share that fp32 features keep of their size.
_HEADER_BYTES_PER_TENSOR = 110
_GOLDEN_TILES_BYTES = 1_042_676
_FEATURES_KEPT = 0.93
_SETTINGS_BYTES = 1_000
_FURTHER_PARTS = 3  # of a quantized linear, beside its words

# Rates of a usual server, for a build whose like was never made before.
_OPERATIONS_PER_CORE_SECOND = 25e9
# fp32 without TF32, from a T4's to a fifth of an H100's.
_OPERATIONS_PER_GPU_SECOND = 10e12
BYTES_PER_SECOND = 200e6
_EXPORT_SECONDS, _EXPORT_SECONDS_PER_BLOCK = 2.0, 0.7
# TensorRT-RTX, a block in a profile: kernels for other sizes have the weights in common.
_COMPILE_SECONDS_PER_BLOCK = 0.28
_PLAN_BYTES_PER_BLOCK = 600_000
# AOTInductor: orders of magnitude, until one is measured. One package runs every profile, and its
# weights stay in the tower's file.
_PACKAGE_BYTES = 5_000_000
_PACKAGE_SECONDS, _PACKAGE_SECONDS_PER_BLOCK = 60.0, 2.0


@dataclass(frozen=True, slots=True)
class Counts:
    """Parameters, tensors and bytes of a model's halves; the tower's include the projector's."""

    tower_parameters: int
    projector_parameters: int
    tower_stored_bytes: int
    tower_tensors: int
    language_parameters: int
    language_tensors: int
    quantized_parameters: int  # of the language model's, in a checkpoint that is quantized already
    quantized_bytes: int  # that they take, as an artifact holds them
    tokenizer_bytes: int


@dataclass(frozen=True, slots=True)
class StepCost:
    """What a step writes in bytes, and computes in floating-point operations."""

    output_bytes: int
    operations: int = 0
    exported_blocks: int = 0
    compiled_blocks: int = 0  # of all profiles of an engine
    extra_seconds: float = 0.0  # that go by neither
    on_gpu: bool = False  # where the operations run

    @property
    def seconds(self) -> float:
        """Time on all cores of this machine, or on a GPU, at usual rates: an estimate, right
        within a factor of a few."""
        cores = _OPERATIONS_PER_CORE_SECOND * (os.cpu_count() or 1)
        export = _EXPORT_SECONDS + self.exported_blocks * _EXPORT_SECONDS_PER_BLOCK
        return (
            self.operations / (_OPERATIONS_PER_GPU_SECOND if self.on_gpu else cores)
            + self.output_bytes / BYTES_PER_SECOND
            + (export if self.exported_blocks else 0.0)
            + self.compiled_blocks * _COMPILE_SECONDS_PER_BLOCK
            + self.extra_seconds
        )


def count(checkpoint: Checkpoint) -> Counts:
    """Count what `select_layer` leaves of the tower, the projector and the language model."""
    config, weights = checkpoint.config, checkpoint.weights
    tower: list[tuple[int, int]] = []
    language: list[int] = []
    projector = 0
    for name, shape in original_shapes(config).items():
        elements = math.prod(shape)
        if name.startswith("language_model."):
            language.append(elements)
        elif _runs(name, config):
            # A low-rank pair is merged in fp32.
            merged = config.vision_lora_rank and weights.lora_ranks(name)
            dtypes = {"F32"} if merged else weights.dtypes(name)
            tower.append((elements, elements * max(_STORED_BYTES[dtype] for dtype in dtypes)))
            projector += elements if name.startswith("mlp1.") else 0
    quantized = quantized_linears(weights, config)
    files = (checkpoint.folder / name for name in TOKENIZER_FILES)
    return Counts(
        tower_parameters=sum(elements for elements, _ in tower),
        projector_parameters=projector,
        tower_stored_bytes=sum(stored for _, stored in tower),
        tower_tensors=len(tower),
        language_parameters=sum(language),
        language_tensors=len(language) + _FURTHER_PARTS * len(quantized),
        quantized_parameters=sum(map(math.prod, quantized.values())),
        quantized_bytes=quantized_bytes(weights, config),
        tokenizer_bytes=sum(path.stat().st_size for path in files if path.is_file()),
    )


# A dozen small kernels, and the libraries that launch them.
_KERNELS_BYTES, _KERNELS_SECONDS = 1 << 20, 30.0


def language_cost(step: str, counts: Counts, language_bytes: int) -> StepCost:
    """What a step of the language wing writes and computes, by its name; `language_bytes` are
    those of the weights.

    Raises:
        KeyError: the step is unknown; add the cost of each new step here.
    """
    header = _HEADER_BYTES_PER_TENSOR * counts.language_tensors
    if step.startswith("language.kernels-"):
        return StepCost(_KERNELS_BYTES, extra_seconds=_KERNELS_SECONDS)
    return {
        "language.settings": StepCost(_SETTINGS_BYTES),
        "language.calibration": StepCost(0),
        "language.weights": StepCost(language_bytes + header),
        "language.tokenizer": StepCost(counts.tokenizer_bytes),
    }[step]


def engine_cost(counts: Counts, config: ModelConfig, weight_bytes: int, profiles: int) -> StepCost:
    """What the step of a TensorRT engine writes: its weights, of `weight_bytes` each, and kernels
    for every profile."""
    blocks = profiles * config.vision_layers
    return StepCost(
        counts.tower_parameters * weight_bytes + _PLAN_BYTES_PER_BLOCK * blocks,
        compiled_blocks=blocks,
    )


def package_cost(config: ModelConfig) -> StepCost:
    """What the step of an inductor engine writes: kernels alone."""
    seconds = _PACKAGE_SECONDS + _PACKAGE_SECONDS_PER_BLOCK * config.vision_layers
    return StepCost(_PACKAGE_BYTES, extra_seconds=seconds)


def golden_bytes(config: ModelConfig) -> int:
    """Size of the golden tiles with their features, compressed."""
    features = GOLDEN_TILES * TOKENS_PER_TILE * config.language.hidden_size * 4
    return int(_GOLDEN_TILES_BYTES + _FEATURES_KEPT * features)


def _runs(name: str, config: ModelConfig) -> bool:
    """Whether `select_layer` needs a tensor of the tower or projector."""
    parts = name.split(".")
    return parts[1:3] != ["encoder", "layers"] or int(parts[3]) < config.vision_layers
