"""The gate: what was measured against the recipe's thresholds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from vlmc.verify.answers import AnswerCheck
from vlmc.verify.asking import NO_ANSWER
from vlmc.verify.divergence import DivergenceCheck
from vlmc.verify.features import FeatureCheck
from vlmc.verify.pixels import PixelCheck

_TOLD = 5


@dataclass(frozen=True, slots=True)
class Thresholds:
    """As the artifact's recipe has them; the cosine is the engine's, of the worst tile."""

    min_feature_cosine: float
    min_answer_agreement: float
    max_recall_drop: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """One threshold. The point estimate decides; `underpowered` where the 95 % interval reaches
    to its other side, so that n cannot support what the point says."""

    name: str
    passed: bool
    value: float | None  # None where there is nothing to measure
    threshold: float | None
    interval: tuple[float, float] | None
    n: int
    underpowered: bool

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "name": self.name,
            "passed": self.passed,
            "value": self.value,
            "threshold": self.threshold,
            "interval": None if self.interval is None else list(self.interval),
            "n": self.n,
            "underpowered": self.underpowered,
        }

    def line(self) -> str:
        """For people."""
        if self.name == "pixels":
            return f"{'passed' if self.passed else 'FAILED'}  pixels, of {self.n} images"
        if self.name == "finite":
            return f"FAILED  finite: scores that are NaN or infinite, n {self.n}"
        if self.value is None:
            return f"------  {self.name}: not judged, the dataset has no positive label"
        digits = 6 if self.name == "min_feature_cosine" else 4
        shown = f"{self.value:.{digits}f}"
        side = "at most" if self.name.startswith("max") else "at least"
        interval = "" if self.interval is None else " [{:.4f}, {:.4f}]".format(*self.interval)
        weak = ", underpowered" if self.underpowered else ""
        state = "passed" if self.passed else "FAILED"
        return (
            f"{state}  {self.name}: {shown}{interval}, {side} {self.threshold:g}, n {self.n}{weak}"
        )


@dataclass(frozen=True, slots=True)
class Checked:
    """The three levels of one engine, and its thresholds."""

    pixels: PixelCheck
    features: FeatureCheck
    answers: AnswerCheck
    thresholds: Thresholds
    divergence: DivergenceCheck | None = None  # None where the reference has no probabilities

    def verdicts(self) -> list[Verdict]:
        """Pixels, features, agreement and recall; and answers without finite scores, if any."""
        found = [self._pixels(), self._features(), self._agreement(), self._recall()]
        return [*found, *self._not_finite()]

    @property
    def failed(self) -> list[Verdict]:
        """The thresholds that are not met."""
        return [verdict for verdict in self.verdicts() if not verdict.passed]

    @property
    def underpowered(self) -> list[Verdict]:
        """The thresholds for which there are too few questions."""
        return [verdict for verdict in self.verdicts() if verdict.underpowered]

    def reasons(self) -> list[str]:
        """What failed, each with its worst cases."""
        lines = []
        for verdict in self.failed:
            lines.append(verdict.line().removeprefix("FAILED  "))
            lines += [f"  {case}" for case in self._cases(verdict.name)]
        return lines

    def _cases(self, name: str) -> list[str]:
        if name == "pixels":
            return [
                f"{image}: {why}"
                for image, why in [*self.pixels.wrong.items(), *self.pixels.moved.items()][:_TOLD]
            ]
        if name == "min_feature_cosine":
            below = self.thresholds.min_feature_cosine
            return [
                f"tile {tile['tile']} of image {tile['image'][:12]}: cosine {tile['cosine']:.6f} "
                f"in a batch of {tile['batch_tiles']}"
                for tile in self.features.worst_tiles(below)[:_TOLD]
            ]
        pairs = self.answers.disagreements
        if name == "finite":
            pairs = [pair for pair in pairs if pair.answer == NO_ANSWER]
        return [
            f"line {pair.question.line}, {', '.join(map(str, pair.question.images))}, "
            f"{pair.question.prompt!r}: source {pair.reference.text!r}, artifact {pair.answer!r}"
            for pair in pairs[:_TOLD]
        ]

    def _pixels(self) -> Verdict:
        passed = not (self.pixels.wrong or self.pixels.moved)
        return Verdict("pixels", passed, None, None, None, self.pixels.images, False)

    def _features(self) -> Verdict:
        least, worst = self.thresholds.min_feature_cosine, self.features.worst
        count = len(self.features.tiles)
        return Verdict("min_feature_cosine", worst >= least, worst, least, None, count, False)

    def _not_finite(self) -> list[Verdict]:
        """However few they are, the artifact computes what no model means."""
        answers = [pair.answer for pair in self.answers.pairs]
        count = answers.count(NO_ANSWER)
        return [Verdict("finite", False, None, None, None, count, False)] if count else []

    def _agreement(self) -> Verdict:
        least, share = self.thresholds.min_answer_agreement, self.answers.agreement
        return Verdict(
            "min_answer_agreement",
            share.value >= least,
            share.value,
            least,
            share.interval,
            share.n,
            share.value >= least > share.interval[0],
        )

    def _recall(self) -> Verdict:
        most, drop = self.thresholds.max_recall_drop, self.answers.drop
        if math.isnan(drop.value):
            return Verdict("max_recall_drop", True, None, most, None, 0, True)
        return Verdict(
            "max_recall_drop",
            drop.value <= most,
            drop.value,
            most,
            drop.interval,
            drop.n,
            drop.value <= most < drop.interval[1],
        )
