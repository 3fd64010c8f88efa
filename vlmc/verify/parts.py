"""Models that are assembled from the same weights, with images read in different ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from vlmc.artifact.integrity import Artifact
from vlmc.artifact.manifest import EngineRecord, ImageRules, Manifest, RuntimeRules
from vlmc.models.language.decoder import Decoder
from vlmc.runtime.assemble import assemble
from vlmc.runtime.engines.engine import VisionEngine
from vlmc.runtime.engines.lent import Lent
from vlmc.runtime.engines.selection import find_device, open_engine
from vlmc.runtime.language import open_language
from vlmc.text.prompt import PromptBuilder
from vlmc.text.template import TEMPLATES
from vlmc.text.tokenizer import load_tokenizer
from vlmc.verify.asking import Asked, ask
from vlmc.verify.dataset import Dataset
from vlmc.verify.source import Source
from vlmc.version import __version__


@dataclass(frozen=True, slots=True)
class Parts:
    """Weights to assemble models from; `prompts` builds prompts by the tokens of a tile."""

    artifact: Artifact
    chosen: EngineRecord
    decoder: Decoder
    engine: VisionEngine
    prompts: Callable[[int], PromptBuilder]

    def ask(self, image: ImageRules, rules: RuntimeRules, dataset: Dataset, what: str) -> Asked:
        """Ask a model that reads images by `image`; it is freed afterwards, the weights are not.

        Raises:
            HardwareError: memory is too small.
            VlmcError: an image or a prompt is not usable.
        """
        # The files stay as they were checked; only how images are read changes, for this model.
        artifact = replace(self.artifact, manifest=replace(self.artifact.manifest, image=image))
        with assemble(
            artifact,
            self.decoder,
            self.prompts(image.tokens_per_tile),
            Lent(self.engine),
            self.chosen,
            tiles=image.tiles,
            rules=rules,
        ) as model:
            found = ask(model, dataset, what)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # engines allocate beside torch's pool
        return found


@contextmanager
def artifact_parts(artifact: Artifact, chosen: EngineRecord) -> Iterator[Parts]:
    """The artifact's own weights.

    Raises:
        HardwareError: memory is too small, or the engine does not run.
    """
    device, rules = find_device("auto"), artifact.manifest.prompt
    decoder, _ = open_language(artifact, device)
    tokenizer = load_tokenizer(artifact.folder / "language")

    def prompts(tokens_per_tile: int) -> PromptBuilder:
        template = TEMPLATES[rules.template]
        return PromptBuilder(tokenizer, template, rules.system_message, tokens_per_tile)

    with closing(open_engine(artifact, chosen, device)) as engine:
        yield Parts(artifact, chosen, decoder, engine, prompts)


def source_parts(source: Source) -> Parts:
    """The source's own weights, as if they were an artifact's."""
    hidden = source.decoder.config.hidden_size
    manifest = Manifest(
        name="source",
        vlmc=__version__,
        tools={},
        source={},
        hidden_size=hidden,
        image=source.image_rules,
        prompt=source.prompt,
        language_scheme="none",
        language_dtype=cast(Any, source.dtype),
        calibration={},
        engines=(),
        payload={},
    )
    artifact = Artifact(Path("source"), manifest, manifest.identity, {})
    chosen = EngineRecord("source", str(source.tower.device), "fp32", "", (), {}, None, 1.0)
    return Parts(artifact, chosen, source.decoder, source.tower, source.prompts)
