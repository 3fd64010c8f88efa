"""Worker processes that draw scenes without end, and the batches made of what they hand over."""

from __future__ import annotations

import mmap
import multiprocessing
import queue
import threading
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from recipes.quickstart.training.prompts import IGNORED, Prompts
from recipes.quickstart.training.samples import Sample, samples_of
from recipes.quickstart.training.scenes import draw
from vlmc.image.tiles import TILE_SIZE

TILE_BYTES = TILE_SIZE * TILE_SIZE * 3
MOST_TILES = 13
MOST_THINGS = 64
CROWDED_SHARE = 0.75
"""Of the dense stage's scenes; the others show the tower what pictures really look like."""
DENSE, LANGUAGE = 0, 1


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """How much is drawn at once. `tiles` and `rows` bound a batch; `questions` is per scene."""

    workers: int
    tiles: int
    rows: int
    questions: int
    visits: int
    first_seed: int


@dataclass(slots=True)
class Batch:
    """Images of equal tile count, on the device.

    Shapes: tiles (padded N, 448, 448, 3) uint8 of which the first rows · count are real; windows
    (rows, count, 4); boxes (rows, 64, 4); classes (rows, 64, 6); branches and targets
    (rows, questions, length) int64; kinds (rows, questions) int64, -1 where there is no question.
    """

    count: int
    tiles: Tensor
    windows: Tensor
    boxes: Tensor
    classes: Tensor
    branches: Tensor
    targets: Tensor
    kinds: Tensor

    @property
    def rows(self) -> int:
        return self.windows.shape[0]


class Feed:
    """Draws in `workers` forked processes and makes batches in a thread.

    Make it before the first use of CUDA: forked processes must not hold a CUDA context. Tiles pass
    through one anonymous shared mapping cut into slots, everything else through queues.
    """

    def __init__(self, settings: FeedSettings) -> None:
        self.settings = settings
        slots = sum(rows_of(settings, count) for count in range(1, MOST_TILES + 1))
        slots += 4 * settings.workers + 2 * rows_of(settings, 1)
        self._map = mmap.mmap(-1, slots * MOST_TILES * TILE_BYTES)
        self._slots = np.frombuffer(self._map, np.uint8).reshape(
            slots, MOST_TILES, TILE_SIZE, TILE_SIZE, 3
        )
        context = multiprocessing.get_context("fork")
        self.stage = context.Value("i", DENSE)
        self.progress = context.Value("d", 0.0)
        self.drawn = context.Value("q", 0)
        self._free: Any = context.Queue()
        self._ready: Any = context.Queue()
        self._workers = [
            context.Process(target=self._work, args=(number,), daemon=True)
            for number in range(settings.workers)
        ]
        for worker in self._workers:
            worker.start()
        # Only now: putting starts a thread, and a process should fork before it has threads.
        for slot in range(slots):
            self._free.put(slot)
        self._batches: queue.Queue[tuple[int, Batch, Any]] = queue.Queue(maxsize=3)
        self._failure: BaseException | None = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def _work(self, number: int) -> None:
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        prompts = Prompts()
        seed = self.settings.first_seed + number
        while True:
            random = np.random.default_rng((seed, 1))
            stage = self.stage.value
            crowded = stage == DENSE and random.random() < CROWDED_SHARE
            scene = draw(seed, questions=self.settings.questions, crowded=crowded)
            progress = None if stage == DENSE else self.progress.value
            for sample in samples_of(scene, prompts, random, progress, self.settings.visits):
                slot = self._free.get()
                self._slots[slot, : len(sample.tiles)] = sample.tiles
                rest = (sample.windows, sample.boxes, sample.classes, sample.branches, sample.kinds)
                self._ready.put((stage, slot, rest))
            with self.drawn.get_lock():
                self.drawn.value += 1
            seed += self.settings.workers

    def start(self, device: torch.device, *, pin: bool) -> None:
        """Begin to make batches on `device`; `pin` lets it read the shared mapping by itself."""
        if pin:
            address, size = int(self._slots.ctypes.data), int(self._slots.nbytes)
            runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
            status = runtime.cudaHostRegister(address, size, 0)
            if int(status) != 0:
                raise RuntimeError(
                    f"cudaHostRegister of {size} bytes failed with {status}; run without --pin"
                )
        self._thread = threading.Thread(target=self._collect, args=(device,), daemon=True)
        self._thread.start()

    def next(self, stage: int) -> Batch:
        """The next batch of a stage; what is left of another stage is dropped."""
        while True:
            try:
                found, batch, ready = self._batches.get(timeout=5)
            except queue.Empty:
                self._check()
                continue
            if found == stage:
                if ready is not None:
                    torch.cuda.current_stream().wait_event(ready)
                    for tensor in (batch.tiles, batch.windows, batch.boxes, batch.classes):
                        tensor.record_stream(torch.cuda.current_stream())
                    for tensor in (batch.branches, batch.targets, batch.kinds):
                        tensor.record_stream(torch.cuda.current_stream())
                return batch

    def next_seed(self) -> int:
        """A seed beyond all that were drawn; workers are not in step, hence the margin."""
        return self.settings.first_seed + 2 * int(self.drawn.value) + 10_000

    def waiting(self) -> int:
        """Batches that are ready: none when drawing is slower than training."""
        return self._batches.qsize()

    def _check(self) -> None:
        if self._failure is not None:
            raise RuntimeError("the thread that makes batches failed") from self._failure
        dead = [worker for worker in self._workers if not worker.is_alive()]
        if dead:
            raise RuntimeError(
                f"{len(dead)} drawing processes ended, the first with code {dead[0].exitcode}; "
                "their traceback stands above"
            )

    def _collect(self, device: torch.device) -> None:
        try:
            self._collect_until_closed(device)
        except BaseException as error:
            self._failure = error

    def _collect_until_closed(self, device: torch.device) -> None:
        buckets: dict[int, list[tuple[int, Sample]]] = {}
        stream: Any = None
        if device.type == "cuda":
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        current = DENSE
        while not self._closed.is_set():
            try:
                stage, slot, rest = self._ready.get(timeout=1)
            except queue.Empty:
                continue
            if stage != current:
                if stage < current:
                    self._free.put(slot)
                    continue
                for waiting in buckets.values():
                    for old, _ in waiting:
                        self._free.put(old)
                buckets, current = {}, stage
            count = len(rest[0])
            bucket = buckets.setdefault(count, [])
            bucket.append((slot, Sample(self._slots[slot, :count], *rest)))
            if len(bucket) < rows_of(self.settings, count):
                continue
            buckets[count] = []
            samples = [sample for _, sample in bucket]
            if stream is None:
                item: tuple[int, Batch, Any] = (
                    stage,
                    make_batch(samples, self.settings, device),
                    None,
                )
            else:
                with torch.cuda.stream(stream):
                    batch = make_batch(samples, self.settings, device)
                    ready: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
                    ready.record()
                ready.synchronize()
                item = (stage, batch, ready)
            for used, _ in bucket:
                self._free.put(used)
            while not self._closed.is_set():
                try:
                    self._batches.put(item, timeout=1)
                    break
                except queue.Full:
                    continue

    def close(self) -> None:
        """End the processes and the thread."""
        self._closed.set()
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.join(timeout=5)
        if self._thread is not None:
            self._thread.join(timeout=10)
        for channel in (self._free, self._ready):
            channel.cancel_join_thread()
            channel.close()


