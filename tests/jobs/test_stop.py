"""Jobs that stop before their end, and go on."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

import pytest

from tests.jobs.fake import FakeModel, write_images
from tests.jobs.small_job import PROMPTS, run
from vlmc.files.units import parse_duration
from vlmc.jobs.question_runner import Outcome, Work
from vlmc.jobs.stop import Stop, interrupts_deferred, stopping_on_interrupt
from vlmc.progress.channel import receiving
from vlmc.progress.events import Event, Note, Progress
from vlmc.runtime.requests.request import Request


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_stopped_job_goes_on_to_the_same_file(suffix: str, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 9, damaged=[1, 2, 8])
    out, undisturbed = tmp_path / f"answers{suffix}", tmp_path / f"undisturbed{suffix}"
    run(tmp_path / "images", undisturbed)
    model = FakeModel()
    first = run(tmp_path / "images", out, model=model, stop=Stop(max_errors=2))
    assert first.stopped == "2 rows ended in an error (--max-errors)"
    # Row 2 is the second with an error; what was read ahead is answered, and nothing after it.
    assert 7 <= first.answers + first.errors == len(model.asked) <= 7 + 5
    assert first.remaining == 27 - len(model.asked)
    assert (out.suffix == ".parquet") != out.exists()
    second = run(tmp_path / "images", out, stop=Stop(max_errors=2))
    assert (second.stopped, second.remaining, second.resumed) == (None, 0, len(model.asked))
    assert out.read_bytes() == undisturbed.read_bytes()


def test_errors_of_one_row_count_once(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 3, damaged=[1])
    summary = run(tmp_path / "images", tmp_path / "answers.jsonl", stop=Stop(max_errors=2))
    assert (summary.errors, summary.stopped) == (3, None)


def test_a_deadline_ends_a_job_in_order(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 20)
    out = tmp_path / "answers.jsonl"
    model = FakeModel(wait_s=0.01)
    # The model waits for so long in all that the deadline is certain to come.
    summary = run(tmp_path / "images", out, model=model, stop=Stop(seconds=0.2))
    assert summary.stopped == "the deadline of 0.2 s has passed" and summary.remaining
    assert len(out.read_text().splitlines()) == summary.answers == len(model.asked)
    over = Stop(seconds=1, since=time.monotonic() - 2)
    assert run(tmp_path / "images", out, stop=over).answers == summary.answers
    assert run(tmp_path / "images", out).remaining == 0


def test_a_stopped_retry_keeps_what_it_corrected(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 6, damaged=range(6))
    out = tmp_path / "answers.jsonl"
    assert run(tmp_path / "images", out).errors == 18
    write_images(tmp_path / "images", 6, damaged=[1])
    stopped = run(tmp_path / "images", out, retry_errors=True, stop=Stop(max_errors=1))
    assert 3 < stopped.errors < 18
    assert run(tmp_path / "images", out, retry_errors=True).errors == 3
    rows = [json.loads(line)["row"] for line in out.open()]
    assert rows == [row for row in range(6) for _ in PROMPTS]


class InterruptedModel(FakeModel):
    """Gets so many Ctrl-C while it reads the eighth request."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count

    def try_each(self, requests: Iterable[tuple[Request, Work]]) -> Generator[Outcome, None, None]:
        def interrupted() -> Iterator[tuple[Request, Work]]:
            for place, request in enumerate(requests):
                for _ in range(self._count if place == 7 else 0):
                    signal.raise_signal(signal.SIGINT)
                yield request

        yield from super().try_each(interrupted())


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_the_first_interrupt_stops_in_order_and_the_second_at_once(
    suffix: str, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 8)
    out, undisturbed = tmp_path / f"answers{suffix}", tmp_path / f"undisturbed{suffix}"
    run(tmp_path / "images", undisturbed)
    before = signal.getsignal(signal.SIGINT)
    stop = Stop()
    with stopping_on_interrupt(stop):
        summary = run(tmp_path / "images", out, model=InterruptedModel(1), stop=stop)
    # The request before which it came was on its way.
    assert (summary.stopped, summary.answers, summary.remaining) == ("it was interrupted", 8, 16)
    stop = Stop()
    with pytest.raises(KeyboardInterrupt), stopping_on_interrupt(stop):
        run(tmp_path / "images", out, model=InterruptedModel(2), stop=stop)
    assert signal.getsignal(signal.SIGINT) is before
    assert run(tmp_path / "images", out).resumed >= 8 + 5
    assert out.read_bytes() == undisturbed.read_bytes()


def test_a_stop_is_announced_where_all_is_read_ahead(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 1)
    stop, seen = Stop(), list[Event]()

    def interrupt(event: Event) -> None:
        seen.append(event)
        if isinstance(event, Progress) and event.done == 1:
            stop.request("it was interrupted")

    with receiving(interrupt):
        run(images[0], tmp_path / "answers.jsonl", stop=stop)
    note = Note("it was interrupted; finishing the requests that run")
    assert seen.index(Progress("answers", 2, 3)) > seen.index(note) and seen.count(note) == 1


def test_an_interrupt_before_the_first_request_ends_the_job_at_once() -> None:
    stop = Stop()
    with pytest.raises(KeyboardInterrupt), stopping_on_interrupt(stop):
        signal.raise_signal(signal.SIGINT)
    assert stop.reason is None


def test_a_deferred_interrupt_comes_after_the_block() -> None:
    stop = Stop()
    stop.begin()
    with stopping_on_interrupt(stop):
        with interrupts_deferred():
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)
            assert stop.reason is None
        assert stop.reason == "it was interrupted"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5s", 1.5), ("30m", 1800), ("1h30m", 5400), ("2d", 172800)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "m", "1w", "-5s", "30m1h", "1h 30m"])
def test_texts_that_are_not_durations(text: str) -> None:
    with pytest.raises(ValueError, match="such as 90s, 30m or 1h30m"):
        parse_duration(text)
