"""Counts of what a model computes, by request and since it was loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from torch import Tensor

from vlmc import Answer, Model, Statistics, load
from vlmc.errors import ImageError, UsageError
from vlmc.models.language.packed_batch import PackedBatch
from vlmc.models.language.packed_decoder import PackedDecoder
from vlmc.runtime.requests.request import Request

Pictures = list[npt.NDArray[np.uint8]]


@pytest.fixture
def fresh(artifact: Path) -> Iterator[Model]:
    """A model that has computed nothing."""
    with load(artifact, device="cpu", tiles="single") as loaded:
        yield loaded


def prompt_tokens(answers: list[Answer]) -> int:
    return sum(len(answer.prompt_token_ids) for answer in answers)


def image_token(answer: Answer) -> int:
    """The most frequent token of a prompt with images."""
    return max(set(answer.prompt_token_ids), key=answer.prompt_token_ids.count)


def check_prompts(statistics: Statistics, answers: list[Answer]) -> None:
    """The sums of the answers are the model's."""
    reused = sum(answer.prompt_tokens_reused for answer in answers)
    assert statistics.prompt_tokens_reused == reused
    assert statistics.prompt_tokens_computed == prompt_tokens(answers) - reused


def test_questions_on_one_image_share_it(fresh: Model, pictures: Pictures) -> None:
    assert fresh.statistics == Statistics()
    before = fresh.statistics
    answers = fresh.generate([(pictures[0], text) for text in ("What?", "Where is it?", "Who?")])
    assert before == Statistics(), "a snapshot stays as it is"
    # Requests are prepared side by side, so whichever comes first computes the image.
    first, *others = sorted(answers, key=lambda answer: answer.prompt_tokens_reused)
    assert first.prompt_tokens_reused == 0
    for answer in others:
        # The image up to its last full page, at most what the prompts have in common.
        assert 256 - 16 < answer.prompt_tokens_reused < len(answer.prompt_token_ids)
        shared = answer.prompt_tokens_reused
        assert answer.prompt_token_ids[:shared] == first.prompt_token_ids[:shared]
    assert (fresh.statistics.images_decoded, fresh.statistics.tiles_encoded) == (1, 1)
    assert fresh.statistics.new_tokens == sum(len(answer.token_ids) for answer in answers)
    check_prompts(fresh.statistics, answers)


def test_what_differs_is_computed(fresh: Model, pictures: Pictures) -> None:
    requests: list[Request] = [
        (pictures[0], "What?"),
        (pictures[1], "What?"),
        ([pictures[0], pictures[1]], "Both?"),
        (None, "Hello"),
    ]
    answers = fresh.generate(requests, max_new_tokens=2)
    # The system message at most. The first picture and the request with both share its beginning,
    # and either may come first.
    alone = answers[1]
    assert alone.prompt_tokens_reused <= alone.prompt_token_ids.index(image_token(alone))
    assert min(answers[0].prompt_tokens_reused, answers[2].prompt_tokens_reused) <= (
        alone.prompt_token_ids.index(image_token(alone))
    )
    assert (fresh.statistics.images_decoded, fresh.statistics.tiles_encoded) == (2, 2)
    check_prompts(fresh.statistics, answers)


def test_tiles_are_counted_not_images(artifact: Path, pictures: Pictures) -> None:
    with load(artifact, device="cpu", tiles="original") as model:
        (answer,) = model.generate([(pictures[0], "What?")])
        assert model.statistics.tiles_encoded == answer.image_tokens // 256 > 1
        assert model.statistics.images_decoded == 1


def test_scores_count_prompts_and_no_new_tokens(fresh: Model, pictures: Pictures) -> None:
    requests: list[Request] = [(pictures[0], "What?"), (pictures[0], "Where?")]
    scored = list(fresh.try_score(requests, choices=["yes", "no"]))
    answers = [result.answer for result in scored if not isinstance(result, Exception)]
    # Requests are prepared side by side, so whichever comes first computes the image.
    assert min(answer.prompt_tokens_reused for answer in answers) == 0
    assert max(answer.prompt_tokens_reused for answer in answers) >= 256
    assert fresh.statistics.new_tokens == 0
    check_prompts(fresh.statistics, answers)


def test_features_given_or_asked_for(fresh: Model, pictures: Pictures) -> None:
    (features,) = fresh.encode([pictures[0]])
    assert fresh.statistics == Statistics(images_decoded=1, tiles_encoded=1)
    fresh.encode([pictures[0]])
    given = replace(fresh.prepare_image(pictures[1]), features=features)
    fresh.generate([(given, "What?")], max_new_tokens=1)
    assert (fresh.statistics.images_decoded, fresh.statistics.tiles_encoded) == (2, 1)


def test_unusable_requests_count_what_was_decoded_for_them(
    fresh: Model, pictures: Pictures
) -> None:
    list(fresh.try_stream([([pictures[0], b"no image"], "What?")]))
    with pytest.raises(ImageError):
        fresh.generate([(b"no image", "What?")])
    assert fresh.statistics == Statistics(images_decoded=1)


def test_rows_that_share_no_keys_reuse_none(
    artifacts: Callable[[str], Path], pictures: Pictures
) -> None:
    """Phi-3 takes other factors beyond 512 tokens."""
    requests: list[Request] = [(pictures[0], text) for text in ("short", "Is it visible? " * 60)]
    with load(artifacts("phi3-300m"), device="cpu", tiles="single") as model:
        answers = model.generate(requests, max_new_tokens=1)
        assert model.statistics.prompt_tokens_reused == 0
        check_prompts(model.statistics, answers)


def test_fewer_tokens_pass_through_the_decoder(fresh: Model, pictures: Pictures) -> None:
    """What is counted as computed is what the layers are given."""
    forward, given = PackedDecoder.forward, []

    def counted(decoder: PackedDecoder, states: Tensor, batch: PackedBatch) -> Tensor:
        given.append(len(states))
        return forward(decoder, states, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackedDecoder, "forward", counted)
        fresh.generate([(pictures[0], "What?"), (pictures[0], "Where is it?")], max_new_tokens=1)
    assert sum(given) == fresh.statistics.prompt_tokens_computed


def test_closed_model_has_none(artifact: Path) -> None:
    with load(artifact, device="cpu", tiles="single") as model:
        pass
    with pytest.raises(UsageError, match="closed"):
        model.statistics  # noqa: B018
