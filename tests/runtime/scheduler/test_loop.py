"""Whatever runs together, and whatever is reused, every request gets its own answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.models.loaded import load
from tests.runtime.scheduler.serving import drawn, picture, request, start
from vlmc.runtime.scheduler.scheduler import Share
from vlmc.runtime.scheduler.sequence import Generated, Sampling
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
