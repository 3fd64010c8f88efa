"""Whatever runs together, and whatever is reused, every request gets its own answer."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from torch import Tensor

from tests.models.loaded import load
from tests.runtime.scheduler.serving import drawn, picture, request, start
from vlmc.errors import UsageError, VlmcError
from vlmc.runtime.requests.request import PreparedImage
from vlmc.runtime.scheduler.requests import make_sequence
from vlmc.runtime.scheduler.scheduler import Share
from vlmc.runtime.scheduler.sequence import Generated, Result, Sampling
from vlmc.runtime.scheduler.step_runner import StepResult

Folder = Callable[[str], Path]
NO_STOP = -1
NAMES = ("internlm2-300m", "qwen2-300m", "phi3-300m", "llama-yi-6b")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("policy", ["off", "text", "content"])
def test_answers_are_the_references(name: str, policy: str, miniatures: Folder) -> None:
    service = start(load(miniatures(name)).decoder, policy=policy)
    try:
        asked = drawn(1, 12)
        for (prepared, work), (result, spent) in zip(asked, service.ask(asked), strict=True):
            service.check(prepared, work, result)
            assert spent.computed_tokens + spent.reused_tokens == len(prepared.prompt_ids)
            if policy == "off":
                assert spent.reused_tokens == 0
    finally:
        service.loop.close()


def test_second_question_computes_its_own_tokens(miniature: Path) -> None:
    service = start(load(miniature).decoder)
    try:
        one = picture(1, tiles=2)
        first, second = request([one], [9] * 20), request([one], [10] * 20)
        service.ask([(first, Sampling(2))])
        ((result, spent),) = service.ask([(second, Sampling(2))])
        service.check(second, Sampling(2), result)
        assert spent.computed_tokens <= 20 + 1 + 16
        assert service.encoder.encoded == [one.digest], "the picture is encoded once"
    finally:
        service.loop.close()


def test_what_follows_a_reused_beginning_is_reused_too(miniature: Path) -> None:
    """Every picture's prompt begins with the same system message of several pages."""
    service = start(load(miniature).decoder)
    system = list(range(8, 60))
    try:
        for seed in range(3):
            service.ask([(request([picture(seed)], [9] * 20, system), Sampling(1))])
            ((_, spent),) = service.ask(
                [(request([picture(seed)], [10] * 20, system), Sampling(1))]
            )
            assert spent.computed_tokens <= 20 + 1 + 16
    finally:
        service.loop.close()


def test_pictures_of_equal_size_never_mix(miniature: Path) -> None:
    service = start(load(miniature).decoder)
    try:
        asked = [(request([picture(seed)], [9, 10, 11]), Sampling(3)) for seed in range(8)] * 2
        results = [result for result, _ in service.ask(asked)]
        for (prepared, work), result in zip(asked, results, strict=True):
            service.check(prepared, work, result)
        tokens = {result.token_ids for result in results if isinstance(result, Generated)}
        assert len(tokens) > 4, "the pictures must make a difference"
    finally:
        service.loop.close()


def test_small_cache_makes_requests_wait(miniature: Path) -> None:
    service = start(load(miniature).decoder, cache_tokens=640, max_batch_tokens=256)
    try:
        asked = drawn(3, 16)
        large = (request([picture(9, tiles=3)], [9]), Sampling(1))
        results = service.ask([*asked, large])
        for (prepared, work), (result, _) in zip(asked, results, strict=False):
            if isinstance(result, Exception):
                assert len(prepared.prompt_ids) + 8 > 640
            else:
                service.check(prepared, work, result)
        assert "holds 640" in str(results[-1][0])
    finally:
        service.loop.close()


def test_stop_token_ends_an_answer(miniature: Path) -> None:
    decoder = load(miniature).decoder
    service = start(decoder)
    try:
        prepared = request([picture(1)], [9, 10])
        tokens, _ = service.expected(prepared, Sampling(5))
    finally:
        service.loop.close()
    service = start(decoder, stop_id=tokens[1])
    try:
        end = tokens.index(tokens[1]) + 1
        ((result, _),) = service.ask([(prepared, Sampling(5))])
        assert isinstance(result, Generated)
        assert result.token_ids == tokens[:end]
    finally:
        service.loop.close()


