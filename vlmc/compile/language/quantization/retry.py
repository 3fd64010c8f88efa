"""Quantize one decoder layer; on failure, retry with safer settings or keep 16 bits."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from vlmc.compile.language.quantization.compressor import Compressed, compress, uncompressed
from vlmc.compile.language.quantization.layer import LayerModel
from vlmc.compile.language.quantization.linear_error import LinearMeter, LinearReport
from vlmc.compile.language.quantization.settings import Settings

# A larger output error counts as a failure. Normal errors are near 0.1.
MAX_OUTPUT_ERROR = 0.5
_WHOLE = ""  # problem of the whole layer


@dataclass(frozen=True, slots=True)
class Trial:
    """Settings of one attempt; `damping` is GPTQ's, relative to the Hessian's mean diagonal."""

    dtype: torch.dtype
    damping: float = 0.01

    def text(self, settings: Settings) -> str:
        """The form for notes."""
        damping = f" with damping {self.damping:g}" if settings.method == "gptq" else ""
        return f"{str(self.dtype).removeprefix('torch.')}{damping}"


@dataclass(frozen=True, slots=True)
class Note:
    """A problem of a linear or layer, and how it was handled."""

    name: str
    problem: str
    action: str


@dataclass(frozen=True, slots=True)
class LayerResult:
    """Tensors by name relative to the layer; `outputs` for every sample, on the CPU."""

    tensors: dict[str, Tensor]
    linears: tuple[LinearReport, ...]
    notes: tuple[Note, ...]
    outputs: list[Tensor]


@dataclass(frozen=True, slots=True)
class _Tried:
    result: LayerResult | None
    linears: tuple[str, ...]
    problems: dict[str, str]  # by linear, or `_WHOLE`


def trials(settings: Settings, dtype: torch.dtype) -> list[Trial]:
    """Trials in order; the first computes in `dtype`."""
    if settings.method == "gptq":
        return [Trial(dtype), Trial(dtype, 0.1), Trial(torch.float32, 1.0)]
    return [Trial(chosen) for chosen in dict.fromkeys((dtype, torch.float32))]


def quantize_layer(
    folder: Path,
    inputs: Sequence[Tensor],
    held_out: int,
    settings: Settings,
    *,
    keep: Collection[str],
    dtype: torch.dtype,
    device: torch.device,
) -> LayerResult:
    """Quantize a layer. Linears that fail in all trials keep 16 bits.

    Args:
        folder: the layer, as written by `write_job`.
        inputs: (1, tokens, hidden) for each sample.
        held_out: number of final samples that are used only to measure errors.
        settings: the quantization settings.
        keep: linears to keep in 16 bits, by name relative to the layer.
        dtype: dtype to compute in first.
        device: where to compute.
    """
    kept = set(keep)
    notes: list[Note] = []
    tries = trials(settings, dtype)
    while True:
        for place, attempt in enumerate(tries):
            tried = _try(folder, inputs, held_out, settings, kept, attempt, device)
            if tried.result is not None and not tried.problems:
                return replace(tried.result, notes=tuple(notes))
            more = tries[place + 1 :]
            action = f"tried again in {more[0].text(settings)}" if more else "left in 16 bits"
            notes += [Note(name, text, action) for name, text in tried.problems.items()]
        kept |= set(tried.linears) if _WHOLE in tried.problems else set(tried.problems)


def _try(
    folder: Path,
    inputs: Sequence[Tensor],
    held_out: int,
    settings: Settings,
    kept: Collection[str],
    attempt: Trial,
    device: torch.device,
) -> _Tried:
    model = LayerModel(folder, attempt.dtype, device)
    linears = tuple(model.linears())
    if not set(linears) <= set(kept):
        # Check first, because llmcompressor only logs it and skips smoothing.
        if not all(states.isfinite().all() for states in model.run(inputs)):
            said = f"outputs are not finite in {attempt.text(settings)}"
            return _Tried(None, linears, {_WHOLE: said})
        seen = inputs[: len(inputs) - held_out]
        try:
            compressed = compress(model, seen, settings, keep=kept, damping=attempt.damping)
        except Exception as error:
            if not _is_numeric(error):
                raise
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return _Tried(None, linears, {_WHOLE: lines[0]})
        del model
        model = LayerModel(folder, attempt.dtype, device)
    else:
        compressed = uncompressed(model, settings)
    result = _measure(model, compressed, inputs, held_out, settings)
    return _Tried(result, linears, dict(_problems(result, compressed)))


def _is_numeric(error: Exception) -> bool:
    """Whether the error is numeric. llmcompressor raises bare exceptions and assertions too."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    return type(error) is Exception or isinstance(
        error, RuntimeError | AssertionError | ValueError | ArithmeticError
    )


def _measure(
    model: LayerModel,
    compressed: Compressed,
    inputs: Sequence[Tensor],
    held_out: int,
    settings: Settings,
) -> LayerResult:
    """Run the quantized layer, and measure each linear against its unquantized weights."""
    meters: dict[str, LinearMeter] = {}
    for name, module in model.linears().items():
        before = compressed.smoothed.get(name, module.weight.detach().cpu().clone())
        after = compressed.rounded.get(name)
        meters[name] = LinearMeter(
            before.to(model.device), None if after is None else after.to(model.device, model.dtype)
        )
    state = model.layer.state_dict()
    for name, tensor in compressed.tensors.items():
        if name in state:
            state[name].copy_(tensor)
    for name, weight in compressed.rounded.items():
        state[f"{name}.weight"].copy_(weight)
    outputs: list[Tensor] = []

    def watch(name: str, states: Tensor) -> None:
        meters[name].watch(states, measured=len(outputs) >= len(inputs) - held_out)

    outputs.extend(model.run(inputs, watch))
    reports = [
        meter.report(name, compressed.tensors.get(f"{name}.weight_scale"), settings.bits)
        for name, meter in meters.items()
    ]
    return LayerResult(compressed.tensors, tuple(reports), (), outputs)


def _problems(result: LayerResult, compressed: Compressed) -> Iterator[tuple[str, str]]:
    if not compressed.rounded:
        return
    bad = False
    for report in result.linears:
        error = report.output_error
        if report.name in compressed.failed:
            said = "its Hessian has no Cholesky factor"
        elif report.name in compressed.rounded and not _finite(compressed, report.name):
            said = "its scales or quantized weights are not finite"
        elif error is not None and not error <= MAX_OUTPUT_ERROR:
            said = f"its outputs are off by {error:.0%}"
        else:
            continue
        bad = True
        seen = [(report.dead_inputs, "dead"), (report.outlier_inputs, "outlier")]
        channels = [f"{count} {kind} input channels" for count, kind in seen if count]
        yield report.name, ", with ".join([said, *channels])
    if not bad and not all(states.isfinite().all() for states in result.outputs):
        yield _WHOLE, "outputs are not finite once it is quantized"


def _finite(compressed: Compressed, name: str) -> bool:
    scale = compressed.tensors[f"{name}.weight_scale"]
    return bool(scale.isfinite().all() and compressed.rounded[name].isfinite().all())
