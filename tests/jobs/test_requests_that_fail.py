"""Requests that raise, and the reasons of errors."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.jobs.fake import FakeModel, write_images
from tests.jobs.input.write import write_jsonl
from tests.jobs.small_job import PROMPTS, run
from vlmc.cli.options import resumable
from vlmc.errors import HardwareError, ModelLostError, VlmcError
from vlmc.jobs.output.failures import Failures
from vlmc.jobs.question_runner import MAX_FAILED_ROWS, Outcome, Work
from vlmc.runtime.requests.request import Request


class SmallMemory(FakeModel):
    """Raises for a request on one of `large`, and for `most` or more requests at once."""

    def __init__(
        self, large: Iterable[Path], error: Callable[[], Exception], most: int = 10**6
    ) -> None:
        super().__init__()
        self._large, self._error, self._most = set(large), error, most

    def try_each(self, requests: Iterable[tuple[Request, Work]]) -> Generator[Outcome, None, None]:
        for group in self._groups(requests):
            yield from super().try_each(group)

    def _groups(
        self, requests: Iterable[tuple[Request, Work]]
    ) -> Iterator[list[tuple[Request, Work]]]:
        remaining = iter(requests)
        # As the runtime does: read ahead, then run the questions on one image together.
        while ahead := list(itertools.islice(remaining, 7)):
            for image, group in itertools.groupby(ahead, key=lambda asked: asked[0][0]):
                together = list(group)
                if image in self._large or len(together) >= self._most:
                    raise self._error()
                yield together


ERRORS: list[Callable[[], Exception]] = [
    lambda: HardwareError("the engine failed"),
    lambda: MemoryError(),
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB.\nMore."),
    lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 99 bytes"),
]


@pytest.mark.parametrize("choices", [None, ["yes", "no"]])
@pytest.mark.parametrize("error", ERRORS)
def test_a_request_that_raises_becomes_its_line(
    error: Callable[[], Exception], choices: list[str] | None, tmp_path: Path
) -> None:
    paths = write_images(tmp_path / "images", 7, damaged=[2])
    out, fresh = tmp_path / "answers.jsonl", tmp_path / "fresh.jsonl"
    model = SmallMemory([paths[0], paths[3], paths[6]], error)
    summary = run(tmp_path / "images", out, model=model, choices=choices)
    assert (summary.answers, summary.errors) == (9, 12)
    run(tmp_path / "images", fresh, choices=choices)
    for line, expected in zip(out.open(), fresh.open(), strict=True):
        values = json.loads(line)
        if values["row"] in (0, 3, 6):
            said = "the engine failed" if error is ERRORS[0] else "does not fit in memory"
            assert said in values["error"] and "\n" not in values["error"]
            assert values["answer"] is None
        else:
            assert line == expected
    assert run(tmp_path / "images", out, choices=choices).resumed == 21
    assert run(tmp_path / "images", out, choices=choices, retry_errors=True).errors == 3
    assert out.read_bytes() == fresh.read_bytes()


def test_questions_that_fit_only_alone_are_answered(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 4)
    out, fresh = tmp_path / "answers.jsonl", tmp_path / "fresh.jsonl"
    run(tmp_path / "images", out, model=SmallMemory([], ERRORS[0], most=2))
    run(tmp_path / "images", fresh)
    assert out.read_bytes() == fresh.read_bytes()


def test_rows_without_an_image_keep_their_place(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "images", 2)
    names = [None, "images/000.jpg", None, "images/001.jpg", None]
    source = write_jsonl(tmp_path / "rows.jsonl", *({"image": name} for name in names))
    out = tmp_path / "answers.jsonl"
    run(source, out, PROMPTS[:1], SmallMemory(paths[:1], ERRORS[1]))
    errors = [json.loads(line)["error"] for line in out.open()]
    said = ["names no image", "not fit in memory", "names no image", None, "names no image"]
    for error, part in zip(errors, said, strict=True):
        assert (error is None) if part is None else part in error


def test_a_device_that_always_fails_ends_the_job(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "images", MAX_FAILED_ROWS + 2)
    out = tmp_path / "answers.jsonl"
    prompts = PROMPTS[:1]
    with pytest.raises(HardwareError, match=r"20 rows in succession .*engine failed"):
        run(tmp_path / "images", out, prompts, SmallMemory(paths, ERRORS[0]))
    # The next run is past those rows.
    summary = run(tmp_path / "images", out, prompts, SmallMemory(paths, ERRORS[0]))
    assert (summary.resumed, summary.errors) == (MAX_FAILED_ROWS, MAX_FAILED_ROWS + 2)


def test_failures_between_answers_do_not_end_the_job(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "images", 2 * MAX_FAILED_ROWS + 2)
    model = SmallMemory(paths[::2], ERRORS[1])
    summary = run(tmp_path / "images", tmp_path / "answers.jsonl", PROMPTS[:1], model)
    assert summary.answers == summary.errors == MAX_FAILED_ROWS + 1


@pytest.mark.parametrize("error", [RuntimeError("a bug"), VlmcError("the disk is full")])
def test_other_errors_end_the_job(error: Exception, tmp_path: Path) -> None:
    paths = write_images(tmp_path / "images", 2)
    with pytest.raises(type(error), match=str(error)):
        run(tmp_path / "images", tmp_path / "o.jsonl", model=SmallMemory(paths, lambda: error))


def test_errors_that_differ_in_numbers_have_one_reason() -> None:
    failures = Failures()
    for number, tokens in enumerate((4000, 5000, 6000)):
        failures.add(number, {"error": f"the prompt has {tokens} tokens", "image": "a.jpg"})
    failures.add(3, {"error": "a.jpg: is empty (0 bytes)", "image": "a.jpg"})
    failures.add(4, {"error": None, "image": "a.jpg"})
    assert failures.most_frequent() == [
        ("the prompt has 4000 tokens", 3),
        ("a.jpg: is empty (0 bytes)", 1),
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_the_most_frequent_errors_are_in_the_summary(suffix: str, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 3, damaged=[1, 2])
    rows: list[dict[str, Any]] = [{"image": f"images/00{number}.jpg"} for number in range(3)]
    rows += [{"image": f"absent-{letter}.jpg"} for letter in "abc"] + [{"image": None}]
    source = write_jsonl(tmp_path / "rows.jsonl", *rows)
    out = tmp_path / f"answers{suffix}"
    for _ in range(2):
        summary = run(source, out, PROMPTS[:1])
        assert [count for _, count in summary.reasons] == [3, 2, 1]
        for (text, _), part in zip(
            summary.reasons, ("absent-a.jpg: there is no such", "damaged", "names no"), strict=True
        ):
            assert part in text
    write_images(tmp_path / "images", 3)
    assert len(run(source, out, PROMPTS[:1], retry_errors=True).reasons) == 2


class LostModel(FakeModel):
    """Is lost at a request: `raises` in between, or as the outcome of all that follow."""

    def __init__(self, raises: bool) -> None:
        super().__init__()
        self._raises = raises

    def try_each(self, requests: Iterable[tuple[Request, Work]]) -> Generator[Outcome, None, None]:
        lost = ModelLostError("the process of rank 1 ended.")
        for place, outcome in enumerate(super().try_each(requests)):
            if place >= 4 and self._raises:
                raise lost
            yield lost if place >= 4 else outcome


@pytest.mark.parametrize("raises", [True, False])
def test_a_lost_model_ends_the_job_without_lines_of_errors(raises: bool, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 5)
    out, fresh = tmp_path / "answers.jsonl", tmp_path / "fresh.jsonl"
    said = r"rank 1 ended\. Finished work is kept; run the same command again to resume\.$"
    with pytest.raises(ModelLostError, match=said), resumable():
        run(tmp_path / "images", out, model=LostModel(raises))
    resumed = run(tmp_path / "images", out)
    assert (resumed.resumed, resumed.errors) == (4, 0)
    run(tmp_path / "images", fresh)
    assert out.read_bytes() == fresh.read_bytes()
