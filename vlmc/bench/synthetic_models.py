"""Models with random weights: engines and decoders of one shape on one device, made once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from vlmc.artifact.integrity import Artifact
from vlmc.artifact.manifest import EngineRecord, ImageRules, Manifest, PromptRules
from vlmc.bench.engines import BATCH, EagerEngine, eager_engine
from vlmc.bench.memory import free_memory
from vlmc.bench.subject import Parts
from vlmc.bench.synthetic.precisions import EngineKind
from vlmc.bench.synthetic.shapes import shape_of
from vlmc.bench.synthetic.tokenizer import StandInTokenizer
from vlmc.bench.synthetic.tower import DTYPES, random_precision, random_tower
from vlmc.errors import HardwareError
from vlmc.image.tiles import TileRule
from vlmc.models.language.random_weights import LanguagePrecision, random_decoder
from vlmc.models.vision.tower import VisionTower
from vlmc.runtime.engines.engine import VisionEngine
from vlmc.text.prompt import PromptBuilder
from vlmc.text.template import TEMPLATES
from vlmc.version import __version__

_NO_TOKEN = -1


class SyntheticModels:
    """Parts of one shape, on one device; of each kind only the last is kept."""

    def __init__(self, shape: str, device: torch.device) -> None:
        self.name, self.device = shape, device
        self._shape = shape_of(shape)
        self.packages: Mapping[str, Path] = {}
        self._engine: tuple[tuple[str, EngineKind], VisionEngine] | None = None
        self._parts: tuple[LanguagePrecision, Parts] | None = None

    def engine(self, precision: str, kind: EngineKind) -> VisionEngine:
        """A vision engine; `inductor` needs its package in `packages`.

        Raises:
            HardwareError: memory is too small, or the package does not run here.
        """
        if self._engine is None or self._engine[0] != (precision, kind):
            self._close_engine()
            self._engine = (precision, kind), self._make_engine(precision, kind)
        return self._engine[1]

    def parts(self, precision: LanguagePrecision, engine: VisionEngine) -> Parts:
        """A language model beside an engine.

        Raises:
            HardwareError: memory is too small, or the device cannot run the precision.
        """
        parts = self.language(precision)
        chosen = replace(
            parts.chosen,
            engine=engine.name,
            precision=engine.precision,
            profiles=tuple(engine.profiles),
        )
        return replace(parts, chosen=chosen)

    def language(self, precision: LanguagePrecision) -> Parts:
        """A language model, as `parts` keeps it."""
        if self._parts is None or self._parts[0] != precision:
            self._parts = None
            free_memory(self.device)
            self._parts = precision, self._make_parts(precision)
        return self._parts[1]

    def close(self) -> None:
        """Free everything."""
        self._parts = None
        self._close_engine()

    def _close_engine(self) -> None:
        if self._engine is not None:
            self._engine[1].close()
            self._engine = None
        free_memory(self.device)

    def _make_engine(self, precision: str, kind: EngineKind) -> VisionEngine:
        try:
            tower = random_tower(self._shape.tower, self.device)
            if kind == "inductor":
                return self._open_package(tower, precision)
            if precision == "fp8":
                from vlmc.models.vision.fuse import fuse

                fused = fuse(tower, random_precision(tower, precision))
                return EagerEngine(fused, precision, self.device, BATCH)
            return eager_engine(tower, DTYPES[precision], precision, BATCH)
        except torch.OutOfMemoryError as error:
            raise _too_small(self.device, "the vision tower", error) from error

    def _open_package(self, tower: VisionTower, precision: str) -> VisionEngine:
        from vlmc.machine.aoti_environment import aoti_environment_of
        from vlmc.runtime.engines.inductor_engine import InductorEngine

        needs = aoti_environment_of(self.device)
        record = replace(
            _record("inductor", needs.target, precision), versions=dict(needs.versions())
        )
        fused_as = random_precision(tower, precision)
        return InductorEngine(self.packages[precision], record, tower, fused_as, self.device)

    def _make_parts(self, precision: LanguagePrecision) -> Parts:
        shape = self._shape
        try:
            decoder = random_decoder(shape.language, precision, self.device)
        except torch.OutOfMemoryError as error:
            raise _too_small(self.device, "the language model", error) from error
        template = TEMPLATES[shape.template]
        prompts = PromptBuilder(StandInTokenizer(shape.language.vocab_size), template)
        # Random weights may choose the stop token; every answer has the same length instead.
        prompts.stop_id = _NO_TOKEN
        record = _record("eager", str(self.device), precision)
        manifest = Manifest(
            name=self.name,
            vlmc=__version__,
            tools={},
            source={},
            hidden_size=shape.language.hidden_size,
            image=ImageRules("opencv", "ignore", TileRule("original"), TileRule("original")),
            prompt=PromptRules(template.name, template.system_message),
            language_scheme=precision if precision in ("fp8", "w4a16") else "none",
            language_dtype="float32" if precision == "fp32" else "bfloat16",
            calibration={},
            engines=(record,),
            payload={},
        )
        artifact = Artifact(Path("synthetic") / self.name, manifest, manifest.identity, {})
        layers = shape.tower.vision_layers
        return Parts(artifact, decoder, prompts, record, shape.vision, layers)


def _record(engine: str, target: str, precision: str) -> EngineRecord:
    return EngineRecord(
        engine=engine,
        target=target,
        precision=precision,
        file="",
        profiles=(BATCH,),
        versions={},
        device_memory_bytes=None,
        min_feature_cosine=1.0,
    )


def _too_small(device: torch.device, what: str, error: Exception) -> HardwareError:
    return HardwareError(
        f"{device} has too little memory free for {what} ({error}). End what else runs there, "
        "choose a smaller shape, or --language w4a16."
    )
