"""What `vlmc verify accuracy` found of an artifact's engines, read from its reports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from vlmc.artifact.integrity import REPORTS
from vlmc.artifact.manifest import EngineRecord, Manifest
from vlmc.errors import UsageError
from vlmc.files.atomic import write_atomically
from vlmc.files.strict_json import read_json

AccuracyStatus = Literal["passed", "failed", "onnx_only", "not_run"]
"""`onnx_only`: the bundled graph passed, the engine itself has not been run."""
EngineKey = tuple[str, str]
"""An engine's name and target."""
MAX_REPORT_BYTES = 8 << 20
# With several datasets, one failure outweighs every pass.
_RANKS: tuple[AccuracyStatus, ...] = ("failed", "passed", "onnx_only", "not_run")


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Status by engine, and the report each comes from; `ignored` says why others do not count.

    `questions` are the ids of all questions that the reports are about; "" is that of questions
    without one.
    Reports are not part of the payload: whoever can write to the folder can write one.
    """

    statuses: Mapping[EngineKey, AccuracyStatus]
    sources: Mapping[EngineKey, Path]
    ignored: tuple[str, ...]
    questions: frozenset[str]

    def status(self, engine: EngineRecord) -> AccuracyStatus:
        """Of one engine."""
        return self.statuses.get((engine.engine, engine.target), "not_run")

    def overall(self, manifest: Manifest) -> AccuracyStatus:
        """The worst of all engines: an artifact has passed when each of them has."""
        found = {self.status(engine) for engine in manifest.engines}
        order: tuple[AccuracyStatus, ...] = ("failed", "not_run", "onnx_only", "passed")
        return next((status for status in order if status in found), "not_run")


def report_path(folder: Path, dataset: str) -> Path:
    """The report on a dataset, by its digest."""
    return folder / REPORTS / f"accuracy-{dataset}.json"


def read_accuracy(folder: Path, identity: str) -> Accuracy:
    """The statuses in the reports beside the payload; an engine without a report has none."""
    statuses: dict[EngineKey, AccuracyStatus] = {}
    sources: dict[EngineKey, Path] = {}
    ignored, questions = [], set[str]()
    for path in sorted((folder / REPORTS).glob("accuracy-*.json")):
        report = read_report(path, identity)
        if isinstance(report, str):
            ignored.append(report)
            continue
        limit, found = _limit(report), _statuses(report)
        if limit is not None and "failed" not in found.values():
            ignored.append(
                f"{path} covers only the first {limit} questions: "
                "a limited run can fail but never pass"
            )
            continue
        questions |= _questions(report)
        for key, status in found.items():
            if limit is not None and status != "failed":
                continue
            if _RANKS.index(status) < _RANKS.index(statuses.get(key, "not_run")):
                statuses[key], sources[key] = status, path
    return Accuracy(statuses, sources, tuple(ignored), frozenset(questions))


def read_report(path: Path, identity: str) -> dict[str, Any] | str:
    """A report on the artifact of this identity, or why it does not count."""
    try:
        values = read_json(path, MAX_REPORT_BYTES, follow_links=False)
        if values["identity"] != identity:
            return f"{path} belongs to another artifact, {str(values['identity'])[:8]}; ignored"
        _statuses(values), _limit(values), _questions(values)
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}); ignored"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{path} is not a valid report ({error}); ignored"
    report: dict[str, Any] = values
    return report


def write_report(folder: Path, dataset: str, values: Mapping[str, Any]) -> Path:
    """Write the report on a dataset, whole or not at all; returns where.

    Raises:
        UsageError: the artifact's folder cannot be written to.
    """
    text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False)
    return _write(report_path(folder, dataset), text + "\n")


def write_page(folder: Path, dataset: str, text: str) -> Path:
    """Write the page beside the report on a dataset, as `write_report` does."""
    return _write(report_path(folder, dataset).with_suffix(".html"), text)


def _write(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(exist_ok=True)
        # JSON's own escape of lone surrogates, which labels may hold and UTF-8 cannot.
        write_atomically(path, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written ({error.strerror}); the status of an artifact is kept in "
            "its folder. Make that writable, or copy the artifact to where it is."
        ) from error
    return path


def _limit(report: Mapping[str, Any]) -> int | None:
    """How many of the dataset's first questions the run covered; None means all."""
    limit = report["dataset"]["limit"]
    return None if limit is None else int(limit)


def _questions(report: Mapping[str, Any]) -> set[str]:
    """Ids of the questions of all engines; an entry that was not asked itself has none."""
    answers = [entry.get("answers") or {} for entry in report["engines"]]
    return {str(name) for found in answers for name in dict(found.get("questions") or {})}


def _statuses(report: Mapping[str, Any]) -> dict[EngineKey, AccuracyStatus]:
    found: dict[EngineKey, AccuracyStatus] = {}
    for entry in report["engines"]:
        status = entry["status"]
        if status not in get_args(AccuracyStatus):
            raise ValueError(f"{status!r} is not a status")
        found[str(entry["engine"]), str(entry["target"])] = status
    return found
