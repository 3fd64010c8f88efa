"""Where a disagreement arises: in the language model, the features, or the pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vlmc.artifact.manifest import ImageRules
from vlmc.image.decode import decode
from vlmc.image.preprocess import make_tiles
from vlmc.image.tiles import TileRule
from vlmc.runtime.images.cache import KEPT_FEATURE_BYTES, ContentCache
from vlmc.runtime.model import Model
from vlmc.runtime.requests.request import PreparedImage
from vlmc.verify.answers import Pair
from vlmc.verify.asking import NO_ANSWER, finite
from vlmc.verify.metrics import normalize
from vlmc.verify.source import MAX_NEW_TOKENS, SourceTower

Level = Literal["pixels", "features", "language"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A disagreement, the level at which it arises, and what the artifact's language model answers
    as the source's parts take the place of the artifact's."""

    pair: Pair
    level: Level
    cause: str
    answers: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        found = {"level": self.level, "cause": self.cause, "answers": self.answers}
        return self.pair.to_json() | found

    def line(self) -> str:
        """For people."""
        return (
            f"line {self.pair.question.line}: {self.pair.reference.text!r} became "
            f"{self.pair.answer!r} at the {self.level}: {self.cause}"
        )


class Explainer:
    """Asks again with parts of the source in place of the artifact's, from the last one back.

    The source's features into the artifact's language model: if the answer is not the source's
    then, the language model differs. Else the source's tiles into its vision engine: if not then,
    the engine. Else the tiles differ: by the rule if Pillow's tiles of the artifact's own rule do
    not bring the answer back, by the resampler if they do.
    """

    def __init__(
        self, model: Model, tower: SourceTower, published: TileRule, steps: Sequence[str]
    ) -> None:
        self._model, self._tower, self._published = model, tower, published
        self._rules: ImageRules = model.artifact.manifest.image
        self._steps = steps
        self._features: ContentCache[Tensor] = ContentCache(
            KEPT_FEATURE_BYTES, lambda features: features.nbytes
        )

    def explain(self, pair: Pair) -> Explanation:
        """Ask once or up to three times more."""
        answers: dict[str, str] = {}

        def agrees(what: str, images: list[PreparedImage]) -> bool:
            given = [(images, pair.question.prompt)]
            (answer,) = self._model.try_stream(given, max_new_tokens=MAX_NEW_TOKENS)
            found = finite(answer)
            answers[what] = text = NO_ANSWER if found is None else found.text
            return normalize(text, self._steps) == normalize(pair.reference.text, self._steps)

        if not agrees("source features", self._images(pair, self._published, self._encoded)):
            return Explanation(
                pair, "language", "with the source's features it answers differently too", answers
            )
        if not agrees("source tiles", self._images(pair, self._published)):
            return Explanation(
                pair,
                "features",
                "with the source's tiles the engine's features mislead it",
                answers,
            )
        tiles = self._model.tiles
        if tiles != self._published and not agrees("Pillow tiles", self._images(pair, tiles)):
            return Explanation(
                pair, "pixels", f"the tile rule {tiles} is not the source's", answers
            )
        return Explanation(
            pair,
            "pixels",
            f"the resampler {self._rules.resampler}, EXIF orientation: {self._rules.exif}, "
            f"high bit depth: {self._rules.high_bit_depth}",
            answers,
        )

    def _images(
        self,
        pair: Pair,
        rule: TileRule,
        encode: Callable[[bytes, npt.NDArray[np.uint8]], Tensor] | None = None,
    ) -> list[PreparedImage]:
        """The question's images as the source tiles them by `rule`."""
        images = []
        for path in pair.question.images:
            tiles = make_tiles(decode(path), rule, "pillow")
            # Of the tiles, not the file: the runtime keeps features by it.
            digest = hashlib.sha256(tiles.tobytes()).digest()
            features = None if encode is None else encode(digest, tiles)
            images.append(PreparedImage(digest, tiles, features))
        return images

    def _encoded(self, digest: bytes, tiles: npt.NDArray[np.uint8]) -> Tensor:
        """Features of the source's tower (256 · T, hidden), kept for an image's next question."""
        return self._features.get_or_compute(
            digest, lambda: self._tower.features(tiles).flatten(0, 1)
        )
