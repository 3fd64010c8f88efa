"""What is attacked works otherwise, and the limit of memory holds."""

from __future__ import annotations

from pathlib import Path

from tests.attacks.conftest import answer, reseal


def test_an_honest_artifact_answers(copied: Path, images: Path) -> None:
    reseal(copied)
    ended = answer(copied, images)
    assert ended.exit_code == 0, ended
    assert ended.stdout == "out.jsonl\n"


def test_without_memory_it_does_not(copied: Path, images: Path) -> None:
    assert answer(copied, images, spare_bytes=1 << 20).exit_code != 0
