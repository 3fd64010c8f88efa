"""Events go to the innermost receiver of a thread, and through pipes unchanged."""

from __future__ import annotations

import threading

import pytest

from vlmc.progress.channel import notes_on_stderr, receiving, report, reporting_step
from vlmc.progress.events import Event, Note, Progress, StepStarted
from vlmc.progress.pipe import from_line, to_line


def test_the_innermost_receiver_gets_events() -> None:
    outer: list[Event] = []
    inner: list[Event] = []
    report(Note("before"))
    with receiving(outer.append):
        with receiving(inner.append):
            report(Note("inner"))
        report(Note("outer"))
    report(Note("after"))
    assert (outer, inner) == ([Note("outer")], [Note("inner")])


def test_each_thread_has_a_receiver_of_its_own() -> None:
    mine: list[Event] = []
    theirs: list[Event] = []

    def work() -> None:
        report(Note("dropped"))
        with receiving(theirs.append):
            report(Note("theirs"))

    with receiving(mine.append):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        report(Note("mine"))
    assert (mine, theirs) == ([Note("mine")], [Note("theirs")])


def test_progress_and_notes_of_a_step_carry_its_name() -> None:
    events: list[Event] = []
    with receiving(events.append), reporting_step("vision.graph"):
        report(StepStarted("vision.graph"))
        report(Progress("tiles", 1, 2))
        report(Note("slow"))
    assert events == [
        StepStarted("vision.graph"),
        Progress("tiles", 1, 2, step="vision.graph"),
        Note("slow", step="vision.graph"),
    ]


def test_notes_of_loading_reach_stderr_unless_they_are_received(
    capsys: pytest.CaptureFixture[str],
) -> None:
    received: list[Event] = []
    with notes_on_stderr():
        report(Note("compiling"))
        report(Progress("tiles", 1, 2))
    assert capsys.readouterr().err == "compiling\n"
    with receiving(received.append), notes_on_stderr():
        report(Note("compiling"))
    assert received == [Note("compiling")]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "event", [Progress("layers", 1, 2, errors=1, step="language.weights"), Note("层\n2")]
)
def test_events_pass_a_pipe_as_one_line(event: Event) -> None:
    line = to_line(event)
    assert "\n" not in line
    assert from_line(line + "\n") == event
