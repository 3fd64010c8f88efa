"""The page of `vlmc bench` in a real browser."""

from __future__ import annotations

from pathlib import Path

from tests.browser import check_readable, find_browser
from tests.command import call


def test_page_is_readable(artifact: Path, images: Path, tmp_path: Path) -> None:
    find_browser()
    done = call(
        *("bench", artifact, "--images", images / "448x448.jpg", "--tiles", "single", "--ladder"),
        *("--device", "cpu", "--max-new-tokens", 1, "-o", tmp_path / "report"),
    )
    assert done.exit_code == 0, done.stderr
    page = (tmp_path / "report" / "bench.html").read_text("utf-8")
    check_readable({"bench": page}, tmp_path)
