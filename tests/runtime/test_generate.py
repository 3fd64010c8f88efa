"""Answers are the same however the questions come in."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from tests import oracle
from vlmc import Answer, Model, load
from vlmc.runtime.requests.request import Request

Pictures = list[npt.NDArray[np.uint8]]
QUESTIONS = ("What is this?", "Is a fire extinguisher visible?", "请描述这张图片。", "x")


def alone(model: Model, request: Request, **options: float) -> Answer:
    (answer,) = model.generate([request], max_new_tokens=8, **options)  # type: ignore[arg-type]
    return answer


def ids(answers: list[Answer]) -> list[tuple[int, ...]]:
    return [answer.token_ids for answer in answers]


def mixed(pictures: Pictures) -> list[Request]:
    """Several questions on a picture, several pictures in a prompt, none at all."""
    one, two, three, *_ = pictures
    return [
        *((one, question) for question in QUESTIONS),
        *((two, question) for question in QUESTIONS),
        ([one, two], "Image-1: <image>\nImage-2: <image>\nWhich is brighter?"),
        ([one, two], "Image-1: <image>\nImage-2: <image>\nWhich is darker, and why?"),
        ([one, two], "Image-1: <image>\nImage-2:<image>\nWhich is darker, and why?"),
        ([two, one], "Image-1: <image>\nImage-2: <image>\nWhich is brighter?"),
        ([one, two], "Both?"),
        ([three], "Only one?"),
        (None, "Hello"),
        ([], "Hello"),
        (None, "Hello, what is 1?"),
        (one, QUESTIONS[0]),
        (three, "Before it <image> and after"),
        (three, "Before it <image> and after, at length"),
    ]


def test_together_as_one_by_one(model: Model, pictures: Pictures) -> None:
    requests = mixed(pictures)
    together = model.generate(requests, max_new_tokens=8)
    assert ids(list(model.stream(iter(requests), max_new_tokens=8))) == ids(together)
    single = [alone(model, request) for request in requests]
    assert ids(single) == ids(together)
    for one, other in zip(single, together, strict=True):
        assert (one.text, one.prompt_token_ids) == (other.text, other.prompt_token_ids)
        assert (one.finish_reason, one.image_tokens) == (other.finish_reason, other.image_tokens)
    assert len(set(ids(together))) > len(requests) / 2, "the model must tell them apart"


@pytest.mark.parametrize("name", ["phi3-300m", "llama-yi-6b"])
def test_together_as_one_by_one_in_other_families(
    name: str, artifacts: Callable[[str], Path], pictures: Pictures
) -> None:
    with load(artifacts(name), device="cpu", tiles="single") as model:
        requests = mixed(pictures)
        together = model.generate(requests, max_new_tokens=8)
        assert ids(together) == ids([alone(model, request) for request in requests])


def test_questions_on_both_sides_of_a_rope_window(
    artifacts: Callable[[str], Path], pictures: Pictures
) -> None:
    """Phi-3 takes other factors beyond 512 tokens, so such prompts share no keys."""
    with load(artifacts("phi3-300m"), device="cpu", tiles="single") as model:
        long = "Is a fire extinguisher visible? " * 24
        requests: list[Request] = [(pictures[0], text) for text in ("short", long, "short too")]
        together = model.generate(requests, max_new_tokens=8)
        lengths = [len(answer.prompt_token_ids) for answer in together]
        assert lengths[0] < 512 < lengths[1]
        assert ids(together) == ids([alone(model, request) for request in requests])


def test_image_may_be_path_bytes_or_array(model: Model, images: Path) -> None:
    path = images / "480x320.jpg"
    array = np.asarray(Image.open(path).convert("RGB"))
    kinds: list[Any] = [path, str(path), path.read_bytes(), array, [path], (array,)]
    answers = model.generate([(kind, "What is this?") for kind in kinds], max_new_tokens=8)
    assert len(set(ids(answers))) == 1
    for kind in kinds:
        assert alone(model, (kind, "What is this?")).token_ids == answers[0].token_ids


def test_answer_says_what_it_took(model: Model, pictures: Pictures) -> None:
    # Pictures that no other test has asked about, so that something has to be encoded.
    new = [255 - picture for picture in pictures[:3]]
    first, second, text = model.generate(
        [([new[0], new[1]], "Both?"), (new[2], "One?"), (None, "None?")], max_new_tokens=3
    )
    assert [answer.image_tokens for answer in (first, second, text)] == [512, 256, 0]
    for answer in (first, second, text):
        assert answer.engine == model.engine == "onnxruntime on cpu"
        assert answer.finish_reason == "length"
        assert len(answer.token_ids) == 3
        assert answer.prompt_token_ids[0] == 1  # BOS
        assert answer.timings.prepare_ms > 0 and answer.timings.prefill_ms > 0
    assert first.timings.vision_ms > 0
    assert first.prompt_token_ids.count(model_image_token(first)) == 512


def model_image_token(answer: Answer) -> int:
    """The most frequent token of a prompt with images."""
    return max(set(answer.prompt_token_ids), key=answer.prompt_token_ids.count)


def test_fewer_new_tokens_are_the_beginning(model: Model, pictures: Pictures) -> None:
    (long,) = model.generate([(pictures[0], "What?")], max_new_tokens=9)
    for count in (1, 2, 5):
        (short,) = model.generate([(pictures[0], "What?")], max_new_tokens=count)
        assert short.token_ids == long.token_ids[:count]
    assert len(model.generate([(pictures[0], "What?")])[0].token_ids) == 5  # the default


def test_stop_token_ends_the_answer(model: Model) -> None:
    chat = oracle.chat("internlm2-300m", "stop")
    requests: list[Request] = [(None, "Hello"), (None, chat.question), (None, "Hello")]
    before, stopped, after = model.generate(requests, max_new_tokens=16)
    assert stopped.finish_reason == "stop"
    assert list(stopped.token_ids) == chat.new_ids
    assert len(stopped.token_ids) < 16
    assert stopped.text == chat.answer
    assert before.finish_reason == after.finish_reason == "length"
    assert before.token_ids == after.token_ids
    (cut,) = model.generate([(None, chat.question)], max_new_tokens=len(chat.new_ids) - 1)
    assert cut.finish_reason == "length"


def test_row_that_stops_beside_rows_that_go_on(
    model: Model, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the stop token made one that a row of a shared group happens to produce."""
    requests: list[Request] = [(pictures[0], question) for question in QUESTIONS]
    free = ids(model.generate(requests, max_new_tokens=8))
    stop = free[1][2]
    assert any(stop not in whole for whole in free)
    monkeypatch.setattr(model._prompts, "stop_id", stop)
    monkeypatch.setattr(model._dispatcher.loop, "stop_id", stop)
    answers = model.generate(requests, max_new_tokens=8)
    for answer, whole in zip(answers, free, strict=True):
        end = whole.index(stop) + 1 if stop in whole else 8
        assert answer.token_ids == whole[:end]
        assert answer.finish_reason == ("stop" if stop in whole else "length")


