"""Answers: the source model's against those of the whole artifact, and both against the labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlmc.verify.dataset import Question
from vlmc.verify.metrics import (
    LabelledAnswer,
    PairedDrop,
    Scores,
    Share,
    is_found,
    is_positive,
    match_drop,
    normalize,
    recall_drop,
    score,
    score_by_question,
)
from vlmc.verify.source import SourceAnswer


@dataclass(frozen=True, slots=True)
class Pair:
    """A question with the source's answer and the artifact's."""

    question: Question
    reference: SourceAnswer
    answer: str

    def judged(self, answer: str) -> LabelledAnswer:
        """An answer beside the question's label."""
        item = self.question
        return LabelledAnswer(item.question, item.label or "", answer, item.positive)

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        item = self.question
        return {
            "line": item.line,
            "image": [str(path) for path in item.images]
            if item.images[1:]
            else str(item.images[0]),
            "prompt": item.prompt,
            "label": item.label,
            "reference": self.reference.text,
            "answer": self.answer,
            "reference_first_logprob": round(self.reference.first_logprob, 4),
        }


@dataclass(frozen=True, slots=True)
class AnswerCheck:
    """All pairs, compared after the steps of `normalize`."""

    pairs: tuple[Pair, ...]
    steps: tuple[str, ...]

    @property
    def agreement(self) -> Share:
        """Equal after normalizing."""
        return Share(len(self.pairs) - len(self.disagreements), len(self.pairs))

    @property
    def exact(self) -> Share:
        """Equal to the letter."""
        equal = sum(pair.reference.text == pair.answer for pair in self.pairs)
        return Share(equal, len(self.pairs))

    @property
    def disagreements(self) -> list[Pair]:
        """The worst first: finds that the artifact loses, then those the source was surest of."""
        differing = [
            pair
            for pair in self.pairs
            if normalize(pair.reference.text, self.steps) != normalize(pair.answer, self.steps)
        ]
        return sorted(differing, key=lambda p: (not self._is_lost(p), -p.reference.first_logprob))

    @property
    def drop(self) -> PairedDrop:
        """How far the recall of all positive labels falls from the source to the artifact."""
        return recall_drop(*self._sides(self._labelled), self.steps)

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        labelled = self._labelled
        values: dict[str, Any] = {
            "agreement": share_json(self.agreement),
            "exact_match": share_json(self.exact),
            "questions": {},
        }
        for name in sorted({pair.question.question for pair in self.pairs}):
            pairs = tuple(pair for pair in self.pairs if pair.question.question == name)
            part = AnswerCheck(pairs, self.steps)
            values["questions"][name] = {
                "agreement": share_json(part.agreement),
                "exact_match": share_json(part.exact),
            }
            if part.drop.n:
                values["questions"][name]["recall_drop"] = drop_json(part.drop)
        if labelled:
            reference, artifact = self._sides(labelled)
            values["recall_drop"] = drop_json(self.drop)
            values["match_drop"] = drop_json(match_drop(reference, artifact, self.steps))
            for side, judged in (("reference", reference), ("artifact", artifact)):
                values[side] = _scores_json(score(judged, self.steps))
                for name, scores in score_by_question(judged, self.steps).items():
                    values["questions"][name][side] = _scores_json(scores)
        return values

    @property
    def _labelled(self) -> list[Pair]:
        return [pair for pair in self.pairs if pair.question.label is not None]

    @staticmethod
    def _sides(pairs: Sequence[Pair]) -> tuple[list[LabelledAnswer], list[LabelledAnswer]]:
        return (
            [pair.judged(pair.reference.text) for pair in pairs],
            [pair.judged(pair.answer) for pair in pairs],
        )

    def _is_lost(self, pair: Pair) -> bool:
        before, after = pair.judged(pair.reference.text), pair.judged(pair.answer)
        return (
            is_positive(before, self.steps)
            and is_found(before, self.steps)
            and not is_found(after, self.steps)
        )


def share_json(share: Share) -> dict[str, Any]:
    """Value, n and Wilson's 95 % interval; the value is None of nothing."""
    return _plain(share.value, share.n, share.interval)


def drop_json(drop: PairedDrop) -> dict[str, Any]:
    """Value, n and the 95 % interval of Bonett and Price, with what was lost and gained, and the p
    of McNemar's exact test."""
    changes = {"lost": drop.lost, "gained": drop.gained, "mcnemar_p": round(drop.p_value, 6)}
    return _plain(drop.value, drop.n, drop.interval) | changes


def _plain(value: float, n: int, interval: tuple[float, float]) -> dict[str, Any]:
    low, high = interval
    shown = None if math.isnan(value) else round(value, 6)
    return {"value": shown, "n": n, "interval": [round(low, 6), round(high, 6)]}


def _scores_json(scores: Scores) -> dict[str, Any]:
    return {
        "exact": share_json(scores.exact),
        "recall": share_json(scores.recall),
        "precision": share_json(scores.precision),
        "f1": None if math.isnan(scores.f1) else round(scores.f1, 6),
    }
