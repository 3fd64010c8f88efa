"""A model on two devices answers as on one: two processes on the CPU, connected by Gloo."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.runtime.conftest import own_threads
from vlmc import Model, load
from vlmc.errors import HardwareError, IntegrityError, ModelLostError, UsageError
from vlmc.runtime import team
from vlmc.runtime.requests.request import Request
from vlmc.runtime.sampling_options import make_sampling

Pictures = list[npt.NDArray[np.uint8]]
NAMES = ("internlm2-300m", "qwen2-300m", "phi3-300m", "llama-yi-6b")
CHOICES = ["yes", "no", "no way"]
# Sums have another order on two devices: log-probabilities may differ by so much in fp32, and a
# token that one device prefers by less may lose.
SUM_ORDER = 1e-3
TILES = "original:max=3,thumbnail=false"


@contextmanager
def load_both(folder: Path) -> Iterator[tuple[Model, Model]]:
    """An artifact on one device and on two."""
    with (
        load(folder, device="cpu", tiles=TILES) as one,
        load(folder, device="cpu", devices=2, tiles=TILES) as two,
    ):
        yield one, two


def requests_of(pictures: Pictures) -> list[Request]:
    """Prompts of several lengths: text alone, one tile, several, two pictures in one."""
    wide = np.kron(pictures[2], np.ones((1, 4, 1), np.uint8))
    return [
        *((picture, question) for picture in pictures[:2] for question in ("Dark?", "What is it?")),
        (wide, "How wide is it?"),
        ([pictures[3], pictures[4]], "Image-1: <image>\nImage-2: <image>\nWhich?"),
        (None, "Hello"),
    ]


def check_same(one: Model, two: Model, requests: list[Request]) -> None:
    """Greedy tokens, near ties aside, and scores of choices."""
    alone = one.generate(requests, max_new_tokens=4)
    shared = two.generate(requests, max_new_tokens=4)
    for request, expected, found in zip(requests, alone, shared, strict=True):
        if found.token_ids != expected.token_ids:
            assert gap_at_difference(one, request, expected, found) < SUM_ORDER
    np.testing.assert_allclose(
        values_of(two, requests), values_of(one, requests), atol=SUM_ORDER, rtol=0
    )


def values_of(model: Model, requests: list[Request]) -> npt.NDArray[np.float64]:
    """Scores of the choices, (requests, choices)."""
    return np.array([list(scores.values()) for scores in model.score(requests, choices=CHOICES)])


def gap_at_difference(model: Model, request: Request, expected: Any, found: Any) -> float:
    """How much likelier the expected token is than the found one, where the answers part."""
    pairs = zip(expected.token_ids, found.token_ids, strict=False)
    place = next(index for index, (a, b) in enumerate(pairs) if a != b)
    ends = [answer.token_ids[: place + 1] for answer in (expected, found)]
    (scores,) = model.try_score_tokens([(request, ends)])
    assert isinstance(scores, dict)
    return float(scores[ends[0]] - scores[ends[1]])


@pytest.fixture(scope="module")
def two(artifact: Path) -> Iterator[Model]:
    """The InternLM2 miniature on two devices."""
    with load(artifact, device="cpu", devices=2, tiles=TILES) as loaded:
        yield loaded
    assert own_threads() == [], "a closed model leaves no thread"


def followers_of(model: Model) -> tuple[int, ...]:
    """Process ids of a model's followers."""
    followers = model._dispatcher.loop._runner.lead._followers
    assert followers is not None
    return followers.process_ids


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for_end(process: int, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while is_running(process):
        if time.monotonic() > until:
            os.kill(process, signal.SIGKILL)
            pytest.fail("a follower outlived its model")
        time.sleep(0.02)


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_those_of_one_device(
    name: str, artifacts: Callable[[str], Path], pictures: Pictures
) -> None:
    folder = artifacts(name)
    with load_both(folder) as (one, both):
        processes = followers_of(both)
        check_same(one, both, requests_of(pictures))
    assert not any(map(is_running, processes)), "a closed model leaves no process"


def test_features_are_those_of_one_device(artifact: Path, two: Model, pictures: Pictures) -> None:
    wide = np.kron(pictures[0], np.ones((1, 5, 1), np.uint8))
    with load(artifact, device="cpu", tiles=TILES) as one:
        for picture in (pictures[0], wide):
            for expected, found in zip(one.encode([picture]), two.encode([picture]), strict=True):
                np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_reference_path_runs_on_both(two: Model, pictures: Pictures) -> None:
    request = (pictures[0], "What is it?")
    (answer,) = two.generate([request], max_new_tokens=4)
    reference = two.reference_answer(request, make_sampling(max_new_tokens=4))
    assert reference.token_ids == answer.token_ids


def test_a_number_that_does_not_divide_the_heads_is_refused(artifact: Path) -> None:
    with pytest.raises(UsageError, match=r"attention heads 4, key/value heads 2.*that fit: 1, 2"):
        load(artifact, device="cpu", devices=3)
    for number in (0, -1, True, 1.5, "2"):
        with pytest.raises(UsageError, match=r"devices is .*must be a number of devices"):
            load(artifact, device="cpu", devices=number)  # type: ignore[arg-type]


def test_a_killed_follower_fails_all_requests(artifact: Path, pictures: Pictures) -> None:
    with load(artifact, device="cpu", devices=2) as model:
        (process,) = followers_of(model)
        futures = [model.submit((picture, "?"), max_new_tokens=50) for picture in pictures]
        os.kill(process, signal.SIGKILL)
        for future in futures:
            with pytest.raises(ModelLostError, match=r"rank 1 on cpu was ended by SIGKILL"):
                future.result(timeout=60)
        with pytest.raises(ModelLostError, match="Load it again"):
            model.generate([(pictures[0], "?")])


def test_a_follower_that_cannot_load_is_named(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its copy of the artifact is damaged after rank 0 has checked it."""
    folder = shutil.copytree(artifact, tmp_path / "artifact")
    start = team.start_team

    def start_later(*arguments: Any) -> Any:
        (folder / "manifest.json").write_text("{}")
        return start(*arguments)

    monkeypatch.setattr(team, "start_team", start_later)
    before = own_threads()
    with pytest.raises(IntegrityError, match="rank 1 on cpu: "):
        load(folder, device="cpu", devices=2)
    assert own_threads() == before


def test_followers_end_with_a_killed_process(artifact: Path) -> None:
    script = (
        "import sys, time\n"
        "from vlmc import load\n"
        "model = load(sys.argv[1], device='cpu', devices=2)\n"
        "print(*model._dispatcher.loop._runner.lead._followers.process_ids, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, artifact], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        follower = int(process.stdout.readline())
        assert is_running(follower)
        process.kill()
    wait_for_end(follower)


def test_a_tower_that_fails_on_rank_0_alone_ends_the_group(
    artifact: Path, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 1 has encoded its share and waits for that of rank 0: no step may follow."""
    monkeypatch.setattr("vlmc.distributed.followers._NOTICE_SECONDS", 0.1)
    wide = np.kron(pictures[0], np.ones((1, 4, 1), np.uint8))
    with load(artifact, device="cpu", devices=2, tiles=TILES) as model:
        engine = model.vision._engine  # type: ignore[attr-defined]
        with monkeypatch.context() as patch:
            patch.setattr(type(engine), "infer", fail_with(HardwareError("no memory")))
            with pytest.raises(HardwareError, match="no memory"):
                model.generate([(wide, "?")])
        for call in (model.generate, model.encode):
            request: Any = wide if call == model.encode else (wide, "?")
            with pytest.raises(HardwareError, match=r"no memory.*Load it again"):
                call([request])


def test_a_reference_that_fails_on_rank_0_alone_ends_the_group(
    artifact: Path, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmc.distributed.followers._NOTICE_SECONDS", 0.1)
    request, work = (pictures[0], "What is it?"), make_sampling(max_new_tokens=4)
    with load(artifact, device="cpu", devices=2, tiles=TILES) as model:
        with monkeypatch.context() as patch:
            failing = fail_with(RuntimeError("out of memory"))
            patch.setattr("vlmc.runtime.reference_path.run_row", failing)
            with pytest.raises(HardwareError, match=r"out of memory.*Load it again"):
                model.reference_answer(request, work)
        with pytest.raises(HardwareError, match=r"out of memory.*Load it again"):
            model.generate([request])


def fail_with(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail
