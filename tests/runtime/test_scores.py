"""What scores hold: log-probabilities, tokens counted, means and probabilities."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.models import loaded
from tests.runtime.reference import log_probability
from vlmc import Model, Scores
from vlmc.errors import UsageError
from vlmc.runtime.requests.request import Request
from vlmc.runtime.requests.scores import MEASURES

SCORES = Scores({"no": -3.0, "not at all": -4.0, "yes": -5.0}, {"no": 1, "not at all": 4, "yes": 1})


def test_measures_by_hand() -> None:
    assert SCORES.by("logprob") == SCORES == {"no": -3.0, "not at all": -4.0, "yes": -5.0}
    assert SCORES.by("mean") == {"no": -3.0, "not at all": -1.0, "yes": -5.0}
    total = math.exp(-3) + math.exp(-4) + math.exp(-5)
    assert SCORES.by("probability") == pytest.approx(
        {
            "no": math.exp(-3) / total,
            "not at all": math.exp(-4) / total,
            "yes": math.exp(-5) / total,
        }
    )
    assert [SCORES.best(measure) for measure in MEASURES] == ["no", "not at all", "no"]
    assert json.loads(json.dumps(SCORES)) == SCORES


def test_probabilities_of_very_unlikely_choices_add_up_to_one() -> None:
    scores = Scores({"a": -2000.0, "b": -2000.0 - math.log(3)}, {"a": 1, "b": 1})
    assert scores.probabilities == pytest.approx({"a": 0.75, "b": 0.25})


def test_equal_probabilities_keep_the_order_of_log_probabilities() -> None:
    scores = Scores({"a": -40.0, "b": -1e-17, "c": 0.0}, dict.fromkeys("abc", 1))
    assert scores.probabilities["b"] == scores.probabilities["c"]
    assert scores.best("probability") == scores.best("logprob") == "c"


@pytest.mark.parametrize("choices", [["yes", "red square", "圆"], ["9", "91"]], ids=str)
def test_measures_are_those_of_the_reference(
    choices: list[str], model: Model, miniature: Path, pictures: list[npt.NDArray[np.uint8]]
) -> None:
    request: Request = (pictures[0], "What is this?")
    prompts = loaded.load(miniature).prompts
    ids = [prompts.choice_ids(choice) for choice in choices]
    begins = any(b[: len(a)] == a for a in ids for b in ids if a is not b)
    assert begins == (choices == ["9", "91"])
    end = (prompts.stop_id,) if begins else ()
    sums = {choice: log_probability(model, miniature, request, choice, end) for choice in choices}
    counts = {choice: len(own) + len(end) for choice, own in zip(choices, ids, strict=True)}
    (scores,) = model.score([request], choices=choices)
    assert scores.tokens == counts and len(set(counts.values())) > 1
    assert scores == pytest.approx(sums, abs=1e-4)
    means = {choice: sums[choice] / counts[choice] for choice in choices}
    assert scores.means == pytest.approx(means, abs=1e-4)
    total = sum(map(math.exp, sums.values()))
    shares = {choice: math.exp(value) / total for choice, value in sums.items()}
    assert scores.probabilities == pytest.approx(shares, abs=1e-4)
    for measure, values in (("logprob", sums), ("mean", means), ("probability", shares)):
        (scored,) = model.try_score([request], choices=choices, measure=measure)  # type: ignore[arg-type]
        assert not isinstance(scored, Exception)
        assert scored.answer.text == max(values, key=values.__getitem__)


def test_an_unknown_measure_is_refused(model: Model) -> None:
    with pytest.raises(UsageError, match="'total'; it must be logprob or mean or probability"):
        model.try_score([(None, "Hello")], choices=["yes"], measure="total")  # type: ignore[arg-type]
