"""Recall against image tokens and speed: the same weights with other tile rules or kept tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from vlmc.artifact.manifest import ImageRules, RuntimeRules
from vlmc.errors import UsageError
from vlmc.image.tiles import MAX_TILES, TileRule
from vlmc.report.sweep import SweepPoint
from vlmc.verify.dataset import Dataset
from vlmc.verify.ladder import make_rung
from vlmc.verify.parts import Parts
from vlmc.verify.reference import Reference


@dataclass(frozen=True, slots=True)
class Setting:
    """One value of what is swept: the most tiles of an image, or the share of tokens kept."""

    name: str
    value: float

    @property
    def label(self) -> str:
        """As it is written in `--sweep`."""
        return f"{self.name}={self.value:g}"

    def of(self, image: ImageRules) -> ImageRules:
        """The rules with this value; a rule of one tile becomes the published one."""
        if self.name == "keep":
            return replace(image, keep=float(self.value))
        base = image.published if image.tiles.name == "single" else image.tiles
        if base.name == "single":
            raise UsageError(
                "the checkpoint was published with one tile for every image, and so is the "
                "artifact's rule, so --sweep tiles has nothing to vary; leave it out"
            )
        most = int(self.value)
        rule = TileRule(
            base.name, min(base.min, most), most, thumbnail=base.thumbnail, tolerance=base.tolerance
        )
        return replace(image, tiles=rule)


@dataclass(frozen=True, slots=True)
class MeasuredPoint(SweepPoint):
    """A setting, the mean tokens of an image, and what they bring.

    `recall` is None where the dataset has no positive label; `agreement` and `exact` are shares of
    the answers that the source gives by its own tile rule; `qpm` counts questions a minute.
    """

    qpm: float
    agreement: float
    exact: float
    n: int


def parse_sweeps(texts: Sequence[str]) -> list[Setting]:
    """Read `tiles=1,2,4` and `keep=1,0.5`.

    Raises:
        UsageError: names the text that cannot be read.
    """
    settings = []
    for text in texts:
        name, _, values = text.partition("=")
        try:
            if name == "tiles":
                found = [float(int(value)) for value in values.split(",")]
                sound = all(1 <= value <= MAX_TILES for value in found)
            elif name == "keep":
                found = [float(value) for value in values.split(",")]
                sound = all(0 < value <= 1 for value in found)
            else:
                sound = False
        except ValueError:
            sound = False
        if not sound:
            raise UsageError(
                f"--sweep {text!r} cannot be read; write tiles=1,2,4,6,12 (the most tiles of an "
                f"image, 1 to {MAX_TILES}) or keep=1,0.75,0.5 (the share of tokens kept)"
            )
        settings += [Setting(name, value) for value in found]
    return settings


def sweep(
    parts: Parts,
    settings: Sequence[Setting],
    rules: RuntimeRules,
    dataset: Dataset,
    reference: Reference,
    steps: Sequence[str],
) -> list[MeasuredPoint]:
    """Ask every question with each setting.

    Raises:
        HardwareError: memory is too small.
        UsageError: a setting does not fit the artifact.
    """
    image = parts.artifact.manifest.image
    varied = [setting.of(image) for setting in settings]
    points = []
    for setting, changed in zip(settings, varied, strict=True):
        asked = parts.ask(changed, rules, dataset, f"answers of the sweep: {setting.label}")
        rung = make_rung(setting.label, asked.texts, asked.seconds, dataset, reference, steps)
        tokens = [
            answer.image_tokens / len(question.images)
            for question, answer in zip(dataset.questions, asked.answers, strict=True)
            if answer is not None
        ]
        points.append(
            MeasuredPoint(
                label=setting.label,
                tokens_per_image=round(fmean(tokens), 1) if tokens else 0.0,
                recall=rung.recall,
                agreement=rung.agreement,
                exact=rung.exact,
                qpm=rung.qpm,
                n=rung.n,
            )
        )
    return points


def sweep_lines(points: Sequence[MeasuredPoint]) -> Iterator[str]:
    """The sweep for people."""
    if not points:
        return
    yield f"sweep       {'':12}tokens an image  recall  agreement   exact   questions a minute"
    for point in points:
        recall = "     -" if point.recall is None else f"{point.recall:.4f}"
        yield (
            f"            {point.label:12}{point.tokens_per_image:15,.0f}  {recall}     "
            f"{point.agreement:.4f}  {point.exact:.4f}{point.qpm:21,.1f}"
        )
