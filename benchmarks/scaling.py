"""Throughput and cost on 1 to 80 GPUs, from figures of one: `python -m benchmarks.scaling`.

Prints the tables of docs/scaling.md, which says where each figure is from. `limits` is the
arithmetic: what each part of a cluster can do. `simulate` plays a job block by block, with starts,
failures, and a driver that takes one block after another.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

MINUTE, HOUR = 60.0, 3600.0
GPUS = (1, 2, 4, 8, 16, 40, 80)
PART_ROWS = 512  # of `--ray` on GPUs, in large jobs
# Questions a minute by `benchmarks.ray_gpu` on one GPU and on all of a machine with so many.
MEASURED = {2: (11_615, 22_362), 4: (11_229, 43_135)}


@dataclass(frozen=True, slots=True)
class Workload:
    """Images with one question each; measured unless docs/scaling.md calls it assumed."""

    name: str
    gpu_qpm: float  # one H100, InternVL2-8B's shape in fp8
    cpu_ms: float  # of one core, from the file's bytes to tiles
    image_bytes: int


@dataclass(frozen=True, slots=True)
class Cluster:
    """Hosts with GPUs, the store that they read from, and the driver that they report to."""

    gpus: int
    gpus_per_host: int = 8
    cores_per_gpu: float = 16
    host_qpm: float = 29_000  # of one process, with no work for the GPU
    nic_gbit: float = 25  # each host
    store_gbit: float = 100  # all hosts together
    store_requests: float = 5_500  # a second
    images_per_request: int = 1  # more in shards, whose images travel through the driver
    is_local_job: bool = False  # one process reads and writes every row
    local_rows: float = 6_900  # a second
    # Of the driver of `--ray`, which sends blocks of rows and hears that they are written.
    driver_block_ms: float = 2.8
    driver_row_ms: float = 0.05
    driver_image_ms: float = 0.04  # beside the row's, of an image in a shard
    driver_megabyte_ms: float = 0.9
    price_per_gpu_hour: float = 2.5


SMALL_2 = Workload("480×320, 2 tiles", 5_450, 2.1, 40_700)
SMALL_1 = Workload("480×320, 1 tile", 9_006, 3.5, 40_700)
SMALL_7 = Workload("480×320, 7 tiles", 1_661, 5.8, 40_700)
MEDIUM_13 = Workload("640×480, 13 tiles", 895, 9.9, 74_800)
PHOTO_13 = Workload("12 MP, 13 tiles", 895, 176, 3_000_000)
PHOTO_1 = Workload("12 MP, 1 tile", 9_006, 42, 3_000_000)
WORKLOADS = (MEDIUM_13, SMALL_7, SMALL_2, SMALL_1, PHOTO_13, PHOTO_1)


@dataclass(frozen=True, slots=True)
class Failures:
    """A worker fails after `mean_hours` on average, and is back after `restart_seconds`."""

    mean_hours: float = math.inf
    restart_seconds: float = 30


def limits(work: Workload, cluster: Cluster, block: int = PART_ROWS) -> dict[str, float]:
    """Images a second that each part can do, were the others without limit."""
    gpus, hosts = cluster.gpus, math.ceil(cluster.gpus / cluster.gpus_per_host)
    return {
        "GPU": gpus * work.gpu_qpm / MINUTE,
        "cores": gpus * cluster.cores_per_gpu / (work.cpu_ms / 1000),
        "host loop": gpus * cluster.host_qpm / MINUTE,
        "network": hosts * _bytes(cluster.nic_gbit) / work.image_bytes,
        "store": _bytes(cluster.store_gbit) / work.image_bytes,
        "store requests": cluster.store_requests * cluster.images_per_request,
        "driver": block / _driver_seconds(work, cluster, block),
        "network of the driver": _bytes(cluster.nic_gbit) / work.image_bytes
        if cluster.images_per_request > 1
        else math.inf,
    }


def slowest(work: Workload, cluster: Cluster) -> tuple[str, float]:
    """The part that decides, and the images a second of the whole."""
    found = limits(work, cluster)
    name = min(found, key=lambda part: found[part])
    return name, found[name]


def crossover(work: Workload, cluster: Cluster, part: str, most: int = 10_000) -> int | None:
    """The fewest GPUs for which `part` is slower than the GPUs; None if it never is."""
    for gpus in range(1, most + 1):
        found = limits(work, replace(cluster, gpus=gpus))
        if found[part] < found["GPU"]:
            return gpus
    return None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A simulated job: what it took, and what failures cost."""

    seconds: float
    answered: tuple[int, ...]  # how often each block was answered
    restarts: int  # each costs the block that it interrupts
    busy: float  # share of the workers' time in blocks that were answered


