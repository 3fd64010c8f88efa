"""The status of engines, as the reports beside an artifact tell it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.artifact.conftest import manifest
from vlmc.artifact.accuracy_status import Accuracy, read_accuracy, report_path, write_report

IDENTITY = "a" * 64


def entry(status: str, engine: str = "onnxruntime", target: str = "cpu") -> dict[str, str]:
    return {"engine": engine, "target": target, "status": status}


def write(
    folder: Path,
    dataset: str,
    *entries: dict[str, Any],
    identity: str = IDENTITY,
    limit: int | None = None,
) -> Path:
    values = {"identity": identity, "dataset": {"limit": limit}, "engines": [*entries]}
    return write_report(folder, dataset, values)


def test_missing_reports_are_none(tmp_path: Path) -> None:
    found = read_accuracy(tmp_path, IDENTITY)
    assert found == Accuracy({}, {}, (), frozenset())
    (engine,) = manifest().engines
    assert found.status(engine) == found.overall(manifest()) == "not_run"


def test_questions_are_those_of_whole_reports(tmp_path: Path) -> None:
    def asked(*names: str) -> dict[str, Any]:
        return {**entry("passed"), "answers": {"questions": {name: {} for name in names}}}

    write(tmp_path, "one", asked("fire", "door"), entry("onnx_only", "tensorrt", "sm89"))
    write(tmp_path, "two", asked("lamp"))
    write(tmp_path, "limited", asked("more"), limit=2)
    write(tmp_path, "other", asked("other"), identity="b" * 64)
    assert read_accuracy(tmp_path, IDENTITY).questions == {"fire", "door", "lamp"}


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (["passed", "failed"], "failed"),
        (["onnx_only", "passed"], "passed"),
        (["not_run", "onnx_only"], "onnx_only"),
    ],
)
def test_failure_is_not_outvoted(statuses: list[str], expected: str, tmp_path: Path) -> None:
    (engine,) = manifest().engines
    for index, status in enumerate(statuses):
        write(tmp_path, str(index), entry(status), entry("failed", "tensorrt", "sm89"))
    found = read_accuracy(tmp_path, IDENTITY)
    assert found.status(engine) == found.overall(manifest()) == expected
    assert found.sources["onnxruntime", "cpu"] == report_path(
        tmp_path, str(statuses.index(expected))
    )


@pytest.mark.parametrize(
    ("status", "expected"), [("passed", "not_run"), ("onnx_only", "not_run"), ("failed", "failed")]
)
def test_first_questions_can_fail_and_not_pass(status: str, expected: str, tmp_path: Path) -> None:
    path = write(tmp_path, "x", entry(status), limit=2)
    found = read_accuracy(tmp_path, IDENTITY)
    assert found.overall(manifest()) == expected
    said = f"{path} covers only the first 2 questions: a limited run can fail but never pass"
    assert found.ignored == (() if status == "failed" else (said,))


def test_beside_a_failure_the_first_questions_pass_nothing_either(tmp_path: Path) -> None:
    (engine,) = manifest().engines
    write(tmp_path, "x", entry("passed"), entry("failed", "tensorrt", "sm89"), limit=2)
    found = read_accuracy(tmp_path, IDENTITY)
    assert found.statuses == {("tensorrt", "sm89"): "failed"}
    assert found.status(engine) == "not_run"


def test_report_on_another_artifact_is_ignored_and_said(tmp_path: Path) -> None:
    path = write(tmp_path, "x", entry("passed"), identity="b" * 64)
    found = read_accuracy(tmp_path, IDENTITY)
    assert found.statuses == {}
    assert found.ignored == (f"{path} belongs to another artifact, bbbbbbbb; ignored",)


WHOLE: dict[str, Any] = {"dataset": {"limit": None}}
BAD: dict[str, Any] = {
    "list": [],
    "no identity": WHOLE | {"engines": []},
    "no engines": WHOLE | {"identity": IDENTITY},
    "no dataset": {"identity": IDENTITY, "engines": []},
    "limit": {"identity": IDENTITY, "dataset": {"limit": "few"}, "engines": []},
    "engines": WHOLE | {"identity": IDENTITY, "engines": ["passed"]},
    "status": WHOLE | {"identity": IDENTITY, "engines": [entry("good")]},
    "no target": WHOLE | {"identity": IDENTITY, "engines": [{"engine": "x", "status": "passed"}]},
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_report_is_ignored_and_said(name: str, tmp_path: Path) -> None:
    path = write_report(tmp_path, "x", {})
    path.write_text(json.dumps(BAD[name]))
    found = read_accuracy(tmp_path, IDENTITY)
    assert found.statuses == {}
    (said,) = found.ignored
    assert said.startswith(f"{path} is not a valid report (")


def test_links_and_pipes_are_no_reports(tmp_path: Path) -> None:
    path = write(tmp_path, "x", entry("passed"))
    path.with_name("accuracy-y.json").symlink_to(path)
    os.mkfifo(path.with_name("accuracy-z.json"))
    path.rename(tmp_path / "kept.json")
    path.with_name("accuracy-y.json").unlink()
    path.with_name("accuracy-y.json").symlink_to(tmp_path / "kept.json")
    found = read_accuracy(tmp_path, IDENTITY)
    assert found.statuses == {}
    assert len(found.ignored) == 2
