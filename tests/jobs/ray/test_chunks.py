"""Rows a task prepares, how far ahead, and that questions on a row share its images."""

from __future__ import annotations

from pathlib import Path

from vlmc.jobs.input.prompts import Prompt
from vlmc.jobs.input.questions import Question
from vlmc.jobs.input.rows import ImageInput, InputRow
from vlmc.jobs.output.parts import RowRange
from vlmc.jobs.ray.chunks import CHUNKS_AHEAD, prepared_ahead
from vlmc.jobs.ray.part import cut_parts
from vlmc.jobs.ray.prepare import FailedImage, Images


def asked(rows: int) -> list[Question]:
    inputs = [InputRow(n, Path(f"{n}.jpg"), f"{n}.jpg") for n in range(rows)]
    texts = ["a", "b"]
    return [
        Question(2 * row.number + place, row, Prompt(text, text))
        for row in inputs
        for place, text in enumerate(texts)
    ]


def test_chunks_are_bounded_in_tiles_and_ahead() -> None:
    for most_tiles, size in ((1, 16), (4, 8), (13, 2), (40, 1)):
        begun: list[int] = []
        waiting: list[int] = []

        def start(
            images: list[ImageInput | None],
            begun: list[int] = begun,
            waiting: list[int] = waiting,
        ) -> list[str]:
            begun.append(len(images))
            waiting.append(len(begun))
            assert len(waiting) <= CHUNKS_AHEAD + 1
            return [str(image) for image in images]

        def get(names: list[str], waiting: list[int] = waiting) -> Images:
            waiting.pop(0)
            return [FailedImage(name, ValueError()) for name in names]  # type: ignore[arg-type]

        questions = asked(40)
        found = list(prepared_ahead(questions, most_tiles, start, get))
        assert begun == [size] * (40 // size) + [40 % size] * (40 % size > 0)
        assert [one.line for one in found] == list(range(80))
        for one in found:
            assert isinstance(one.row.image, FailedImage) and one.row.image.name == one.row.name
        assert found[0].row is found[1].row is not found[2].row


def test_parts_end_at_the_same_rows_in_every_run() -> None:
    questions = asked(25)
    whole = [part.rows for part in cut_parts(questions, [RowRange(0, 24)], 10)]
    assert whole == [RowRange(0, 9), RowRange(10, 19), RowRange(20, 24)]
    gaps = [RowRange(4, 9), RowRange(13, 21), RowRange(24, 24)]
    parts = list(cut_parts(questions[6:], gaps, 10))
    expected = [RowRange(4, 9), RowRange(13, 19), RowRange(20, 21), RowRange(24, 24)]
    assert [part.rows for part in parts] == expected
    assert [part.first_line for part in parts] == [8, 26, 40, 48]
    assert sum(len(part.questions) for part in parts) == 2 * (6 + 9 + 1)
