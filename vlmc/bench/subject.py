"""A model that is measured, and the parts that it and its variants are assembled from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from vlmc.artifact.integrity import Artifact
from vlmc.artifact.manifest import EngineRecord, RuntimeRules
from vlmc.bench.peak import PeakDtype
from vlmc.checkpoint.config import LanguageConfig, VisionConfig
from vlmc.image.tiles import TileRule
from vlmc.models.flops import tower_flops
from vlmc.models.language.decoder import Decoder
from vlmc.runtime.assemble import assemble
from vlmc.runtime.engines.engine import VisionEngine
from vlmc.runtime.model import Model
from vlmc.runtime.scheduler.lead import Lead
from vlmc.text.prompt import PromptBuilder

_PEAKS: dict[str, PeakDtype] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_DTYPES: dict[torch.dtype, PeakDtype] = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything of a model but its vision engine: an artifact's, or random ones of a shape."""

    artifact: Artifact
    decoder: Decoder
    prompts: PromptBuilder
    chosen: EngineRecord
    vision: VisionConfig
    vision_layers: int
    lead: Lead = field(default_factory=Lead)

    @property
    def device(self) -> torch.device:
        """Where the language model is."""
        return self.decoder.embed_tokens.weight.device


@dataclass(frozen=True, slots=True)
class Subject:
    """A loaded model, what it is in words, and what its work is counted by.

    `language` and `tile_flops` are a device's share where several devices share the model.
    """

    name: str
    model: Model
    device: torch.device
    language: LanguageConfig
    tile_flops: int
    vision_peak: PeakDtype
    language_peak: PeakDtype
    description: dict[str, Any]

    def close(self) -> None:
        """Free the model's own memory."""
        self.model.close()


def make_subject(
    name: str,
    parts: Parts,
    engine: VisionEngine,
    *,
    tiles: TileRule,
    rules: RuntimeRules,
    resampler: Literal["opencv", "pillow"] | None = None,
) -> Subject:
    """Assemble a model; it closes `engine` with itself.

    Raises:
        HardwareError: memory is too small.
    """
    artifact, manifest = parts.artifact, parts.artifact.manifest
    image = manifest.image
    if resampler is not None:
        # The files stay as they were checked; only how images are read changes, for this model.
        image = replace(image, resampler=resampler)
        artifact = replace(artifact, manifest=replace(manifest, image=image))
    model = assemble(
        artifact,
        parts.decoder,
        parts.prompts,
        engine,
        parts.chosen,
        tiles=tiles,
        rules=rules,
        lead=parts.lead,
    )
    config, dtype = parts.decoder.config, parts.decoder.embed_tokens.weight.dtype
    shard = parts.decoder.group.shard
    config = replace(config, vocab_size=shard.width(config.vocab_size))
    return Subject(
        name=name,
        model=model,
        device=parts.device,
        language=config,
        tile_flops=tower_flops(parts.vision, parts.vision_layers, config.hidden_size)
        // shard.count,
        vision_peak=_vision_peak(engine),
        language_peak=_language_peak(manifest.language_scheme, dtype, parts.device),
        description={
            "artifact": manifest.name,
            "identity": artifact.identity,
            "engine": engine.name,
            "engine_device": str(engine.device),
            "vision_precision": engine.precision,
            "language_scheme": manifest.language_scheme,
            "language_dtype": str(dtype).removeprefix("torch."),
            "device": str(parts.device),
            "devices": shard.count,
            "tiles": str(tiles),
            "resampler": image.resampler,
            "cuda_graphs": rules.cuda_graphs and parts.device.type == "cuda",
            "prefix_cache": rules.prefix_cache,
            "max_batch_tokens": rules.max_batch_tokens,
        },
    )


def _vision_peak(engine: VisionEngine) -> PeakDtype:
    """The dtype whose product the tower is compared with; on a CPU that of 8 bits is fp32."""
    if engine.precision in _PEAKS:
        return _PEAKS[engine.precision]
    if engine.device.type == "cpu":
        return "float32"
    return "float8" if engine.precision == "fp8" else "float16"


def _language_peak(scheme: str, dtype: torch.dtype, device: torch.device) -> PeakDtype:
    """fp8 multiplies in 8 bits on a GPU; 4 bits are multiplied in 16, and on a CPU all is dense."""
    if scheme == "fp8" and device.type == "cuda":
        return "float8"
    return _DTYPES[dtype]
