"""Run llmcompressor on one decoder layer. No other module imports it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.pipelines.cache import IntermediatesCache
from llmcompressor.utils.helpers import DisableQuantization
from pydantic import PrivateAttr
from torch import Tensor
from torch.utils.data import DataLoader

from vlmc.compile.language.quantization.layer import LayerModel
from vlmc.compile.language.quantization.settings import Settings

_PREFIX = "model.layers.0."


@dataclass(frozen=True, slots=True)
class Compressed:
    """A compressed layer; all names are relative to the layer.

    Attributes:
        tensors: all tensors of the layer, packed where quantized.
        rounded: dequantized weights (outputs, inputs) of the quantized linears.
        smoothed: with AWQ, their weights after smoothing and before rounding.
        failed: linears whose Hessian could not be factorized.
    """

    tensors: dict[str, Tensor]
    rounded: dict[str, Tensor]
    smoothed: dict[str, Tensor]
    failed: tuple[str, ...]


class _Awq(AWQModifier):  # type: ignore[misc]
    """AWQ that gives unused channels an average scale.

    The original rule gives them a scale near zero, so later inputs there are rounded to zero.
    """

    def on_sequential_epoch_end(self, state: Any, event: Any, **named: Any) -> None:
        """Search with quantization disabled, because scales are still uninitialized here."""
        with DisableQuantization(state.model):
            super().on_sequential_epoch_end(state, event, **named)

    def _compute_best_scale(self, mapping: Any, *args: Any, **named: Any) -> Tensor:
        total, _ = self._smooth_activation_stats[mapping.smooth_name]
        total[total == 0] = total.mean()
        scale: Tensor = super()._compute_best_scale(mapping, *args, **named)
        return scale


class _Gptq(GPTQModifier):  # type: ignore[misc]
    """GPTQ that rounds the weights of unused channels. The original sets them to zero."""

    _failed: list[str] = PrivateAttr(default_factory=list)

    def compress_modules(self) -> None:
        """Set the Hessian's diagonal to its mean for unused channels."""
        for hessian in self._hessians.values():
            diagonal = hessian.diagonal()
            diagonal[diagonal == 0] = diagonal.mean() or 1.0
        super().compress_modules()
        # The modifier clears this list afterwards.
        self._failed += self._rtn_fallback_module_names

    @property
    def failed(self) -> list[str]:
        """Modules rounded to nearest because their Hessian could not be factorized."""
        return self._failed


class _NoProcessor:
    """The processor that llmcompressor requires, although samples are already embeddings."""

    def save_pretrained(self, *_: object) -> None:
        """Do nothing."""


def compress(
    model: LayerModel,
    inputs: Sequence[Tensor],
    settings: Settings,
    *,
    keep: Collection[str],
    damping: float,
) -> Compressed:
    """Quantize the layer's linears, in place.

    Args:
        model: the layer.
        inputs: calibration inputs, (1, tokens, hidden) each.
        settings: the quantization settings.
        keep: linears to keep in 16 bits.
        damping: GPTQ's damping, relative to the Hessian's mean diagonal.

    Raises:
        Exception: llmcompressor raises it if a loss is not finite.
    """
    _leave_memory_unpinned()
    weights = QuantizationArgs(
        num_bits=settings.bits,
        type="int",
        symmetric=settings.symmetric,
        strategy="group",
        group_size=settings.group_size,
        # RTN is the baseline, without clipping. The other methods may clip groups.
        observer="memoryless_minmax" if settings.method == "rtn" else "memoryless_mse",
    )
    options = {
        "config_groups": {"group_0": QuantizationScheme(targets=["Linear"], weights=weights)},
        "ignore": ["lm_head", *(_PREFIX + name for name in keep)],
    }
    gptq = _Gptq(**options, dampening_frac=damping) if settings.method == "gptq" else None
    if gptq is not None:
        modifiers = [gptq]
    elif settings.method == "awq":
        modifiers = [_Awq(), QuantizationModifier(**options)]
    else:
        modifiers = [QuantizationModifier(**options)]
    batches: Any = [{"inputs_embeds": states.to(model.dtype)} for states in inputs]
    calibrated = settings.method != "rtn"
    oneshot(
        model=model.model,
        recipe=modifiers,
        processor=_NoProcessor(),
        dataset=DataLoader(batches, batch_size=None) if calibrated else None,
        num_calibration_samples=len(batches),
        pipeline="basic" if calibrated else "datafree",
    )
    failed = [name.removeprefix(_PREFIX) for name in (gptq.failed if gptq else ())]
    return _packed(model, settings, tuple(failed))


def uncompressed(model: LayerModel, settings: Settings) -> Compressed:
    """The unquantized layer, if all its linears keep 16 bits."""
    return _packed(model, settings, ())


def _packed(model: LayerModel, settings: Settings, failed: tuple[str, ...]) -> Compressed:
    dtype: torch.dtype = getattr(torch, settings.dtype)
    tensors: dict[str, Tensor] = {}
    rounded: dict[str, Tensor] = {}
    smoothed: dict[str, Tensor] = {}
    for name, module in model.layer.named_modules():
        own = {key: value.detach().cpu() for key, value in module.named_parameters(recurse=False)}
        scheme = getattr(module, "quantization_scheme", None)
        if scheme is not None:
            if settings.method == "awq":
                smoothed[name] = own["weight"]
            own = PackedQuantizationCompressor.compress(own, scheme)
            own["weight_scale"] = own["weight_scale"].to(dtype)
            if "bias" in own:
                own["bias"] = own["bias"].to(dtype)
            whole = PackedQuantizationCompressor.decompress(own, scheme)
            rounded[name] = whole["weight"]
        else:
            own = {key: value.to(dtype) for key, value in own.items()}
        tensors |= {f"{name}.{key}": value.contiguous() for key, value in own.items()}
    return Compressed(tensors, rounded, smoothed, failed)


def _leave_memory_unpinned() -> None:
    """Disable llmcompressor's pinning of samples, which fails without a GPU."""
    if not torch.accelerator.is_available():
        IntermediatesCache.pin_memory = lambda *_, **__: None
