"""Score thresholds of questions, which decide between positive choices and others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlmc.artifact.integrity import Artifact
from vlmc.errors import UsageError
from vlmc.files.bounded_read import MAX_BYTES, read_bytes
from vlmc.files.strict_json import parse_json
from vlmc.files.units import shorten
from vlmc.image.tiles import TileRule
from vlmc.runtime.requests.scores import Scored

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Threshold:
    """Of one question: `positive` is the answer where its probability among `choices` reaches
    `threshold`. It holds for the `prompts` that it was found with."""

    question: str
    prompts: tuple[str, ...]
    choices: tuple[str, ...]
    positive: tuple[str, ...]
    threshold: float

    def decide(self, scored: Scored) -> Scored:
        """The scores, with the likeliest positive choice as answer, or the likeliest other one."""
        shares = scored.scores.probabilities
        found = positive_probability(scored, self.positive) >= self.threshold
        side = [choice for choice in self.choices if (choice in self.positive) == found]
        text = max(side, key=shares.__getitem__)
        if text == scored.answer.text:
            return scored
        # Its tokens are those of the other choice.
        return replace(scored, answer=replace(scored.answer, text=text, token_ids=()))


@dataclass(frozen=True, slots=True)
class Thresholds:
    """A file of thresholds; `digest` is the SHA-256 of its content."""

    path: Path
    digest: str
    identity: str
    tiles: str
    questions: tuple[Threshold, ...]

    def check_artifact(self, artifact: Artifact, tiles: TileRule) -> None:
        """Raise `UsageError` unless the thresholds were found with this artifact and tile rule."""
        if (self.identity, self.tiles) != (artifact.identity, str(tiles)):
            raise UsageError(
                f"{self.path}: its thresholds are for the artifact {self.identity[:8]} with tiles "
                f"{self.tiles}, not for {artifact.identity[:8]} with tiles {tiles}. Find new ones "
                "with `vlmc verify accuracy --min-recall`."
            )

    def of(self, prompt: str) -> Threshold | None:
        """The threshold of a prompt's text."""
        return next((one for one in self.questions if prompt in one.prompts), None)

    def missing(self, prompt: str, question: str | None = None) -> UsageError:
        """The error of a prompt without a threshold."""
        name = prompt if question is None else question
        return UsageError(
            f"{self.path} has no threshold for the question {shorten(name)!r}, prompt "
            f"{shorten(prompt)!r}; it has some for "
            f"{', '.join(shorten(one.question, 40) for one in self.questions)}. Run the question "
            "without --threshold, or add labelled rows with this prompt and find thresholds again."
        )


def positive_probability(scored: Scored, positive: Sequence[str]) -> float:
    """The probability of the positive choices among all."""
    shares = scored.scores.probabilities
    return sum(shares[choice] for choice in positive)


def read_thresholds(path: Path) -> Thresholds:
    """Read the file that `vlmc verify accuracy --min-recall -o` wrote.

    Raises:
        UsageError: it cannot be read, or is not such a file.
    """
    try:
        data = read_bytes(path, MAX_BYTES)
        values = parse_json(data)
        if values["format"] != FORMAT:
            raise ValueError(f"its format is {values['format']!r}, this vlmc reads {FORMAT}")
        questions = tuple(map(_parse, values["questions"]))
        return Thresholds(
            path,
            hashlib.sha256(data).hexdigest(),
            str(values["identity"]),
            str(values["tiles"]),
            questions,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} is not a valid file of thresholds ({error!r:.200}). Make one with `vlmc "
            "verify accuracy ARTIFACT --choices A,B --min-recall 0.99 -o FILE`."
        ) from error


def _parse(values: dict[str, Any]) -> Threshold:
    texts = {key: tuple(values[key]) for key in ("prompts", "choices", "positive")}
    threshold = values["threshold"]
    if type(threshold) is not float or not 0 <= threshold <= 1:
        raise ValueError(f"{threshold!r} is not a probability")
    if not all(isinstance(text, str) for part in texts.values() for text in part):
        raise TypeError("its prompts and choices are not texts")
    if not texts["positive"] or not set(texts["positive"]) < set(texts["choices"]):
        raise ValueError("its positive choices are none or all of its choices")
    return Threshold(question=str(values["question"]), threshold=threshold, **texts)
