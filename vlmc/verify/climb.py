"""Climb the ladder: ask the model of each rung every question."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

from vlmc.artifact.integrity import Artifact
from vlmc.artifact.manifest import EngineRecord, ImageRules, RuntimeRules
from vlmc.runtime.engines.selection import find_device, open_engine
from vlmc.verify.dataset import Dataset
from vlmc.verify.ladder import RUNGS, Rung, make_rung
from vlmc.verify.parts import Parts, artifact_parts
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
        whole = self._artifact.manifest.image
        only_tiles = ImageRules("pillow", "ignore", whole.tiles, whole.published, keep=whole.keep)
        texts = [self._reference.answers[item.key].text for item in self._dataset.questions]
        parts = Parts(self._artifact, self._chosen, source.decoder, source.tower, source.prompts)
        rungs = [
            self._rung(_SOURCE, texts, source.answer_seconds),
            self._measure(_TILES, parts, only_tiles, PLAIN),
            self._measure(_RESAMPLER, parts, whole, PLAIN),
        ]
        with closing(open_engine(self._artifact, self._chosen, find_device("auto"))) as engine:
            parts = replace(parts, engine=engine)
            rungs.append(self._measure(_ENGINE, parts, whole, PLAIN))
        return rungs

    def climb_artifact(self, served: Sequence[str]) -> list[Rung]:
        """The rungs with the artifact's language model: without graphs and reuse, and as it serves,
        which gave the answers `served` when it was checked.

        Raises:
            HardwareError: memory is too small, or the engine does not run.
        """
        image, rules = self._artifact.manifest.image, self._artifact.manifest.runtime
        plain = replace(PLAIN, max_batch_tokens=rules.max_batch_tokens)
        with artifact_parts(self._artifact, self._chosen) as parts:
            without = self._measure(_LANGUAGE, parts, image, plain)
            # Again for its speed: its questions were checked with others beside them.
            seconds = parts.ask(image, rules, self._dataset, _progress(_SERVED)).seconds
        return [without, self._rung(_SERVED, served, seconds)]

    def _measure(self, name: str, parts: Parts, image: ImageRules, rules: RuntimeRules) -> Rung:
        asked = parts.ask(image, rules, self._dataset, _progress(name))
        return self._rung(name, asked.texts, asked.seconds)

    def _rung(self, name: str, texts: Sequence[str], seconds: float) -> Rung:
        return make_rung(name, texts, seconds, self._dataset, self._reference, self._steps)


def _progress(name: str) -> str:
    return f"answers of the ladder: {name}"
