"""A request whose logits are NaN or infinite is its own error; the others are answered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from vlmc import Answer, Model
from vlmc.artifact.manifest import PromptRules
from vlmc.errors import AccuracyError, VlmcError
from vlmc.models.language.packed_decoder import PackedDecoder
from vlmc.runtime.requests.request import Request
from vlmc.text.template import TEMPLATES
from vlmc.verify.dataset import read_dataset
from vlmc.verify.source import open_source


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first row of every step has an infinite logit."""
    logits = PackedDecoder.logits

    def one_bad(decoder: PackedDecoder, states: Tensor) -> Tensor:
        found = logits(decoder, states)
        found[:1, 3] = float("inf")
        return found

    monkeypatch.setattr(PackedDecoder, "logits", one_bad)


def test_the_row_is_an_error_and_the_others_are_answered(
    model: Model, pictures: list[npt.NDArray[np.uint8]]
) -> None:
    good = model.prepare_image(pictures[0])
    bad = replace(good, features=torch.full((256, 64), torch.inf))
    asked: list[Request] = [(good, "What is this?"), (bad, "Is it?"), (good, "Why?")]
    expected = [model.generate([one], max_new_tokens=4)[0] for one in (asked[0], asked[2])]
    scores = model.score([asked[2]], choices=["yes", "no"])
    first, second, third = model.try_stream(asked, max_new_tokens=4)
    assert isinstance(first, Answer) and first.token_ids == expected[0].token_ids
    assert isinstance(third, Answer) and third.token_ids == expected[1].token_ids
    assert isinstance(second, VlmcError)
    assert "scores for this prompt are NaN or infinite" in str(second)
    one, two, three = model.try_score(asked, choices=["yes", "no"])
    assert isinstance(two, VlmcError) and not isinstance(one, VlmcError)
    assert not isinstance(three, VlmcError) and three.scores == pytest.approx(scores[0])
    with pytest.raises(VlmcError, match="NaN or infinite"):
        model.generate(asked)


def test_pages_before_a_bad_image_are_not_reused(
    model: Model, pictures: list[npt.NDArray[np.uint8]]
) -> None:
    """NaN of an image reaches the text before it, since 0 · NaN is NaN."""
    good = model.prepare_image(pictures[0])
    bad = replace(good, features=torch.full((256, 64), torch.nan))
    prompt = "Nobody has begun a question with so many words before: " * 8 + "<image>\nWhat is it?"
    for _ in range(2):
        (refused,) = model.try_stream([(bad, prompt)])
        assert isinstance(refused, VlmcError)
        (answer,) = model.generate([(good, prompt)])
        assert all(np.isfinite(answer.token_logprobs))


@pytest.mark.usefixtures("poisoned")
def test_a_source_whose_logits_are_not_finite_is_no_reference(
    miniature: Path, images: Path, tmp_path: Path
) -> None:
    lines = [f'{{"image": "{images}/448x448.jpg", "prompt": "{text}"}}\n' for text in ("a", "b")]
    (tmp_path / "eval.jsonl").write_text("".join(lines))
    rules = PromptRules("internlm2-chat", TEMPLATES["internlm2-chat"].system_message)
    with (
        open_source(miniature, rules, "float32") as source,
        pytest.raises(AccuracyError, match=r"source model cannot be compared .*reference_dtype"),
    ):
        list(source.answers(read_dataset(tmp_path / "eval.jsonl").questions))
