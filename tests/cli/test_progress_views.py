"""Progress as it is shown: on a terminal, and elsewhere."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from vlmc.cli.views.pace import Pace
from vlmc.cli.views.plain_view import PlainView
from vlmc.cli.views.progress import show_progress
from vlmc.cli.views.terminal_view import TerminalView
from vlmc.files.units import bytes_text, duration_text
from vlmc.progress.channel import report
from vlmc.progress.events import (
    Event,
    Note,
    Progress,
    StepCached,
    StepDone,
    StepsPlanned,
    StepStarted,
)

EVENTS: tuple[Event, ...] = (
    StepsPlanned(("vision.weights", "vision.graph", "language.weights")),
    StepCached("vision.weights", 5.25, 3 << 20, 1 << 30),
    StepStarted("vision.graph"),
    Note("from [/somewhere]", step="vision.graph"),
    StepDone("vision.graph", 62.0, None, 2048),
    StepStarted("language.weights"),
)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock of the views, which a test moves on."""
    now = [100.0]
    monkeypatch.setattr("vlmc.cli.views.pace.time.monotonic", lambda: now[0])
    return now


def terminal() -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=True, width=120, color_system=None), file


def last_frame(text: str, start: str = "step ") -> list[list[str]]:
    """Words of the lines as they were drawn last."""
    frame = text[text.rindex(start) :]
    return [line.split() for line in frame.splitlines() if line.strip()]


def test_a_terminal_shows_every_step() -> None:
    console, file = terminal()
    with TerminalView(console) as view:
        for event in EVENTS:
            view.receive(event)
    rows = {row[0]: row[1:] for row in last_frame(file.getvalue())}
    assert rows["vision.weights"] == ["cached", "(5.2", "s)", "3.0", "MiB", "1.0", "GiB"]
    assert rows["vision.graph"] == ["built", "1", "min", "02", "s", "2.0", "KiB"]
    assert rows["language.weights"][0] == "running"
    assert "vision.graph: from [/somewhere]" in file.getvalue()


def test_an_interrupted_build_leaves_no_running_step() -> None:
    console, file = terminal()
    with pytest.raises(KeyboardInterrupt), TerminalView(console) as view:
        for event in EVENTS:
            view.receive(event)
        raise KeyboardInterrupt
    rows = {row[0]: row[1:] for row in last_frame(file.getvalue())}
    assert rows["language.weights"][0] == "stopped"


def test_the_row_of_a_step_shows_its_progress_until_it_is_done() -> None:
    for events, last in (
        (
            [Progress("layers", 3, 32, step="language.weights")],
            ["layers:", "3", "of", "32"],
        ),
        (
            [
                Progress("layers", 3, 32, step="language.weights"),
                StepDone("language.weights", 62.0, None, 2048),
            ],
            ["02", "s", "2.0", "KiB"],
        ),
    ):
        console, file = terminal()
        with TerminalView(console) as view:
            view.receive(StepsPlanned(("language.weights",)))
            view.receive(StepStarted("language.weights"))
            for event in events:
                view.receive(event)
        assert last_frame(file.getvalue())[1][-4:] == last


def test_a_bar_shows_count_rate_errors_and_time_left(now: list[float]) -> None:
    console, file = terminal()
    with TerminalView(console) as view:
        view.receive(Progress("answers", 1000, 4000))
        view.receive(Note("a note [above]"))
        now[0] += 60
        view.receive(Progress("answers", 1500, 4000, errors=1))
    line = last_frame(file.getvalue(), "answers")[0]
    assert "".join(line[1]).strip("━╸╺") == ""
    assert " ".join(line[2:]) == "1,500 of 4,000 500 a minute, 1 error 5 min 00 s left"
    assert "a note [above]" in file.getvalue()


def test_work_without_a_count_is_shown_until_other_work_begins() -> None:
    console, file = terminal()
    with TerminalView(console) as view:
        for event in (Progress("files", 3, 3), Progress("starting"), Progress("loading models")):
            view.receive(event)
        view.receive(Note("a note"))
        view.receive(Progress("answers", 1, 4))
    shown = file.getvalue()
    assert "loading models" in shown and "starting" not in shown
    assert [line[0] for line in last_frame(shown, "files ")[:2]] == ["files", "answers"]


def test_elsewhere_each_event_is_a_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainView()
    for event in EVENTS:
        view.receive(event)
    text = capsys.readouterr().err
    lines = text.splitlines()
    assert len(lines) == len(EVENTS)
    assert lines[1] == "vision.weights: cached, 1.0 GiB (took 5.2 s)"
    assert lines[3] == "vision.graph: from [/somewhere]"
    assert "\x1b" not in text


def test_plain_lines_show_progress_after_a_silence(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    view = PlainView()
    view.receive(StepStarted("language.weights"))
    for layer in range(1, 33):
        now[0] += 1
        view.receive(Progress("layers", layer, 32, step="language.weights"))
    assert capsys.readouterr().err.splitlines() == [
        "language.weights: started",
        "language.weights: layers: 10 of 32, 22.0 s left",
        "language.weights: layers: 20 of 32, 12.0 s left",
        "language.weights: layers: 30 of 32, 2.0 s left",
    ]


def test_plain_lines_show_a_full_count_once(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    view = PlainView()
    for done in (0, 1, 2, 2):
        view.receive(Progress("answers", done, 2, errors=2))
        now[0] += 2
    assert capsys.readouterr().err == "answers: 2 of 2, 30 a minute, 2 errors\n"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_view_fits_the_terminal(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    monkeypatch.setenv("TERM", "xterm")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    with show_progress():
        report(Progress("answers", 1, 1))
    shown = capsys.readouterr()
    assert ("\x1b" in shown.err) == is_terminal
    assert "1 of 1" in shown.err and shown.out == ""
    report(Note("nobody receives this"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (3599.6, "1 h 00 min"),
        (5400, "1 h 30 min"),
        (200000, "2 d 8 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (3 << 40, "3.0 TiB"),
        (1 << 50, "1,024.0 TiB"),
    ],
)
def test_bytes(size: int, text: str) -> None:
    assert bytes_text(size) == text


def test_rates_of_workers(now: list[float]) -> None:
    now[0] = 0.0
    pace = Pace(Progress("answers", 5, 100, shares=(5, 0)))
    assert pace.shares == ""
    now[0] = 60.0
    pace = Pace.following(pace, Progress("answers", 35, 100, shares=(25, 10)))
    assert pace.line == (
        "answers: 35 of 100, 30 a minute, 2 min 10 s left; by worker: 20, 10 a minute"
    )
    many = Pace(Progress("answers", 0, 100, shares=(0,) * 9))
    now[0] = 120.0
    many = Pace.following(many, Progress("answers", 45, 100, shares=tuple(range(1, 10))))
    assert many.shares == "by worker: 1 to 9 a minute"