def rows_of(settings: FeedSettings, count: int) -> int:
    """Images of `count` tiles in a batch."""
    return max(1, min(settings.rows, settings.tiles // count))


def make_batch(samples: list[Sample], settings: FeedSettings, device: torch.device) -> Batch:
    """Put samples of equal tile count on the device, padding tiles to one of three sizes.

    Few sizes keep the compiled tower from being compiled anew for every tile count.
    """
    rows, count = len(samples), len(samples[0].tiles)
    sizes = (settings.tiles // 4, settings.tiles // 2, settings.tiles)
    padded = next((size for size in sizes if size >= rows * count), rows * count)
    tiles = torch.empty(padded, TILE_SIZE, TILE_SIZE, 3, dtype=torch.uint8, device=device)
    for row, sample in enumerate(samples):
        tiles[row * count : (row + 1) * count].copy_(torch.from_numpy(sample.tiles))
    tiles[rows * count :] = 0
    boxes = np.full((rows, MOST_THINGS, 4), -1, np.float32)
    classes = np.full((rows, MOST_THINGS, 6), IGNORED, np.int64)
    questions = max([len(sample.branches) for sample in samples] + [1])
    longest = max([len(b.ids) for sample in samples for b in sample.branches], default=8)
    length = -(-longest // 8) * 8
    branches = np.zeros((rows, questions, length), np.int64)
    targets = np.full((rows, questions, length), IGNORED, np.int64)
    kinds = np.full((rows, questions), -1, np.int64)
    for row, sample in enumerate(samples):
        things = min(MOST_THINGS, len(sample.boxes))
        boxes[row, :things] = sample.boxes[:things]
        classes[row, :things] = sample.classes[:things]
        kinds[row, : len(sample.kinds)] = sample.kinds
        for column, branch in enumerate(sample.branches):
            branches[row, column, : len(branch.ids)] = branch.ids
            targets[row, column, : len(branch.targets)] = branch.targets
    windows = np.stack([sample.windows for sample in samples])
    arrays = (windows, boxes, classes, branches, targets, kinds)
    return Batch(count, tiles, *(torch.from_numpy(array).to(device) for array in arrays))
