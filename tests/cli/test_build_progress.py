"""A build's steps as they are shown: on a terminal, and elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from vlmc.cli.views.build_progress import BuildProgress
from vlmc.files.units import bytes_text, duration_text
from vlmc.progress.events import (
    Event,
    Note,
    StepCached,
    StepDone,
    StepProgress,
    StepsPlanned,
    StepStarted,
)

EVENTS: tuple[Event, ...] = (
    StepsPlanned(("vision.weights", "vision.graph", "language.weights")),
    StepCached("vision.weights", 5.25, 3 << 20, 1 << 30),
    StepStarted("vision.graph"),
    Note("from [/somewhere]"),
    StepDone("vision.graph", 62.0, None, 2048),
    StepStarted("language.weights"),
)


def console_on(terminal: bool) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=terminal, width=100, color_system=None), file


def last_frame(text: str) -> list[list[str]]:
    """Words of the lines of the table as it was drawn last."""
    frame = text[text.rindex("step ") :]
    return [line.split() for line in frame.splitlines() if line.strip()]


def test_a_terminal_shows_every_step() -> None:
    console, file = console_on(True)
    with BuildProgress(console) as progress:
        for event in EVENTS:
            progress.report(event)
    rows = {row[0]: row[1:] for row in last_frame(file.getvalue())}
    assert rows["vision.weights"] == ["cached", "(5.2", "s)", "3.0", "MiB", "1.0", "GiB"]
    assert rows["vision.graph"] == ["built", "1", "min", "02", "s", "2.0", "KiB"]
    assert rows["language.weights"][0] == "running"
    assert "from [/somewhere]" in file.getvalue()


def test_a_broken_off_build_leaves_no_running_step() -> None:
    console, file = console_on(True)
    with pytest.raises(KeyboardInterrupt), BuildProgress(console) as progress:
        for event in EVENTS:
            progress.report(event)
        raise KeyboardInterrupt
    rows = {row[0]: row[1:] for row in last_frame(file.getvalue())}
    assert rows["language.weights"][0] == "stopped"


def test_elsewhere_each_event_is_a_plain_line() -> None:
    console, file = console_on(False)
    with BuildProgress(console) as progress:
        for event in EVENTS:
            progress.report(event)
    lines = file.getvalue().splitlines()
    assert len(lines) == len(EVENTS)
    assert lines[1].startswith("vision.weights: cached")
    assert "\x1b" not in file.getvalue()


def test_how_far_a_step_is_stands_in_its_row_until_it_is_done() -> None:
    console, file = console_on(True)
    with BuildProgress(console) as progress:
        progress.report(StepsPlanned(("language.weights",)))
        progress.report(StepStarted("language.weights"))
        progress.report(StepProgress("language.weights", "layer 3 of 32"))
        assert last_frame(file.getvalue())[1][-4:] == ["layer", "3", "of", "32"]
        progress.report(StepDone("language.weights", 62.0, None, 2048))
    assert last_frame(file.getvalue())[1][-1] == "KiB"


def test_lines_tell_how_far_a_step_is_after_a_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("vlmc.cli.views.build_progress.time.monotonic", lambda: now[0])
    console, file = console_on(False)
    progress = BuildProgress(console)
    progress.report(StepStarted("language.weights"))
    for layer in range(1, 33):
        now[0] += 1
        progress.report(StepProgress("language.weights", f"layer {layer} of 32"))
    told = [line.split(": ")[1] for line in file.getvalue().splitlines()]
    assert told == ["started", "layer 10 of 32", "layer 20 of 32", "layer 30 of 32"]


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
