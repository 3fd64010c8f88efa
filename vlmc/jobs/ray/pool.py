"""The workers of a job, each with some parts ahead; one that dies is started again."""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vlmc.errors import HardwareError, VlmcError
from vlmc.jobs.output.parts import RowRange
from vlmc.jobs.ray.cluster import Slots
from vlmc.jobs.ray.part import Part, PartDone
from vlmc.jobs.ray.prepare import prepare_images
from vlmc.jobs.ray.worker import PartProgress, Worker, WorkerFacts, WorkerTask
from vlmc.jobs.stop import Stop
from vlmc.progress.channel import report
from vlmc.progress.events import Note, Progress

PARTS_AHEAD = 3
"""Parts that a worker holds: one that ends, one that is answered, one that is asked next."""
MAX_DEATHS, MAX_PART_DEATHS = 5, 8
"""How many times a worker may die while it loads its model, before the model is blamed, and while
it answers a part, before the part is. Workers that are killed from outside every few seconds often
die several times in succession while they answer the same part."""
PREPARE_CPUS = 0.5
PREPARE_RETRIES = 10
LOAD_SECONDS = 30
"""How long the others are waited for once a worker is ready; those that come later join in."""
PROGRESS_SECONDS = 1.0
_COLOUR = re.compile(r"\x1b\[\d*m")


@dataclass(slots=True)
class PoolWorker:
    """`facts` are None while its model loads, and `was_ready` says whether its actor has loaded it
    before. `held` are the parts that it was given, in order, and `done` counts the lines that it
    has written."""

    number: int
    actor: Any
    facts: WorkerFacts | None = None
    was_ready: bool = False
    held: list[Part] = field(default_factory=list)
    done: int = 0
    last_progress: Sequence[PartProgress] = ()
    asked_at: float = 0.0
    # Of its last life: what it was called, and the rows that it answered when its calls failed.
    former: tuple[str, RowRange] | None = None

    @property
    def progress(self) -> list[PartProgress]:
        """Of the parts that it holds, as it last said."""
        held = {part.rows for part in self.held}
        return [one for one in self.last_progress if one.part in held]

    @property
    def name(self) -> str:
        """What progress calls it."""
        return f"worker {self.number}"


@dataclass(frozen=True, slots=True)
class _Call:
    """`facts` are those of the worker when it was called."""

    kind: Literal["ready", "answer", "progress"]
    worker: PoolWorker
    facts: WorkerFacts | None = None
    part: Part | None = None


