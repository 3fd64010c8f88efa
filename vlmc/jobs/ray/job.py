"""The job on a Ray cluster: the lines of `run_job`, in a folder of parts."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from vlmc.jobs.file_index import FileIndex, InputChanges, refuse_changes
from vlmc.jobs.input.image_files import ImageFiles
from vlmc.jobs.input.openai_batch import BatchRows
from vlmc.jobs.input.prompts import Prompt
from vlmc.jobs.input.questions import Questions
from vlmc.jobs.input.rows import Rows
from vlmc.jobs.ledger import ledger_in
from vlmc.jobs.output.columns import output_columns
from vlmc.jobs.output.part_form import PartForm
from vlmc.jobs.output.parts import INDEX, LEDGER, PartsFolder
from vlmc.jobs.preflight import check_questions
from vlmc.jobs.ray.cluster import Slots, connected, find_slots
from vlmc.jobs.ray.node_check import NodeNeeds, check_nodes
from vlmc.jobs.ray.passage import Passage
from vlmc.jobs.ray.pool import Pool
from vlmc.jobs.ray.source import ModelSource
from vlmc.jobs.ray.worker import WorkerFacts, WorkerTask
from vlmc.jobs.settings import JobSettings
from vlmc.jobs.stop import Stop
from vlmc.jobs.summary import JobSummary
from vlmc.version import __version__

PATIENCE_SECONDS = 60.0
"""How long a worker waits for a task that prepares images, before it prepares them itself."""
PARTS_PER_WORKER = 32
LEAST_LINES, MOST_LINES = 32, {"cpu": 64, "cuda": 512}
"""Lines of a part: many small parts keep all workers busy to the end and lose little to a kill;
larger ones make fewer files."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where a job runs: `address` of Ray, `device` of its models, how many `devices` share one,
    and how many `workers`, by default as many as there is room for; see `find_slots`."""

    address: str = "local"
    device: str = "auto"
    devices: int = 1
    workers: int | None = None


def run_ray_job(
    source: ModelSource,
    rows: Rows,
    prompts: Sequence[Prompt],
    out: PartsFolder,
    cluster: Cluster,
    settings: JobSettings,
    *,
    thresholds: str | None = None,
    retry_errors: bool = False,
    strict_input: bool = False,
    stop: Stop | None = None,
    audit: float | None = None,
    on_ready: Callable[[Sequence[WorkerFacts]], None] = lambda _: None,
) -> JobSummary:
    """Do as `run_job` does, on a Ray cluster: `out` is a folder of parts, whose lines in the order
    of their names are those of `run_job`.

    `audit` is the share of the answers that is checked. `on_ready` is called with what the workers
    are, before the first question, and with those that join later with another engine.

    Raises:
        UsageError: the job cannot run so, belongs to another job, or a node of the cluster differs
            from this machine.
        IntegrityError: `out` was changed or damaged.
        VlmcError: the workers cannot go on.
    """
    started_at, stop = time.monotonic(), stop or Stop()
    check_questions(
        rows, prompts, out.suffix, settings.choices, settings.max_new_tokens, settings.confidence
    )
    with ledger_in(out) as ledger_file:
        parts = out.parts()
        part_rows = ledger_file.part_rows

        def bind(part_rows: int) -> None:
            origin = source.maker.origin
            ledger = settings.ledger(
                rows,
                prompts,
                artifact=origin.artifact,
                tiles=origin.tiles,
                thresholds=thresholds,
                part_rows=part_rows,
            )
            ledger_file.bind(ledger, out, started=bool(parts))

        if parts and part_rows is not None:
            bind(part_rows)  # before Ray is started
        with _indexed(out, rows, bool(parts), strict_input) as (index, indexed, save_index):
            columns = () if isinstance(rows, BatchRows) else output_columns(settings.confidence)
            form = PartForm.of(indexed, out.suffix, columns)
            passage = Passage(out, form, Questions(indexed, prompts), parts)
            passage.scan()
            if index is not None:
                index.accept(lambda row: not passage.keeps(row, retry_errors))
            with connected(cluster.address) as ray:
                slots = find_slots(ray, cluster.device, cluster.devices, cluster.workers)
                if not parts or part_rows is None:
                    part_rows = _part_rows(passage.questions, slots)
                    bind(part_rows)
                task = WorkerTask(
                    source,
                    slots.device,
                    slots.cores if slots.count > 1 else None,
                    settings,
                    isinstance(rows, BatchRows),
                    form,
                    out.absolute(),
                    str(Path.cwd()),
                    PATIENCE_SECONDS,
                    audit,
                )
                check_nodes(ray, _needs(task, indexed))
                with closing(Pool(ray, slots, task, on_ready)) as pool:
                    pool.wait_until_ready(stop)
                    save_index()
                    passage.run(pool, part_rows, retry_errors, stop)
            out.parts()  # removes what workers that died left of a part
    changes = InputChanges() if index is None else index.changes
    return passage.summary(indexed, changes, started_at, stop)


@contextmanager
def _indexed(
    out: PartsFolder, rows: Rows, started: bool, strict_input: bool
) -> Iterator[tuple[FileIndex | None, Rows, Callable[[], None]]]:
    """The index of image files, the rows in its order, and what stores it."""
    if not isinstance(rows, ImageFiles):
        yield None, rows, lambda: None
        return
    with tempfile.TemporaryDirectory() as folder:
        is_local = isinstance(out.place, Path)
        path = out.place / INDEX if isinstance(out.place, Path) else Path(folder) / INDEX
        if started and not is_local:
            path.write_bytes(out.read(INDEX))
        index = FileIndex(path, rows, started)
        if strict_input:
            refuse_changes(out, index.changes)

        def save() -> None:
            index.save()
            if not is_local:
                out.write(INDEX, path.read_bytes())

        yield index, index.rows, save


def _part_rows(questions: Questions, slots: Slots) -> int:
    """The rows of a part, for a new output."""
    lines = questions.total // (slots.count * PARTS_PER_WORKER)
    # Of a small job every worker gets a part.
    least = min(LEAST_LINES, -(-questions.total // slots.count))
    lines = max(least, min(MOST_LINES[slots.device], lines))
    return max(1, lines // len(questions.lines_of(0)))


def _needs(task: WorkerTask, rows: Rows) -> NodeNeeds:
    """What every node must have for a job."""
    folder, out = task.source.folder, task.folder.place
    first = next(iter(rows.read()), None)
    image = None if first is None else first.image
    image = image[0] if isinstance(image, list) and image else image
    seen = isinstance(image, Path) and image.exists()
    return NodeNeeds(
        version=__version__,
        identity=task.source.maker.origin.artifact,
        artifact=None if folder is None else str(folder.absolute()),
        output=str(out / LEDGER) if isinstance(out, Path) else None,
        image=str(Path(task.work_folder) / image) if isinstance(image, Path) and seen else None,
        parquet=task.form.parquet is not None,
    )