def test_an_image_that_cannot_be_encoded_fails_its_own_requests(
    miniature: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = start(load(miniature).decoder)
    bad, encode = picture(7), service.encoder.encode

    def encode_all_but(images: Sequence[PreparedImage]) -> list[Tensor]:
        if bad.digest in [image.digest for image in images]:
            raise VlmcError("this image cannot be encoded")
        return encode(images)

    monkeypatch.setattr(service.encoder, "encode", encode_all_but)
    try:
        asked = [(request([one], [9]), Sampling(2)) for one in (picture(1), bad, picture(2), bad)]
        first, second, third, fourth = (result for result, _ in service.ask(asked))
        assert str(second) == str(fourth) == "this image cannot be encoded"
        service.check(*asked[0], first)
        service.check(*asked[2], third)
    finally:
        service.loop.close()


@pytest.mark.parametrize("name", ["phi3-300m", "internlm2-300m-ntk"])
def test_a_prompt_in_pieces_is_as_a_whole(name: str, miniatures: Folder) -> None:
    """Its first pieces are shorter than the window of rope, and end within an image."""
    service = start(load(miniatures(name)).decoder, max_batch_tokens=256)
    try:
        asked = [(request([picture(seed, 2)], [9] * 40), Sampling(4)) for seed in range(4)]
        for (prepared, work), (result, _) in zip(asked, service.ask(asked), strict=True):
            assert len(prepared.prompt_ids) > 512
            service.check(prepared, work, result)
    finally:
        service.loop.close()


def test_a_cancelled_request_is_not_computed(miniature: Path) -> None:
    service = start(load(miniature).decoder)
    results: queue.Queue[Result] = queue.Queue()
    try:
        service.loop.submit(
            make_sequence(
                request([picture(1)], [9]),
                Sampling(1),
                lambda result, spent: results.put(result),
                policy="content",
                salt=b"artifact",
                config=service.decoder.config,
                cancelled=lambda: True,
            )
        )
        assert "was cancelled" in str(results.get(timeout=60))
        assert service.encoder.encoded == []
    finally:
        service.loop.close()


def test_a_closed_loop_fails_what_it_has_not_answered(
    miniature: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = start(load(miniature).decoder)
    runner, run = service.loop._runner, service.loop._runner.run
    begun, go_on = threading.Event(), threading.Event()

    def slow(shares: Sequence[Share]) -> StepResult:
        begun.set()
        go_on.wait(60)
        return run(shares)

    monkeypatch.setattr(runner, "run", slow)
    closing = threading.Thread(target=service.loop.close)

    def close() -> None:
        begun.wait(60)
        closing.start()
        while not service.loop._closing:
            time.sleep(0.001)
        go_on.set()

    closer = threading.Thread(target=close)
    closer.start()
    asked = [(request([], [9, 10]), Sampling(500)) for _ in range(3)]
    results = service.ask(asked, timeout_s=30)
    closer.join()
    closing.join()
    for result, _ in results:
        assert isinstance(result, UsageError), result
        assert "closed before the request was answered" in str(result)


def test_memory_that_runs_out_makes_steps_smaller_and_loses_nothing(
    miniature: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = start(load(miniature).decoder, max_batch_tokens=2048)
    runner, sizes = service.loop._runner, []
    run = runner.run

    def short(shares: Sequence[Share]) -> StepResult:
        tokens = sum(share.count for share in shares)
        if tokens > 400 or any(len(share.sequence.images) == 2 for share in shares):
            raise MemoryError("short")
        sizes.append(tokens)
        return run(shares)

    monkeypatch.setattr(runner, "run", short)
    try:
        asked = drawn(5, 12)
        assert {len(prepared.images) for prepared, _ in asked} >= {0, 1, 2}
        for (prepared, work), (result, _) in zip(asked, service.ask(asked), strict=True):
            if len(prepared.images) == 2:
                assert "does not fit in memory, not even alone" in str(result)
            else:
                service.check(prepared, work, result)
        assert max(sizes) <= 400
    finally:
        service.loop.close()
