"""Two artifacts, question by question, without a source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmc.artifact.integrity import Artifact, open_artifact
from vlmc.errors import AccuracyError
from vlmc.runtime.load import load
from vlmc.runtime.requests.answer import Answer
from vlmc.verify.accuracy_targets import read_accuracy_targets
from vlmc.verify.answers import AnswerCheck, Pair
from vlmc.verify.asking import ask
from vlmc.verify.build_origin import find_dataset, read_build_origin
from vlmc.verify.dataset import Dataset, read_dataset
from vlmc.verify.report import answer_lines
from vlmc.verify.source import SourceAnswer

_LISTED = 20


@dataclass(frozen=True, slots=True)
class Side:
    """An artifact and how it was asked."""

    artifact: Artifact
    engine: str
    answers: tuple[Answer, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        manifest = self.artifact.manifest
        return {
            "artifact": str(self.artifact.folder),
            "identity": self.artifact.identity,
            "engine": self.engine,
            "tiles": str(manifest.image.tiles),
            "qpm": round(60 * len(self.answers) / self.seconds, 1),
        }

    def line(self) -> str:
        """For people."""
        values = self.to_json()
        return (
            f"{values['artifact']}, identity {self.artifact.identity[:8]}, {self.engine}, "
            f"tiles {values['tiles']}, {values['qpm']:,.1f} questions a minute"
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """The answers of an artifact beside those of another; `check` has the other as reference."""

    artifact: Side
    against: Side
    dataset: Dataset
    check: AnswerCheck

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        answers = self.check.to_json()
        for values in (answers, *answers["questions"].values()):
            if "reference" in values:
                values["against"] = values.pop("reference")
        disagreements = [pair.to_json() for pair in self.check.disagreements]
        for values in disagreements:
            values["against"] = values.pop("reference")
            values["against_first_logprob"] = values.pop("reference_first_logprob")
        return {
            "artifact": self.artifact.to_json(),
            "against": self.against.to_json(),
            "dataset": self.dataset.to_json(),
            "answers": answers,
            "disagreements": disagreements,
        }

    def lines(self) -> Iterator[str]:
        """The text form."""
        yield f"artifact    {self.artifact.line()}"
        yield f"against     {self.against.line()}"
        dataset = self.dataset
        first = "" if dataset.limit is None else f", the first {dataset.limit} of the file"
        yield (
            f"dataset     {dataset.path}, {len(dataset.questions)} questions on "
            f"{len(dataset.images)} images{first}"
        )
        yield from answer_lines(self.check, "against")
        disagreements = self.check.disagreements
        for pair in disagreements[:_LISTED]:
            item = pair.question
            yield (
                f"line {item.line}: {', '.join(map(str, item.images))}, {item.prompt!r}, label "
                f"{item.label!r}: {pair.reference.text!r} became {pair.answer!r}"
            )
        if disagreements[_LISTED:]:
            yield f"and {len(disagreements) - _LISTED} more; --json lists all"


def compare_artifacts(
    folder: Path,
    against: Path,
    *,
    engine: str | None = None,
    dataset: Path | None = None,
    limit: int | None = None,
) -> Comparison:
    """Ask both artifacts all questions, one after the other.

    Answers are normalized as the recipe of `folder` says. `engine` is for both.

    Raises:
        AccuracyError: an answer's scores are NaN or infinite.
        VlmcError: something is missing, damaged, or does not fit into the machine.
    """
    opened, other = open_artifact(folder), open_artifact(against)
    targets = read_accuracy_targets(opened)
    built_with = read_build_origin(opened).dataset or read_build_origin(other).dataset
    asked = read_dataset(find_dataset(dataset, built_with, targets), limit)
    first, second = (_ask(artifact, engine, asked) for artifact in (other, opened))
    pairs = tuple(
        Pair(question, SourceAnswer(before.text, before.token_logprobs[0]), after.text)
        for question, before, after in zip(
            asked.questions, first.answers, second.answers, strict=True
        )
    )
    return Comparison(second, first, asked, AnswerCheck(pairs, targets.accuracy.normalize))


def _ask(artifact: Artifact, engine: str | None, dataset: Dataset) -> Side:
    with load(artifact, engine=engine) as model:
        asked = ask(model, dataset, f"answers of {artifact.manifest.name}")
        used = model.engine
    answers = []
    for question, answer in zip(dataset.questions, asked.answers, strict=True):
        if answer is None:
            raise AccuracyError(
                f"{artifact.folder} has no answer to line {question.line} of {dataset.path}: its "
                "scores are NaN or infinite. Verify it with its source and --explain to find out "
                "which part computes them."
            )
        answers.append(answer)
    return Side(artifact, used, tuple(answers), asked.seconds)