def test_other_content_under_the_same_path(
    model: Model, pictures: Pictures, tmp_path: Path
) -> None:
    path = tmp_path / "picture.png"
    found, expected = [], []
    for picture in (pictures[0], pictures[1], pictures[0]):
        Image.fromarray(picture).save(path)
        found.append(alone(model, (path, "What is this?")).token_ids)
        expected.append(alone(model, (picture, "What is this?")).token_ids)
    assert found == expected
    assert found[0] == found[2] != found[1]


def test_array_changed_in_place_is_another_image(model: Model, pictures: Pictures) -> None:
    canvas = pictures[0].copy()
    first = alone(model, (canvas, "What is this?"))
    canvas[:] = pictures[1]
    assert alone(model, (canvas, "What is this?")).token_ids != first.token_ids
    canvas[:] = pictures[0]
    assert alone(model, (canvas, "What is this?")).token_ids == first.token_ids


def test_pictures_of_the_same_bytes_and_other_shapes_differ(model: Model) -> None:
    flat = np.arange(48 * 32 * 3, dtype=np.int64).astype(np.uint8)
    wide, tall = flat.reshape(32, 48, 3), flat.reshape(48, 32, 3)
    first, second = model.encode([wide, tall])
    assert not np.array_equal(first.numpy(), second.numpy())


def test_more_images_than_are_kept(model: Model, pictures: Pictures) -> None:
    requests: list[Request] = [(picture, "What is this?") for picture in pictures]
    first = ids(model.generate(requests, max_new_tokens=4))
    assert ids(model.generate(reversed(requests), max_new_tokens=4)) == first[::-1]
    (together,) = model.generate([(list(pictures), "All?")], max_new_tokens=4)
    assert together.image_tokens == 256 * len(pictures)
    (alone_again,) = model.generate([(list(pictures), "All?")], max_new_tokens=4)
    assert alone_again.token_ids == together.token_ids


def test_cached_images_are_not_computed_again(model: Model, pictures: Pictures) -> None:
    before = model.statistics
    buffer = io.BytesIO()
    Image.fromarray(pictures[5] // 2).save(buffer, "PNG")
    for question in QUESTIONS:
        model.generate([(buffer.getvalue(), question)])
    assert model.statistics.images_decoded == before.images_decoded + 1
    assert model.statistics.tiles_encoded == before.tiles_encoded + 1


def test_prepared_image_stands_for_its_image(model: Model, pictures: Pictures) -> None:
    """Its tiles in place of the pixels, and its features in place of the engine's."""
    one, other, question = pictures[0], pictures[1], QUESTIONS[0]
    expected = alone(model, (one, question))
    prepared = model.prepare_image(one)
    assert prepared.tiles.shape == (1, 448, 448, 3)
    assert ids([alone(model, (prepared, question))]) == ids([expected])
    features = model.vision.infer(torch.from_numpy(prepared.tiles)).flatten(0, 1)
    swapped = replace(model.prepare_image(other), digest=b"swapped", features=features)
    assert ids([alone(model, (swapped, question))]) == ids([expected])
    assert ids([alone(model, ([swapped, prepared], question))]) == ids(
        [alone(model, ([one, one], question))]
    )


def test_temperature_draws_and_seed_repeats(model: Model, pictures: Pictures) -> None:
    request: Request = (pictures[0], "What is this?")
    greedy = alone(model, request)
    drawn = {alone(model, request, temperature=1.5, seed=seed).token_ids for seed in range(8)}
    assert len(drawn) > 4
    for seed in (0, 3):
        first = alone(model, request, temperature=1.5, seed=seed)
        assert first.token_ids == alone(model, request, temperature=1.5, seed=seed).token_ids
        beside = model.generate(
            [(pictures[0], "Other"), request], max_new_tokens=8, temperature=1.5, seed=seed
        )
        assert beside[1].token_ids == first.token_ids, "a draw does not depend on its neighbours"
    for temperature in (1e-3, 1e-30, 1e-300):
        assert alone(model, request, temperature=temperature).token_ids == greedy.token_ids