def simulate(
    work: Workload,
    cluster: Cluster,
    images: int,
    block: int,
    failures: Failures = Failures(),
    seed: int = 0,
) -> Outcome:
    """A job of `images` in blocks that workers take one after another.

    Workers share what the network, the store and the cores give, and start together. A worker
    that fails loses its block, which is put back, and starts again. The driver takes the blocks
    that are done one at a time; a worker waits for it before its next block.
    """
    draw = random.Random(seed)
    shared = min(rate for part, rate in limits(work, cluster).items() if part != "driver")
    rate = shared / cluster.gpus
    rows = [block] * (images // block) + ([images % block] if images % block else [])
    waiting = list(range(len(rows)))[::-1]
    returned: list[tuple[float, int]] = []  # blocks of workers that failed, and when
    answered = [0] * len(rows)
    restarts, driver_free, useful = 0, 0.0, 0.0
    # When a worker can take a block, and when it fails next.
    workers = [(failures.restart_seconds, index) for index in range(cluster.gpus)]
    failing = [_lifetime(draw, failures) + failures.restart_seconds for _ in workers]
    while waiting or returned:
        now, worker = heapq.heappop(workers)
        if waiting:
            number = waiting.pop()
        else:
            since, number = heapq.heappop(returned)
            now = max(now, since)
        done = now + rows[number] / rate
        if failing[worker] < done:
            failed = max(failing[worker], now)
            heapq.heappush(returned, (failed, number))
            restarts += 1
            back = failed + failures.restart_seconds
            failing[worker] = back + _lifetime(draw, failures)
        else:
            back = driver_free = max(done, driver_free) + _driver_seconds(
                work, cluster, rows[number]
            )
            answered[number] += 1
            useful += done - now
        heapq.heappush(workers, (back, worker))
    ends = driver_free
    return Outcome(ends, tuple(answered), restarts, useful / (ends * cluster.gpus))


def lost_share(work: Workload, block: int, failures: Failures) -> float:
    """Share of a GPU's time that failures take: a start, and half of a block to do again."""
    redone = block / 2 / (work.gpu_qpm / MINUTE)
    return (failures.restart_seconds + redone) / (failures.mean_hours * HOUR)


def cost_per_million(images_per_second: float, cluster: Cluster) -> float:
    """Price of a million images on all of its GPUs."""
    return cluster.gpus * cluster.price_per_gpu_hour / HOUR * 1_000_000 / images_per_second


def needs_table() -> str:
    """What one GPU needs of the machine beside it to be busy."""
    lines = []
    for work in WORKLOADS:
        images = work.gpu_qpm / MINUTE
        gbit = images * work.image_bytes * 8 / 1e9
        lines.append(
            f"| {work.name} | {images:.1f} | {images * work.cpu_ms / 1000:.2f} | {gbit:.2f} | "
            f"{work.gpu_qpm / Cluster(1).host_qpm:.0%} |"
        )
    return _table("| images | a second | cores | Gbit/s | of the host loop |", lines)


def scaling_table(work: Workload, cluster: Cluster) -> str:
    """Throughput and cost by the number of GPUs, and what decides."""
    lines = []
    for gpus in GPUS:
        sized = replace(cluster, gpus=gpus)
        part, rate = slowest(work, sized)
        lines.append(
            f"| {gpus} | {rate * MINUTE:,.0f} | {rate * MINUTE / work.gpu_qpm:.1f} | "
            f"{1e8 / rate / HOUR:,.1f} | {cost_per_million(rate, sized):,.2f} | {part} |"
        )
    head = "| GPUs | images a minute | × one GPU | hours for 100 million | $ a million | limit |"
    return _table(head, lines)


def crossover_table() -> str:
    """From how many GPUs on a part decides, with 25 Gbit/s a host and 100 Gbit/s for all."""
    parts = ("network", "store", "store requests", "driver")
    shards = replace(Cluster(1), images_per_request=1000)
    local = replace(Cluster(1), is_local_job=True)
    four = replace(Cluster(1), cores_per_gpu=4)
    lines = []
    for work in WORKLOADS:
        found = [crossover(work, Cluster(1), part) for part in parts]
        found += [crossover(work, cluster, "driver") for cluster in (shards, local)]
        found.append(crossover(work, four, "cores"))
        lines.append(f"| {work.name} | " + " | ".join(str(n or "never") for n in found) + " |")
    head = (
        "| images | network | store | store requests | driver | driver, shards | local job | "
        "4 cores a GPU |"
    )
    return _table(head, lines)


def block_table() -> str:
    """10 million images on 80 GPUs by the size of a block."""
    lines = []
    cluster = replace(Cluster(80), store_requests=4 * 5_500)
    for block in (64, PART_ROWS, 4096, 65_536):
        calm = simulate(SMALL_1, cluster, 10_000_000, block)
        rough = simulate(SMALL_1, cluster, 10_000_000, block, Failures(mean_hours=1), seed=1)
        lines.append(
            f"| {block:,} | {block / (SMALL_1.gpu_qpm / MINUTE):.1f} s | {calm.seconds:,.0f} s | "
            f"{calm.busy:.0%} | {rough.seconds:,.0f} s | {rough.restarts} |"
        )
    head = (
        "| images a block | a block takes | job | GPUs busy | job, a failure an hour | failures |"
    )
    return _table(head, lines)


def failure_table() -> str:
    """Share of the time that failures take, in blocks of `PART_ROWS` images."""
    lines = []
    for hours, where in ((50_000, "a data centre"), (24, "spot"), (1, "a bad day")):
        failures = Failures(mean_hours=hours)
        shares = " | ".join(
            f"{lost_share(work, PART_ROWS, failures):.3%}" for work in (SMALL_1, MEDIUM_13)
        )
        lines.append(f"| {hours:,} h ({where}) | {80 / hours:.3g} | {shares} |")
    head = (
        "| a GPU fails every | failures an hour, 80 GPUs | lost, "
        f"{SMALL_1.name} | lost, {MEDIUM_13.name} |"
    )
    return _table(head, lines)


def measured_table() -> str:
    """Jobs on several GPUs against the arithmetic."""
    lines = [
        f"| {gpus} | {one:,} | {total:,} | {total / one:.2f} | {gpus:.2f} |"
        for gpus, (one, total) in MEASURED.items()
    ]
    head = "| GPUs | one GPU, questions a minute | all | ratio | ratio by the arithmetic |"
    return _table(head, lines)


def tables() -> Iterator[tuple[str, str]]:
    """Every table of docs/scaling.md, with what it is of."""
    yield "What one GPU needs", needs_table()
    yield f"{SMALL_2.name}", scaling_table(SMALL_2, Cluster(1))
    yield f"{PHOTO_1.name}", scaling_table(PHOTO_1, Cluster(1))
    yield (
        f"{PHOTO_1.name}, read from a disk of each host",
        scaling_table(
            PHOTO_1, replace(Cluster(1), store_gbit=math.inf, store_requests=math.inf, nic_gbit=100)
        ),
    )
    yield "From how many GPUs on a part decides", crossover_table()
    yield "Blocks", block_table()
    yield "Failures", failure_table()
    yield "Measured", measured_table()


def _bytes(gbit: float) -> float:
    return gbit * 1e9 / 8


def _lifetime(draw: random.Random, failures: Failures) -> float:
    if math.isinf(failures.mean_hours):
        return math.inf
    return draw.expovariate(1 / (failures.mean_hours * HOUR))


def _driver_seconds(work: Workload, cluster: Cluster, rows: int) -> float:
    if cluster.is_local_job:
        return rows / cluster.local_rows
    row_ms = cluster.driver_row_ms
    if cluster.images_per_request > 1:
        row_ms += cluster.driver_image_ms + cluster.driver_megabyte_ms * work.image_bytes / 1e6
    return (cluster.driver_block_ms + rows * row_ms) / 1000


def _table(head: str, lines: list[str]) -> str:
    return "\n".join([head, "|---" * (head.count("|") - 1) + "|", *lines])


if __name__ == "__main__":
    for title, table in tables():
        print(f"{title}\n\n{table}\n")