class Pool:
    """Starts workers and hands them parts. The driver only counts what they write."""

    def __init__(
        self,
        ray: Any,
        slots: Slots,
        task: WorkerTask,
        on_ready: Callable[[Sequence[WorkerFacts]], None] = lambda _: None,
    ) -> None:
        """`on_ready` is called with the workers that are ready, and later with those that join
        with another engine; what it raises ends the job."""
        self._ray = ray
        self._calls: dict[Any, _Call] = {}
        self._next: deque[Part] = deque()
        self._deaths: Counter[RowRange] = Counter()
        self._said_cores = False
        prepare = ray.remote(num_cpus=PREPARE_CPUS, max_retries=PREPARE_RETRIES)(prepare_images)
        actor = ray.remote(
            max_restarts=MAX_DEATHS - 1,
            # Any worker takes the parts of one that died, so Ray need not repeat them.
            max_task_retries=0,
            max_concurrency=PARTS_AHEAD + 3,
            scheduling_strategy="SPREAD",
            **slots.options,
        )(Worker)
        self._on_ready, self._engines = on_ready, set[str]()
        self._start: Callable[[], Any] = lambda: actor.remote(task, prepare)
        self.workers = [PoolWorker(number, self._start()) for number in range(slots.count)]
        for worker in self.workers:
            self._load(worker)

    def wait_until_ready(self, stop: Stop) -> None:
        """Wait for the workers, the first and then `LOAD_SECONDS`, or until the job stops.

        Raises:
            VlmcError: a worker's model cannot be opened, or `on_ready` refuses it.
        """
        report(Progress("waiting for room on the cluster, and loading models"))
        deadline = None
        while not all(worker.facts for worker in self.workers):
            for call, reference in self._finished():
                self._begin(call.worker, reference)
                deadline = deadline or time.monotonic() + LOAD_SECONDS
            if stop.reason is not None:
                return
            if deadline is not None and time.monotonic() >= deadline:
                break
        found = [worker.facts for worker in self.workers if worker.facts is not None]
        if len(found) < len(self.workers):
            report(
                Note(
                    f"{len(found)} of {len(self.workers)} workers are ready; the others join when "
                    "the cluster has room for them"
                )
            )
        self._announce(found)

    def run(self, parts: Iterator[Part], stop: Stop) -> Iterator[tuple[Part, PartDone] | None]:
        """Have the parts answered, in any order, until the job stops; None where only the progress
        is new.

        Raises:
            VlmcError: the work cannot go on; what the workers have answered is written first.
        """
        failed: VlmcError | None = None
        stopping = False
        stop.begin()
        while True:
            if not stopping and (failed is not None or stop.reason is not None):
                stopping = True
                running = "; finishing the requests that run" if self._is_answering else ""
                report(Note(f"{failed or stop.reason}{running}"))
                for worker in self.workers:
                    worker.actor.stop.remote()
            has_more = not stopping and self._give(parts)
            if not has_more and not self._is_answering:
                break
            for call, reference in self._finished():
                try:
                    if call.part is not None:
                        done = self._done(call, call.part, reference)
                        if done is not None:
                            yield call.part, done
                    elif call.kind == "ready":
                        self._rejoin(call.worker, reference)
                    else:
                        self._note_progress(call, reference)
                except VlmcError as error:
                    failed = failed or error
            self._ask_for_progress()
            yield None
        if failed is not None:
            raise failed

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers:
            self._ray.kill(worker.actor)

    @property
    def _is_answering(self) -> bool:
        """Whether a worker answers a part."""
        return any(call.kind == "answer" for call in self._calls.values())

    def _announce(self, ready: Sequence[WorkerFacts]) -> None:
        """Say what engines answer that have not been announced."""
        new = [facts for facts in ready if facts.engine not in self._engines]
        if new:
            self._on_ready(new)
        self._engines.update(facts.engine for facts in new)

    def _load(self, worker: PoolWorker) -> None:
        # Waits for a worker that is started again, unlike the calls that hand it parts.
        reference = worker.actor.ready.options(max_task_retries=-1).remote()
        self._calls[reference] = _Call("ready", worker)

    def _give(self, parts: Iterator[Part]) -> bool:
        """Hand parts to workers that hold few; whether there are more."""
        ready = [worker for worker in self.workers if worker.facts is not None]
        for count in range(PARTS_AHEAD):
            for worker in ready:
                if not self._next and (part := next(parts, None)) is not None:
                    self._next.append(part)
                if not self._next:
                    return False
                if len(worker.held) <= count:
                    part = self._next.popleft()
                    call = _Call("answer", worker, worker.facts, part)
                    self._calls[worker.actor.answer.remote(part)] = call
                    worker.held.append(part)
        return True

    def _finished(self) -> Iterator[tuple[_Call, Any]]:
        """Calls that have ended; waits for the first of them for a moment."""
        ready, _ = self._ray.wait(list(self._calls), timeout=PROGRESS_SECONDS / 2)
        if ready:
            ready, _ = self._ray.wait(list(self._calls), num_returns=len(self._calls), timeout=0)
        for reference in ready:
            yield self._calls.pop(reference), reference

    def _begin(self, worker: PoolWorker, reference: Any) -> None:
        """Note that a worker is ready, or start another one where Ray has given it up.

        Raises:
            VlmcError: its model cannot be loaded.
        """
        try:
            worker.facts = self._value(reference)
            worker.was_ready = True
        except self._ray.exceptions.RayActorError as error:
            if not worker.was_ready:
                raise HardwareError(
                    f"{worker.name} ended {MAX_DEATHS} times while it loaded its model. If memory "
                    "is short, use fewer --workers; otherwise see the logs of Ray on its machine. "
                    "Finished parts are kept; run the same command again to resume"
                ) from error
            worker.actor, worker.was_ready = self._start(), False
            self._load(worker)

    def _rejoin(self, worker: PoolWorker, reference: Any) -> None:
        """Let a worker take parts; the others go on without one that cannot be loaded."""
        try:
            self._begin(worker, reference)
        except VlmcError as error:
            self.workers.remove(worker)
            if not self.workers:
                raise
            report(Note(f"{worker.name} cannot begin, and the others go on without it: {error}"))
            return
        if worker.facts is not None:
            self._announce([worker.facts])
        if worker.former is None or worker.facts is None or worker.former[0] == worker.facts.life:
            return
        rows = worker.former[1]
        self._deaths[rows] += 1
        if self._deaths[rows] >= MAX_PART_DEATHS:
            raise HardwareError(
                f"workers ended {MAX_PART_DEATHS} times while they answered rows {rows.first} to "
                f"{rows.last}. Finished parts are kept. If memory is short, use fewer --workers or "
                "a tile rule with fewer tiles, and run the same command again to resume"
            )

    def _done(self, call: _Call, part: Part, reference: Any) -> PartDone | None:
        """What became of a part, or None if its worker died, so that it is answered again."""
        try:
            done: PartDone = self._value(reference)
        except self._ray.exceptions.RayActorError:
            self._lost(call)
            # In order, so that each death counts for the part that came next then.
            self._next = deque(sorted((*self._next, part), key=lambda one: one.first_line))
            return None
        finally:
            call.worker.held.remove(part)
        call.worker.done += done.lines
        if done.lacked_cores and not self._said_cores:
            self._said_cores = True
            report(
                Note(
                    f"no core of the cluster was free to prepare images, so {call.worker.name} "
                    "prepares its images itself, which is slower. Other jobs may have taken the "
                    "cores; use fewer --workers or more machines"
                )
            )
        return done

    def _note_progress(self, call: _Call, reference: Any) -> None:
        try:
            call.worker.last_progress = self._value(reference)
        except self._ray.exceptions.RayActorError:
            self._lost(call)

    def _lost(self, call: _Call) -> None:
        """Load a worker again whose call was lost. All calls of a dead worker are, some late."""
        worker = call.worker
        if worker.facts is None or call.facts is not worker.facts:
            return
        report(Note(f"{worker.name} ended and is started again; its parts are answered again"))
        worker.former = (worker.facts.life, worker.held[0].rows) if worker.held else None
        worker.facts, worker.last_progress = None, ()
        self._load(worker)

    def _ask_for_progress(self) -> None:
        now = time.monotonic()
        for worker in self.workers:
            if worker.facts is not None and now - worker.asked_at >= PROGRESS_SECONDS:
                worker.asked_at = now
                call = _Call("progress", worker, worker.facts)
                self._calls[worker.actor.progress.remote()] = call

    def _value(self, reference: Any) -> Any:
        """What a call gave.

        Raises:
            VlmcError: it raised this one, or it failed by a fault of the program.
            RayActorError: the worker died.
        """
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayActorError:
            raise
        except self._ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, VlmcError):
                raise cause from None
            said = _COLOUR.sub("", str(error))
            raise VlmcError(
                f"a worker failed, by a fault of vlmc or a library:\n{said}\nFinished parts are "
                "kept; run the same command again to resume"
            ) from error
