"""A worker: one model that answers the parts it is given, and writes them."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from vlmc.artifact.manifest import EngineRecord
from vlmc.errors import ModelLostError, VlmcError
from vlmc.files.units import shorten
from vlmc.jobs.audit import Audit
from vlmc.jobs.input.questions import Question
from vlmc.jobs.input.rows import ImageInput
from vlmc.jobs.output.failures import line_error
from vlmc.jobs.output.part_form import PartForm
from vlmc.jobs.output.parts import PartsFolder, RowRange
from vlmc.jobs.question_runner import QuestionRunner
from vlmc.jobs.ray.chunks import prepared_ahead
from vlmc.jobs.ray.part import Part, PartDone
from vlmc.jobs.ray.part_stream import AnsweredPart, NotesOfParts, PartStream
from vlmc.jobs.ray.prepare import Images, move_to, prepare_images
from vlmc.jobs.ray.source import AuditedModel, ModelSource
from vlmc.jobs.settings import JobSettings
from vlmc.jobs.stop import Stop


@dataclass(frozen=True, slots=True)
class WorkerTask:
    """What all workers of a job are given.

    `cores`, if given, are how many each may use. Paths of images are relative to `work_folder`.
    `patience_s` is how long a task that prepares images is waited for. `audit` is the share of
    answers that is checked.
    """

    source: ModelSource
    device: str
    cores: int | None
    settings: JobSettings
    is_batch: bool
    form: PartForm
    folder: PartsFolder
    work_folder: str
    patience_s: float
    audit: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """Where a worker is and what it answers with; `life` is another one after each start."""

    life: str
    host: str
    engine: str
    chosen: EngineRecord | None


@dataclass(frozen=True, slots=True)
class _Preparing:
    """Images of some rows, and the task that prepares them."""

    images: list[ImageInput | None]
    reference: Any


@dataclass(frozen=True, slots=True)
class PartProgress:
    """Of a part that is not written yet: lines, those with an error, and the rows of these."""

    part: RowRange
    lines: int
    errors: int
    error_rows: int


class Worker:
    """An actor of Ray, whose methods run on several threads at once."""

    def __init__(self, task: WorkerTask, prepare: Any) -> None:
        """`prepare` is `prepare_images` as a task of Ray. A model that cannot be opened is reported
        by `ready`, since Ray says less of what fails here."""
        self._task, self._prepare, self._life = task, prepare, secrets.token_hex(8)
        self._error: Exception | None = None
        self._patience_s, self._lacked_cores = task.patience_s, False
        move_to(task.work_folder)
        self._cores = None if task.cores is None else keep_to(task.cores)
        try:
            self._opened = task.source.open(task.device)
        except Exception as error:
            self._error = error
            return
        self._stream = PartStream(partial(self._runner, self._opened.model), self._prepared)

    def ready(self) -> WorkerFacts:
        """Where it runs and with what, once the model is loaded; raises what kept it from that."""
        if self._error is not None:
            raise self._error
        opened = self._opened
        return WorkerFacts(self._life, socket.gethostname(), opened.engine, opened.chosen)

    def answer(self, part: Part) -> PartDone:
        """Answer a part and write it; where the job stops, the rows that are answered.

        Ends the process where the model is lost, since Ray then starts it again.

        Raises:
            VlmcError: the device failed, or the part cannot be written. What was answered before
                is written.
        """
        answered = self._stream.put(part)
        try:
            answered.ended.result()
        except ModelLostError as error:
            print(error, file=sys.stderr, flush=True)  # Ray's log of the worker
            os._exit(1)
        except VlmcError:
            self._written(answered)
            raise
        return self._written(answered)

    def progress(self) -> list[PartProgress]:
        """How far the parts are that it has begun."""
        return [
            PartProgress(one.part.rows, len(one.lines), one.errors, len(one.error_rows))
            for one in self._stream.unfinished
        ]

    def stop(self) -> None:
        """Begin no more requests."""
        self._stream.stop()

    def _runner(self, model: AuditedModel, notes: NotesOfParts) -> QuestionRunner:
        task, settings = self._task, self._task.settings
        return QuestionRunner(
            model,
            settings.form(model, task.is_batch, other_columns=task.form.parquet is None),
            settings.choices,
            settings.max_new_tokens,
            settings.measure,
            Stop(),
            None if task.audit is None else Audit(model, task.audit),
            notes,
        )

    def _prepared(self, questions: Iterable[Question]) -> Iterator[Question]:
        return prepared_ahead(
            questions,
            self._task.source.maker.tiles.most_tiles,
            self._begin_images,
            self._images,
        )

    def _begin_images(self, images: list[ImageInput | None]) -> _Preparing:
        maker, folder = self._task.source.maker, self._task.work_folder
        return _Preparing(images, self._prepare.remote(maker, folder, images))

    def _images(self, preparing: _Preparing) -> Images:
        """What a task prepared, or this process where the task does not end.

        Raises:
            VlmcError: the task failed, which no image may make it do.
        """
        import ray

        try:
            images: Images = ray.get(preparing.reference, timeout=self._patience_s)
        except ray.exceptions.GetTimeoutError:
            # Other jobs may have taken all cores of the cluster.
            ray.cancel(preparing.reference)
            self._patience_s, self._lacked_cores = self._task.patience_s / 10, True
            return prepare_images(self._task.source.maker, self._task.work_folder, preparing.images)
        except ray.exceptions.RayError as error:
            raise VlmcError(
                f"the images of some rows could not be prepared ({shorten(str(error).strip(), 400)}"
                "). Finished parts are kept. Correct the cause, and run the same command again to "
                "resume"
            ) from error
        self._patience_s = self._task.patience_s
        return images

    def _written(self, answered: AnsweredPart) -> PartDone:
        part, lines = answered.part, answered.lines
        if not part.replaces and not answered.is_whole:
            # Whole rows only: the questions on a row stay together.
            following = part.questions[len(lines)].row.number
            lines = [one for one in lines if one[0].row.number != following]
        rows = None
        if lines:
            rows = part.rows
            if not part.replaces:
                rows = RowRange(rows.first, lines[-1][0].row.number)
            self._write(part, rows.name + self._task.folder.suffix, lines)
        lacked_cores, self._lacked_cores = self._lacked_cores, False
        return PartDone(
            rows,
            len(lines),
            {question.line: line for question, line in lines if line_error(line) is not None},
            tuple(answered.notes),
            answered.audit,
            lacked_cores,
        )

    def _write(self, part: Part, name: str, lines: list[tuple[Question, dict[str, Any]]]) -> None:
        folder, form = self._task.folder, self._task.form
        if part.replaces:
            places = {question.line - part.first_line: line for question, line in lines}
            content = form.replaced(folder.read(name), name, places)
        else:
            content = form.encode(
                [line for _, line in lines], [question.row for question, _ in lines]
            )
        folder.write(name, content)


def keep_to(cores: int) -> socket.socket | None:
    """Let this process use so many cores, others than those of other workers on its machine.

    Returns:
        What reserves them until it is closed or the process ends; None where all are taken, so
        that this process uses any.
    """
    available = sorted(os.sched_getaffinity(0))
    for first in range(0, len(available) - cores + 1, cores):
        taken = available[first : first + cores]
        # An abstract name is unique on the machine, and free again however its process ends.
        reserved = socket.socket(socket.AF_UNIX)
        try:
            reserved.bind(f"\0vlmc-core-{taken[0]}")
        except OSError:
            reserved.close()
            continue
        os.sched_setaffinity(0, taken)
        return reserved
    return None
