"""Streams: errors in their place, bounded look-ahead, one thread at a time, nothing left behind."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.runtime.conftest import own_threads
from vlmc import Answer, Model, load
from vlmc.errors import ImageError, PromptError, UsageError, VlmcError
from vlmc.runtime.dispatcher import MOST_AHEAD
from vlmc.runtime.requests.request import Request

Pictures = list[npt.NDArray[np.uint8]]


class Counted:
    """Requests that know how many of them have been taken."""

    def __init__(self, requests: list[Request]) -> None:
        self._requests, self.taken = requests, 0
        self.threads: set[int] = set()

    def __iter__(self) -> Iterator[Request]:
        for request in self._requests:
            self.taken += 1
            self.threads.add(threading.get_ident())
            yield request


def bad_requests(picture: npt.NDArray[np.uint8], images: Path, tmp_path: Path) -> list[object]:
    cut = tmp_path / "cut.jpg"
    cut.write_bytes((images / "480x320.jpg").read_bytes()[:400])
    return [
        (tmp_path / "missing.jpg", "What?"),
        (cut, "What?"),
        (b"no image", "What?"),
        (picture.astype(np.float32), "What?"),
        (picture[:, :, :2], "What?"),
        ([picture, cut], "What?"),
        (picture, "<image> and <image>"),
        (None, "<image>"),
        ([picture, picture], "only <image>"),
        (picture, "<IMG_CONTEXT>"),
        (picture, "half a pair \ud800"),
        (picture, 7),
        (picture,),
        "picture.jpg",
        {"image": picture},
        (7, "What?"),
        ([7], "What?"),
    ]


def test_errors_come_in_their_place(
    model: Model, pictures: Pictures, images: Path, tmp_path: Path
) -> None:
    good: Request = (pictures[0], "What is this?")
    bad = bad_requests(pictures[0], images, tmp_path)
    requests = [request for other in bad for request in (good, other)]
    results = list(model.try_stream(requests, max_new_tokens=2))  # type: ignore[arg-type]
    assert len(results) == len(requests)
    (expected,) = model.generate([good], max_new_tokens=2)
    for index, result in enumerate(results):
        if index % 2 == 0:
            assert isinstance(result, Answer)
            assert result.token_ids == expected.token_ids
        else:
            assert isinstance(result, ImageError | PromptError | UsageError), bad[index // 2]
            assert str(result)
    scored = list(model.try_score(requests, choices=["yes", "no"]))  # type: ignore[arg-type]
    kinds = [isinstance(result, VlmcError) for result in scored]
    assert kinds == [False, True] * len(bad)


def test_stream_raises_when_its_turn_comes(model: Model, pictures: Pictures) -> None:
    requests: list[Request] = [(pictures[0], "What?"), (b"no image", "x"), (pictures[1], "What?")]
    stream = model.stream(requests)
    assert isinstance(next(stream), Answer)
    with pytest.raises(ImageError) as caught:
        next(stream)
    # Even while the traceback is kept, which holds the frames.
    assert caught.value.__traceback__ is not None
    with pytest.raises(ImageError):
        model.generate(requests)
    with pytest.raises(ImageError):
        model.score(requests, choices=["yes", "no"])


@pytest.mark.parametrize("alike", [True, False], ids=["one image", "many images"])
def test_look_ahead_is_bounded(alike: bool, model: Model, pictures: Pictures) -> None:
    total = 3 * MOST_AHEAD // 2
    prepared = [model.prepare_image(picture) for picture in pictures]
    # Of few tokens, and without the tower: how far it reads does not depend on what it reads.
    images = [replace(image, features=torch.zeros(256, 64)) for image in prepared]
    requests: list[Request] = [
        (images[0 if alike else index % len(images)], f"What is {index}?") for index in range(total)
    ]
    counted = Counted(requests)
    stream = model.stream(counted, max_new_tokens=1)
    assert counted.taken == 0, "nothing happens before the first answer is asked for"
    for done, _ in enumerate(stream, 1):
        assert counted.taken - done <= MOST_AHEAD
    assert done == counted.taken == total
    assert counted.threads == {threading.get_ident()}, "inputs are read on the caller's thread"


@pytest.mark.parametrize("how", ["closed", "dropped", "failed input", "score"])
def test_stream_left_early_is_not_computed(how: str, model: Model, pictures: Pictures) -> None:
    taken = []

    def requests() -> Iterator[Request]:
        for index in range(1000):
            if how == "failed input" and index == 40:
                raise LookupError("the caller's own")
            taken.append(index)
            yield pictures[0], f"What is {index}?"

    if how == "score":
        scores = model.try_score(requests(), choices=["yes", "no"])
        next(scores)
        scores.close()
    elif how == "failed input":
        with pytest.raises(LookupError, match="the caller's own") as caught:
            list(model.stream(requests(), max_new_tokens=1))
        assert caught.value.__traceback__ is not None
    else:
        stream = model.try_stream(requests(), max_new_tokens=1)
        next(stream)
        if how == "closed":
            stream.close()
        else:
            del stream
    read = len(taken)
    assert len(model.generate([(pictures[0], "What?")])) == 1
    assert len(taken) == read < 1000


def test_two_streams_of_one_thread_take_turns(model: Model, pictures: Pictures) -> None:
    requests: list[Request] = [(picture, "What is this?") for picture in pictures]
    expected = [answer.token_ids for answer in model.generate(requests)]
    first, second = model.stream(requests), model.stream(reversed(requests))
    found = []
    for one, other in zip(first, second, strict=True):
        found.append((one.token_ids, other.token_ids))
        model.encode([pictures[len(found) % 3]])
    assert [one for one, _ in found] == expected
    assert [other for _, other in found] == expected[::-1]


def test_second_thread_is_refused_while_the_first_runs(
    model: Model, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals: list[str] = []
    infer = model.vision.infer
    unseen = pictures[0][::-1].copy()

    def in_another_thread() -> None:
        for call in (
            lambda: model.generate([(pictures[0], "x")]),
            lambda: model.score([(pictures[0], "x")], choices=["yes", "no"]),
            lambda: model.encode([pictures[0]]),
            model.close,
        ):
            try:
                call()
            except UsageError as error:
                refusals.append(str(error))

    def while_running(*arguments: object) -> object:
        if not refusals:
            thread = threading.Thread(target=in_another_thread)
            thread.start()
            thread.join()
        return infer(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(model.vision, "infer", while_running)
    (answer,) = model.generate([(unseen, "What?")])
    assert len(refusals) == 4
    assert all("in use by another thread" in refusal for refusal in refusals)
    assert model.generate([(unseen, "What?")])[0].token_ids == answer.token_ids


def test_closed_model_refuses(artifact: Path, pictures: Pictures) -> None:
    requests: list[Request] = [(picture, "What?") for picture in pictures]
    with load(artifact, device="cpu", tiles="single") as model:
        stream = model.stream(requests, max_new_tokens=1)
        next(stream)
        model.close()
        with pytest.raises(UsageError, match="closed; load the artifact again"):
            list(stream)
    for call in (
        lambda: model.generate(requests),
        lambda: model.generate([]),
        lambda: list(model.stream(requests)),
        lambda: model.score(requests, choices=["yes", "no"]),
        lambda: model.encode(pictures),
        lambda: model.submit(requests[0]),
    ):
        with pytest.raises(UsageError, match="closed; load the artifact again"):
            call()
    model.close()


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 0},
        {"max_new_tokens": -1},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
    ],
    ids=str,
)
def test_options_that_mean_nothing(options: dict[str, float], model: Model) -> None:
    with pytest.raises(UsageError, match=r"max_new_tokens is .* temperature"):
        model.generate([(None, "Hello")], **options)  # type: ignore[arg-type]


def test_no_request_is_no_answer(model: Model) -> None:
    assert model.generate([]) == []
    assert model.score([], choices=["yes"]) == []
    assert model.encode([]) == []


def test_a_model_that_nobody_holds_leaves_no_thread(artifact: Path, pictures: Pictures) -> None:
    before = len(own_threads())
    model = load(artifact, device="cpu", tiles="single")
    assert len(model.generate([(pictures[0], "What?")])) == 1
    assert len(own_threads()) > before
    del model
    gc.collect()
    # The loop's own thread may hold the last reference, and nobody waits for it then.
    deadline = time.monotonic() + 30
    while len(own_threads()) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(own_threads()) == before
