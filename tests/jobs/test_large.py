"""Large jobs through a model that costs nothing: the rate, and memory that stays flat."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterable
from pathlib import Path

import pytest

from tests.jobs.fake import FakeAnswer
from tests.jobs.input.write import jpeg
from tests.jobs.small_job import PROMPTS
from tests.peak_memory import anonymous_bytes
from vlmc.jobs.input.open import open_input
from vlmc.jobs.job import run_job
from vlmc.jobs.question_runner import Outcome, Work
from vlmc.progress.channel import receiving
from vlmc.progress.events import Event, Progress
from vlmc.runtime.requests.request import Request

IMAGES = 200_000
ROWS = 1_000_000
FLAT_BYTES = 32 << 20


class NullModel:
    """Reads 256 requests ahead, as the runtime does, and has one answer to all."""

    def try_each(self, requests: Iterable[tuple[Request, Work]]) -> Generator[Outcome, None, None]:
        ahead = 0
        answer = FakeAnswer("yes")
        for _ in requests:
            ahead += 1
            if ahead > 256:
                yield answer  # type: ignore[misc]
        for _ in range(min(ahead, 256)):
            yield answer  # type: ignore[misc]

    def token_texts(self, token_ids: object) -> list[str]:
        """There are no tokens."""
        return []


def run_measured(source: Path, out: Path, count: int) -> tuple[float, int]:
    """(rows a second from opening to the end, bytes that memory grew by after a tenth)."""
    held: list[int] = []

    def receive(event: Event) -> None:
        if isinstance(event, Progress) and event.text == "answers":
            done = event.done or 0
            held.extend([anonymous_bytes()] if done and done % (count // 20) == 0 else [])

    begin = time.monotonic()
    with receiving(receive):
        summary = run_job(
            NullModel(), open_input(str(source)), PROMPTS[:1], out, artifact="f00d", tiles="single"
        )
    seconds = time.monotonic() - begin
    assert (summary.answers, summary.errors) == (count, 0)
    with out.open() as file:
        assert all(json.loads(line)["row"] == row for row, line in enumerate(file))
    grown = max(held[2:]) - held[1]
    print(f"{count / seconds:,.0f} rows a second, {grown:,} bytes more after a tenth")
    return count / seconds, grown


@pytest.mark.slow
def test_a_folder_of_many_images(tmp_path: Path) -> None:
    content = jpeg()
    for number in range(IMAGES):
        folder = tmp_path / "images" / f"{number // 1000:03}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:06}.jpg").write_bytes(content)
    rate, grown = run_measured(tmp_path / "images", tmp_path / "answers.jsonl", IMAGES)
    # 6,900 a second on two busy cores.
    assert rate > 400 and grown < FLAT_BYTES


@pytest.mark.slow
def test_a_table_of_a_million_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        file.writelines(f'{{"image": "a/{row}.jpg", "id": {row}}}\n' for row in range(ROWS))
    rate, grown = run_measured(path, tmp_path / "answers.jsonl", ROWS)
    assert rate > 400 and grown < FLAT_BYTES
