"""Score thresholds that reach a recall: found on one half of the images, checked on the other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmc.artifact.integrity import Artifact, open_artifact
from vlmc.errors import AccuracyError, UsageError, VlmcError
from vlmc.files.atomic import write_atomically
from vlmc.progress.channel import report
from vlmc.progress.events import Progress
from vlmc.runtime.load import load
from vlmc.runtime.model import Model
from vlmc.runtime.requests.scores import Choose, Scored
from vlmc.runtime.requests.thresholds import FORMAT, Threshold, positive_probability
from vlmc.verify.accuracy_targets import read_accuracy_targets
from vlmc.verify.build_origin import find_dataset, read_build_origin
from vlmc.verify.dataset import Dataset, Question, read_dataset
from vlmc.verify.metrics import normalize
from vlmc.verify.threshold_search import (
    SEED,
    UNLIKELY,
    Found,
    Item,
    TooFewError,
    check,
    halves,
    search,
    share_text,
)


@dataclass(frozen=True, slots=True)
class RecallThresholds:
    """Thresholds of an artifact's questions for a recall; `without` says why others have none."""

    artifact: Artifact
    dataset: Dataset
    min_recall: float
    found: tuple[Found, ...]
    without: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """What `vlmc run --threshold` reads."""
        return {
            "format": FORMAT,
            "identity": self.artifact.identity,
            "tiles": str(self.artifact.manifest.image.tiles),
            "dataset": self.dataset.digest,
            "seed": SEED,
            "min_recall": self.min_recall,
            "questions": [one.to_json() for one in self.found],
            "without_threshold": self.without,
        }

    def lines(self) -> Iterator[str]:
        """The text form."""
        yield (
            f"thresholds for a recall of {self.min_recall:g}, found on one half of "
            f"{len(self.dataset.images)} images (seed {SEED}); on the other half:"
        )
        for one in self.found:
            yield from one.lines()
        for question, reason in self.without.items():
            yield f"{question}: no threshold, {reason}"

    def refuse_missed(self) -> None:
        """Raise `AccuracyError` where the other half shows that the recall is not reached."""
        missed = [one for one in self.found if one.chance < UNLIKELY]
        if missed:
            told = "; ".join(
                f"{one.threshold.question}: {share_text(one.recall)}" for one in missed
            )
            raise AccuracyError(
                f"the thresholds miss the recall of {self.min_recall:g} on the half of the images "
                f"where they were checked ({told}), by more than chance. Label more images, of all "
                "kinds that are asked about."
            )

    def write(self, path: Path) -> None:
        """Write the file for `vlmc run --threshold`, whole or not at all.

        Raises:
            UsageError: it cannot be written.
        """
        try:
            write_atomically(path, json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n")
        except OSError as error:
            raise UsageError(f"{path} cannot be written ({error.strerror})") from error


def find_thresholds(
    folder: Path,
    choices: Sequence[str],
    min_recall: float,
    *,
    engine: str | None = None,
    dataset: Path | None = None,
) -> RecallThresholds:
    """Score all questions that have positive labels, and find a threshold for each question.

    Args:
        choices: of the rows that name none themselves.
        min_recall: the recall to expect of new images, below 1.

    Raises:
        UsageError: choices and labels do not fit, or no question has positive labels enough.
        VlmcError: something is missing, damaged, or does not fit into the machine.
    """
    artifact = open_artifact(folder)
    targets = read_accuracy_targets(artifact)
    recorded = read_build_origin(artifact).dataset
    asked = read_dataset(find_dataset(dataset, recorded, targets))
    groups, without = _groups(asked, choices, targets.accuracy.normalize)
    if not groups:
        raise _nothing(asked, without)
    with load(artifact, engine=engine) as model:
        items = _score(model, asked, groups, targets.accuracy.normalize)
    found = []
    for group, scored in items.items():
        try:
            at = search(scored, min_recall)
        except TooFewError as error:
            without[group.question] = str(error)
        else:
            prompts = tuple(sorted({item.prompt for item in groups[group]}))
            threshold = Threshold(group.question, prompts, group.choices, group.positive, at)
            found.append(check(threshold, scored, min_recall))
    if not found:
        raise _nothing(asked, without)
    return RecallThresholds(artifact, asked, min_recall, tuple(found), without)


def _nothing(dataset: Dataset, without: dict[str, str]) -> UsageError:
    told = "; ".join(f"{name}: {reason}" for name, reason in without.items())
    return UsageError(f"{dataset.path} gives no threshold: {told or 'no row has positive labels'}")


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows that share a threshold: those of one question id, choices and positive choices."""

    question: str
    choices: tuple[str, ...]
    positive: tuple[str, ...]


def _groups(
    dataset: Dataset, choices: Sequence[str], steps: Sequence[str]
) -> tuple[dict[_Group, list[Question]], dict[str, str]]:
    """The rows that have positive labels, by what shares a threshold; and question ids that have
    none, with the reason."""
    without: dict[str, str] = {}
    groups: dict[_Group, list[Question]] = {}
    of_prompt: dict[str, _Group] = {}
    for item in dataset.questions:
        if not item.positive:
            continue
        own = item.choices or tuple(choices)
        words = {normalize(word, steps) for word in item.positive}
        positive = tuple(choice for choice in own if normalize(choice, steps) in words)
        if not positive or len(positive) == len(own):
            without[item.question or item.prompt] = (
                f"{'all' if positive else 'none'} of the choices {', '.join(own)} are positive in "
                f"line {item.line} ({', '.join(item.positive)})"
            )
            continue
        group = _Group(item.question or item.prompt, own, positive)
        if of_prompt.setdefault(item.prompt, group) != group:
            raise UsageError(
                f"{dataset.path}:{item.line}: the prompt {item.prompt!r} has another "
                "question id, choices or positive labels than in an earlier row; a prompt has one "
                "threshold, so make them equal"
            )
        groups.setdefault(group, []).append(item)
    return groups, without


def _score(
    model: Model, dataset: Dataset, groups: dict[_Group, list[Question]], steps: Sequence[str]
) -> dict[_Group, list[Item]]:
    sides = halves(dataset.questions)
    of = {item.line: group for group, questions in groups.items() for item in questions}
    asked = [item for item in dataset.questions if item.line in of]
    found: dict[_Group, list[Item]] = {group: [] for group in groups}
    requests = ((item.request, Choose(of[item.line].choices)) for item in asked)
    with closing(model.try_each(requests)) as outcomes:
        for done, (item, outcome) in enumerate(zip(asked, outcomes, strict=True), 1):
            if isinstance(outcome, VlmcError):
                raise outcome
            if not isinstance(outcome, Scored):
                raise TypeError(f"the model gave {outcome!r} for a score")
            group = of[item.line]
            score = positive_probability(outcome, group.positive)
            best = outcome.answer.text in group.positive
            words = {normalize(word, steps) for word in item.positive}
            true = normalize(item.label or "", steps) in words
            found[group].append(Item(score, true, best, sides[item.digests[0]]))
            report(Progress("questions scored", done, len(asked)))
    return found
