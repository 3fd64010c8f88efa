"""Results of verifications of given answers, without running a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlmc.artifact.integrity import open_artifact
from vlmc.report.ladder import LadderRung
from vlmc.report.sweep import SweepPoint
from vlmc.verify.answers import AnswerCheck, Pair
from vlmc.verify.dataset import Dataset, Question
from vlmc.verify.divergence import DivergenceCheck
from vlmc.verify.explanation import Explanation
from vlmc.verify.features import FeatureCheck
from vlmc.verify.gate import Checked, Thresholds
from vlmc.verify.metrics import NORMALIZE
from vlmc.verify.pixels import PixelCheck, SampleTile
from vlmc.verify.reference import Reference
from vlmc.verify.report import Verified
from vlmc.verify.source import SourceAnswer


@dataclass(frozen=True, slots=True)
class Given:
    """One question as it was answered; the source's first token has `probability`."""

    images: tuple[Path, ...]
    question: str
    label: str | None
    source: str
    artifact: str
    positive: tuple[str, ...] = ("yes",)
    prompt: str = "Is it there?"
    probability: float = 0.9

    def pair(self, line: int) -> Pair:
        positive = () if self.label is None else self.positive
        digests = tuple(str(path) for path in self.images)
        question = Question(
            line, self.images, digests, self.prompt, self.label, self.question, positive
        )
        logprob = math.log(self.probability)
        # The second likeliest token is half as likely.
        top = (((1, 2), (logprob, logprob - math.log(2))),)
        return Pair(question, SourceAnswer(self.source, logprob, (1,), top), self.artifact)


def verified(
    artifact: Path,
    given: Sequence[Given],
    *,
    cosines: Sequence[float] = (0.9999999,),
    divergences: Sequence[float] | None = None,
    explained: str | None = None,
    ladder: tuple[LadderRung, ...] = (),
    sweep: tuple[SweepPoint, ...] = (),
    dataset: str = "eval.jsonl",
) -> Verified:
    """What `verify_accuracy` returns, of an artifact's folder and of answers.

    `explained` is the cause that every disagreement is given.
    """
    opened = open_artifact(artifact)
    pairs = tuple(one.pair(line) for line, one in enumerate(given, 1))
    tiles = tuple(SampleTile("ab" * 32, index) for index in range(len(cosines)))
    check = AnswerCheck(pairs, NORMALIZE)
    first = [0.0] * len(pairs) if divergences is None else divergences
    checked = Checked(
        PixelCheck(images=1, tiles=1),
        FeatureCheck(tiles, {1: np.array(cosines, np.float64)}),
        check,
        Thresholds(0.99999, 0.95, 0.01),
        DivergenceCheck(tuple((value,) for value in first)),
    )
    explanations = (
        ()
        if explained is None
        else tuple(
            Explanation(pair, "language", explained, {"source features": explained})
            for pair in check.disagreements
        )
    )
    reference = Reference(
        source={},
        dtype="float32",
        device="cpu",
        template="internlm2-chat",
        system_message="",
        dataset="",
        dataset_path="",
        grids={},
        answers={},
        places=(),
        tiles=np.zeros((0, 448, 448, 3), np.uint8),
        features=np.zeros((0, 256, 8), np.float32),
    )
    questions = tuple(pair.question for pair in pairs)
    return Verified(
        opened,
        opened.manifest.engines[0],
        reference,
        Path("checkpoint"),
        Dataset(Path(dataset), questions, "cd" * 32, None),
        checked,
        explanations,
        ladder,
        sweep,
    )
