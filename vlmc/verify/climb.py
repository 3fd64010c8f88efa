"""Climb the ladder: assemble the model of each rung, ask it every question, and free it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import torch

from vlmc.artifact.integrity import Artifact
from vlmc.artifact.manifest import EngineRecord, ImageRules, RuntimeRules
from vlmc.models.language.decoder import Decoder
from vlmc.runtime.assemble import assemble
from vlmc.runtime.engines.engine import VisionEngine
from vlmc.runtime.engines.lent import Lent
from vlmc.runtime.engines.selection import find_device, open_engine
from vlmc.runtime.load import open_language
from vlmc.text.prompt import PromptBuilder
from vlmc.verify.asking import Asked, ask
from vlmc.verify.dataset import Dataset
from vlmc.verify.ladder import RUNGS, Rung, make_rung
from vlmc.verify.reference import Reference
from vlmc.verify.source import PLAIN, Source

_SOURCE, _TILES, _RESAMPLER, _ENGINE, _LANGUAGE, _SERVED = RUNGS


class Climber:
    """Measures rungs of an artifact on one dataset, against one reference."""

    def __init__(
        self,
        artifact: Artifact,
        chosen: EngineRecord,
        dataset: Dataset,
        reference: Reference,
        steps: Sequence[str],
    ) -> None:
        self._artifact, self._chosen = artifact, chosen
        self._dataset, self._reference, self._steps = dataset, reference, steps

    def climb_source(self, source: Source) -> list[Rung]:
        """The rungs with the source's language model: the source itself, then the artifact's tile
        rule, its resampler and its vision engine.

        Raises:
            HardwareError: memory is too small, or the engine does not run.
        """
        manifest = self._artifact.manifest
        whole, plain = manifest.image, PLAIN
        only_tiles = ImageRules("pillow", "ignore", whole.tiles, whole.published, keep=whole.keep)
        language = source.decoder, source.prompts(whole.tokens_per_tile)
        texts = [self._reference.answers[item.key].text for item in self._dataset.questions]
        rungs = [self._rung(_SOURCE, texts, source.answer_seconds)]
        for name, rules in ((_TILES, only_tiles), (_RESAMPLER, whole)):
            rungs.append(self._measure(name, *language, source.tower, rules, plain))
        engine = open_engine(self._artifact, self._chosen, find_device("auto"))
        with closing(engine):
            rungs.append(self._measure(_ENGINE, *language, engine, whole, plain))
        return rungs

    def climb_artifact(self, served: Sequence[str]) -> list[Rung]:
        """The rungs with the artifact's language model: without graphs and reuse, and as it serves,
        which gave the answers `served` when it was checked.

        Raises:
            HardwareError: memory is too small, or the engine does not run.
        """
        manifest, device = self._artifact.manifest, find_device("auto")
        language = open_language(self._artifact, device)
        plain = replace(PLAIN, max_batch_tokens=manifest.runtime.max_batch_tokens)
        with closing(open_engine(self._artifact, self._chosen, device)) as engine:
            parts = *language, engine, manifest.image
            without = self._measure(_LANGUAGE, *parts, plain)
            # Again for its speed: its questions were checked with others beside them.
            seconds = self._ask(_SERVED, *parts, manifest.runtime).seconds
        return [without, self._rung(_SERVED, served, seconds)]

    def _measure(
        self,
        name: str,
        decoder: Decoder,
        prompts: PromptBuilder,
        engine: VisionEngine,
        image: ImageRules,
        rules: RuntimeRules,
    ) -> Rung:
        asked = self._ask(name, decoder, prompts, engine, image, rules)
        return self._rung(name, asked.texts, asked.seconds)

    def _ask(
        self,
        name: str,
        decoder: Decoder,
        prompts: PromptBuilder,
        engine: VisionEngine,
        image: ImageRules,
        rules: RuntimeRules,
    ) -> Asked:
        # The files stay as they were checked; only how images are read changes, for this model.
        manifest = replace(self._artifact.manifest, image=image)
        artifact = replace(self._artifact, manifest=manifest)
        with assemble(
            artifact, decoder, prompts, Lent(engine), self._chosen, tiles=image.tiles, rules=rules
        ) as model:
            found = ask(model, self._dataset, f"answers of the ladder: {name}")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # engines allocate beside torch's pool
        return found

    def _rung(self, name: str, texts: Sequence[str], seconds: float) -> Rung:
        return make_rung(name, texts, seconds, self._dataset, self._reference, self._steps)
