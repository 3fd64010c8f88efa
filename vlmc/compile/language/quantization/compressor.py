"""llmcompressor on one decoder layer: the only module that calls it."""

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
    """A layer's tensors by name within it, packed or as they are.

    `rounded` are each quantized linear's weights (outputs, inputs) as they will be read, and
    `smoothed` those before rounding where AWQ moved factors between layers, which changes no
    output. `failed` are linears whose Hessian could not be factorized.
    """

    tensors: dict[str, Tensor]
    rounded: dict[str, Tensor]
    smoothed: dict[str, Tensor]
    failed: tuple[str, ...]


class _Awq(AWQModifier):  # type: ignore[misc]
    """Scales a channel that no sample uses as an average one; by its own rule the scale would be
    next to nothing, and what an image puts there later be rounded to nothing too."""

    def on_sequential_epoch_end(self, state: Any, event: Any, **named: Any) -> None:
        """Search with the layers' own arithmetic: the basic pipeline has left it by now, and what
        scales say that nobody computed yet is what the memory held before."""
        with DisableQuantization(state.model):
            super().on_sequential_epoch_end(state, event, **named)

    def _compute_best_scale(self, mapping: Any, *args: Any, **named: Any) -> Tensor:
        total, _ = self._smooth_activation_stats[mapping.smooth_name]
        total[total == 0] = total.mean()
        scale: Tensor = super()._compute_best_scale(mapping, *args, **named)
        return scale


class _Gptq(GPTQModifier):  # type: ignore[misc]
    """Rounds the weights of a channel that no sample uses, which by its own rule become zero."""

    _failed: list[str] = PrivateAttr(default_factory=list)

    def compress_modules(self) -> None:
        """Give such channels an average place in the Hessian, apart from the others."""
        for hessian in self._hessians.values():
            diagonal = hessian.diagonal()
            diagonal[diagonal == 0] = diagonal.mean() or 1.0
        super().compress_modules()
        # Which the modifier forgets when it is done.
        self._failed += self._rtn_fallback_module_names

    @property
    def failed(self) -> list[str]:
        """Modules whose Hessian could not be factorized, which were rounded to the nearest."""
        return self._failed


class _NoProcessor:
    """What llmcompressor wants beside samples that are embeddings already."""

    def save_pretrained(self, *_: object) -> None:
        """There is nothing to save."""


def compress(
    model: LayerModel,
    inputs: Sequence[Tensor],
    settings: Settings,
    *,
    keep: Collection[str],
    damping: float,
) -> Compressed:
    """Quantize the layer's linears but for those that `keep` names; the model is used up.

    Raises:
        Exception: as llmcompressor does where a loss is not finite.
    """
    _leave_memory_unpinned()
    weights = QuantizationArgs(
        num_bits=settings.bits,
        type="int",
        symmetric=settings.symmetric,
        strategy="group",
        group_size=settings.group_size,
        # Rounding is the baseline and takes groups as they are; the others may clip them.
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
    """The layer as it is, for one that keeps 16 bits altogether."""
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
    """llmcompressor pins samples for the GPU's sake, which fails where there is none."""
    if not torch.accelerator.is_available():
        IntermediatesCache.pin_memory = lambda *_, **__: None
