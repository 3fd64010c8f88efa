"""Scores are log-probabilities of the choices, consistent with what the model would say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.models import loaded
from tests.runtime.reference import log_probability
from vlmc import Model
from vlmc.errors import PromptError, UsageError
from vlmc.runtime.requests.request import Request

Pictures = list[npt.NDArray[np.uint8]]
CHOICES = ["yes", "no", "red square", "圆", "0"]


def ids_of(checkpoint: Path, choice: str) -> tuple[int, ...]:
    """Tokens of a choice."""
    return loaded.load(checkpoint).prompts.choice_ids(choice)


def test_scores_are_log_probabilities(model: Model, miniature: Path, pictures: Pictures) -> None:
    requests: list[Request] = [
        (pictures[0], "What is this?"),
        (pictures[0], "Is it a circle, a square or a number?"),
        ([pictures[1], pictures[2]], "Both?"),
        (None, "Hello"),
    ]
    assert len({len(ids_of(miniature, choice)) for choice in CHOICES}) > 2
    scores = model.score(requests, choices=CHOICES)
    for request, found in zip(requests, scores, strict=True):
        assert list(found) == CHOICES
        for choice, value in found.items():
            assert value == pytest.approx(
                log_probability(model, miniature, request, choice), abs=1e-4
            )
        alone = model.score([request], choices=CHOICES[::-1])[0]
        assert found == pytest.approx(alone, abs=1e-4)


def test_best_single_token_is_what_the_model_would_say(
    model: Model, miniature: Path, pictures: Pictures
) -> None:
    requests: list[Request] = [(picture, "What is this?") for picture in pictures]
    greedy = model.generate(requests, max_new_tokens=1)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    single = [letter for letter in letters if len(ids_of(miniature, letter)) == 1]
    # With the model's own first token among the choices, none is likelier.
    said = {answer.text: answer.token_ids for answer in greedy}
    said = {
        text: ids
        for text, ids in said.items()
        if text and text not in single and ids_of(miniature, text) == ids
    }
    assert said, "no first token that is a choice of its own"
    choices = [*single, *said]
    results = list(model.try_score(requests, choices=choices))
    checked = 0
    for answer, result in zip(greedy, results, strict=True):
        assert not isinstance(result, Exception)
        assert result.answer.finish_reason == "choice"
        assert result.answer.text == max(result.scores, key=result.scores.__getitem__)
        assert result.answer.token_ids == ids_of(miniature, result.answer.text)
        assert result.answer.prompt_token_ids == answer.prompt_token_ids
        if answer.token_ids in said.values():
            assert result.answer.token_ids == answer.token_ids
            checked += 1
    assert checked


@pytest.mark.parametrize("choices", [[], ["yes", "yes"], "yes"], ids=str)
def test_choices_must_be_different_texts(choices: list[str], model: Model) -> None:
    with pytest.raises(UsageError, match="choices must be different texts"):
        model.score([(None, "Hello")], choices=choices)


def test_empty_choice_has_no_tokens(model: Model) -> None:
    with pytest.raises(PromptError, match="makes no tokens of its own"):
        model.score([(None, "Hello")], choices=["yes", ""])
