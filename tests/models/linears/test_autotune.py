"""What was measured is kept for the user alone, and measured anew where it cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vlmc.models.linears import autotune
from vlmc.models.linears.autotune import autotuned


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "vlmc" / "kernels" / "rows.json"


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """As a new process would start."""
    return lambda: monkeypatch.setattr(autotune, "_decided", {})


def never() -> int:
    raise AssertionError("measured again")


def test_measured_once(kept: Path, forget: Callable[[], None]) -> None:
    forget()
    assert autotuned("rows", "one", lambda: 64, int) == 64
    assert autotuned("rows", "one", never, int) == 64
    assert autotuned("rows", "two", lambda: 128, int) == 128
    forget()
    assert autotuned("rows", "one", never, int) == 64
    assert json.loads(kept.read_text()) == {"one": 64, "two": 128}
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    assert kept.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"one": "many"}', '{"one": null}', "[" * 99999])
def test_a_damaged_file_is_measured_anew(text: str, kept: Path, forget: Callable[[], None]) -> None:
    autotuned("rows", "other", lambda: 1, int)
    kept.write_text(text)
    forget()
    assert autotuned("rows", "one", lambda: 64, int) == 64
    assert json.loads(kept.read_text())["one"] == 64


def test_a_file_that_others_may_write_is_not_believed(
    kept: Path, forget: Callable[[], None]
) -> None:
    autotuned("rows", "one", lambda: 64, int)
    kept.chmod(0o666)
    forget()
    assert autotuned("rows", "one", lambda: 8, int) == 8
