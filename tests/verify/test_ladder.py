"""The ladder's figures: what falls where, in text and JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmc.verify.asking import NO_ANSWER
from vlmc.verify.dataset import Dataset, Question
from vlmc.verify.ladder import Rung, ladder_json, ladder_lines, make_rung, steepest
from vlmc.verify.metrics import NORMALIZE
from vlmc.verify.reference import Reference
from vlmc.verify.source import SourceAnswer


def rung(name: str, agreement: float) -> Rung:
    return Rung(name, recall=None, agreement=agreement, exact=agreement, qpm=60.0, n=10)


@pytest.mark.parametrize(
    ("agreements", "name"),
    [
        ([1, 1, 1, 1], None),
        ([1, 0.9, 0.95, 0.9], "b"),
        ([1, 0.95, 0.9, 0.5], "d"),
        ([1, 1, 0.4, 0.2], "c"),
        ([], None),
    ],
)
def test_the_steepest_fall_is_named(agreements: list[float], name: str | None) -> None:
    rungs = [rung(letter, value) for letter, value in zip("abcd", agreements, strict=False)]
    found = steepest(rungs)
    assert (found and found.name) == name
    values = ladder_json(rungs)
    assert (values and values["steepest"]) == name
    shown = "\n".join(ladder_lines(rungs))
    if rungs:
        assert shown.endswith(f"falls most at: {name}" if name else "agreement falls nowhere")
    else:
        assert values is None and not shown


def test_a_rung_compares_with_the_source_and_with_the_labels() -> None:
    questions, answers = [], {}
    for line, (label, said) in enumerate([("yes", "Yes."), ("yes", "yes"), ("no", "yes")]):
        path, digest = Path(f"{line}.jpg"), f"{line}"
        item = Question(line, (path,), (digest,), "A door?", label, "door", ("yes",))
        questions.append(item)
        answers[item.key] = SourceAnswer(said, -0.1)
    reference = object.__new__(Reference)
    object.__setattr__(reference, "answers", answers)
    dataset = Dataset(Path("eval.jsonl"), tuple(questions), "0" * 64, None)
    made = make_rung("vision engine", ["yes", NO_ANSWER, "no"], 2.0, dataset, reference, NORMALIZE)
    assert made == Rung("vision engine", 0.5, round(1 / 3, 6), qpm=90.0, exact=0.0, n=3)
    shown = "\n".join(ladder_lines([made]))
    assert "vision engine        0.3333  0.0000  0.5000" in shown and "90.0" in shown
