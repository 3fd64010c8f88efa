"""The quickstart's table: which questions it asks, and what it shows while and after it answers."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from recipes.quickstart import progress as progress_module
from recipes.quickstart import table
from recipes.quickstart.progress import AnswerProgress
from recipes.quickstart.table import Outcome, print_tables, questions
from vlmc.verify.metrics import LabelledAnswer


def test_first_images_with_all_their_questions() -> None:
    some, left_out = questions("eval", 30)
    every, none = questions("eval", None)
    assert (len({line["image"] for line in some}), left_out) == (30, 270)
    assert (len({line["image"] for line in every}), none) == (300, 0)
    assert some == every[: len(some)]
    assert every[len(some)]["image"] not in {line["image"] for line in some}


def test_table_says_what_it_compares(capsys: pytest.CaptureFixture[str]) -> None:
    right = LabelledAnswer("presence", "yes", "yes", ("yes",))
    wrong = LabelledAnswer("presence", "yes", "no", ("yes",))
    print_tables(
        [
            Outcome("original", 2, 7.0, 30.0, [right, right]),
            Outcome("native", 2, 2.0, 15.0, [right, wrong]),
        ]
    )
    shown = capsys.readouterr().out
    assert "The same 2 questions on the same 2 images, by tile rule" in shown
    speed = next(line for line in shown.splitlines() if "questions a minute" in line)
    recall = next(line for line in shown.splitlines() if "presence, recall" in line)
    assert speed.replace("│", "").split()[-2:] == ["4", "8"]
    assert "1.000" in recall and "0.500" in recall


def test_lines_every_ten_seconds_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: clock[0])
    out = io.StringIO()
    with AnswerProgress(40, Console(file=out)) as progress:
        clock[0] += 60.0  # to load the model, which says nothing about the answers' speed
        for _ in range(25):
            progress.show("native")
            clock[0] += 1.0
    assert out.getvalue().splitlines() == [
        "1 of 40 answers, by native now",
        "11 of 40 answers, by native now, about 29.0 s left",
        "21 of 40 answers, by native now, about 19.0 s left",
    ]


def test_one_updating_line_on_a_terminal() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with AnswerProgress(3, console) as progress:
        for _ in range(3):
            progress.show("native")
    assert "answers by native" in out.getvalue() and "3/3" in out.getvalue()
    assert out.getvalue().count("\n") <= 2


def test_images_is_a_number_or_all() -> None:
    assert table._count("12") == 12
    assert table._count("all") is None
    for text in ("0", "-1", "many"):
        with pytest.raises(ValueError):
            table._count(text)
