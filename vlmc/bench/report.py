"""The results of a measurement, written as they come: JSON for each case, then all with a page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vlmc.bench.environment import environment
from vlmc.bench.measure import Measured
from vlmc.bench.page import draw_page
from vlmc.bench.peak import Peaks
from vlmc.bench.summary import summarize
from vlmc.bench.timeline_chart import draw_run
from vlmc.errors import UsageError
from vlmc.files.atomic import write_atomically
from vlmc.progress.channel import report
from vlmc.progress.events import Note

SCHEMA = 1
_NAME_LENGTH = 40


class BenchReport:
    """Collects the cases of one call."""

    def __init__(
        self,
        device: torch.device,
        options: Mapping[str, Any],
        *,
        output: Path | None,
        price_per_hour: float | None,
        on_case: Callable[[Mapping[str, Any]], None],
    ) -> None:
        """`output` is the folder to write to; `on_case` is given each case once it is measured.

        Raises:
            UsageError: the folder cannot be made.
        """
        self._device, self._options, self._output = device, dict(options), output
        self._price, self._on_case = price_per_hour, on_case
        self._peaks = Peaks(device)
        self._environment = environment(device)
        self._cases: list[dict[str, Any]] = []
        self._pictures: list[str] = []
        self._not_written: list[str] = []
        if output is not None:
            try:
                output.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(
                    f"{output} cannot be made ({error.strerror}); give another folder to -o"
                ) from error

    def add(self, measured: Measured) -> dict[str, Any]:
        """Summarize a case, and write it."""
        values = summarize(measured, self._peaks, self._price)
        self._cases.append(values)
        self._pictures.append(draw_run(f"{measured.subject.name}: one run", measured.median_run))
        if self._output is not None:
            name = re.sub(r"[^\w.-]+", "-", measured.subject.name)[:_NAME_LENGTH].strip("-")
            path = self._output / f"case-{len(self._cases):02}-{name}.json"
            self._write(path, _text({"environment": self._environment, **values}))
        self._on_case(values)
        return values

    def finish(self, ladder: Sequence[Mapping[str, Any]] | None = None) -> dict[str, Any]:
        """Everything as one JSON object, also written as `bench.json` and `bench.html`.

        Its `not_written` has a sentence for each file that could not be written: what was measured
        is not lost over it.
        """
        values = {
            "schema": SCHEMA,
            "environment": self._environment,
            "options": self._options,
            "price_per_hour": self._price,
            "peaks_tflops": dict(self._peaks.tflops),
            "cases": self._cases,
            "ladder": None if ladder is None else list(ladder),
        }
        if self._output is not None:
            self._write(self._output / "bench.json", _text(values))
            self._write(self._output / "bench.html", draw_page(values, self._pictures))
        return values | {"not_written": self._not_written}

    def _write(self, path: Path, text: str) -> None:
        try:
            write_atomically(path, text)
        except OSError as error:
            self._not_written.append(f"{path} cannot be written ({error.strerror})")
            report(Note(self._not_written[-1]))


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"
