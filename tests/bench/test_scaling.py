"""The arithmetic of docs/scaling.md: its tables, and a simulated job against them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from benchmarks.scaling import (
    GPUS,
    MEDIUM_13,
    PHOTO_1,
    SMALL_1,
    SMALL_2,
    WORKLOADS,
    Cluster,
    Failures,
    cost_per_million,
    crossover,
    limits,
    lost_share,
    simulate,
    slowest,
    tables,
)
from recipes.publish import ROOT

PAGE = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
PREPROCESSING = (ROOT / "docs" / "preprocessing.md").read_text(encoding="utf-8")
NO_LIMITS = replace(
    Cluster(1),
    store_gbit=math.inf,
    nic_gbit=math.inf,
    store_requests=math.inf,
    driver_block_ms=1e-9,
    driver_row_ms=0,
)


@pytest.mark.parametrize(("title", "table"), list(tables()), ids=[title for title, _ in tables()])
def test_the_page_has_the_tables_that_the_code_prints(title: str, table: str) -> None:
    assert table in PAGE, f"run `python -m benchmarks.scaling` and copy {title!r}"


def test_inputs_are_the_published_figures() -> None:
    fp8 = next(line for line in README.splitlines() if line.startswith("| vlmc, fp8"))
    for work in WORKLOADS:
        assert f"{work.gpu_qpm:,.0f}" in fp8
        begin = f"| {work.name} |"
        line = next(line for line in PREPROCESSING.splitlines() if line.startswith(begin))
        assert float(line.split("|")[-3]) == work.cpu_ms


def test_a_job_without_limits_runs_at_the_measured_rate() -> None:
    for gpus in GPUS:
        part, rate = slowest(SMALL_2, replace(NO_LIMITS, gpus=gpus))
        assert part == "GPU" and rate * 60 == pytest.approx(gpus * SMALL_2.gpu_qpm)
    start = Failures(restart_seconds=0)
    done = simulate(SMALL_2, replace(NO_LIMITS, gpus=4), 400_000, 1000, start)
    assert done.seconds == pytest.approx(400_000 / (4 * SMALL_2.gpu_qpm / 60))
    assert done.busy == pytest.approx(1)


def test_the_simulation_reaches_the_limit_that_decides() -> None:
    cluster = replace(Cluster(80), driver_block_ms=50, driver_row_ms=0)
    part, rate = slowest(PHOTO_1, cluster)
    assert part == "store"
    done = simulate(PHOTO_1, cluster, 5_000_000, 4096, Failures(restart_seconds=0))
    assert 5_000_000 / done.seconds == pytest.approx(rate, rel=0.05)
    # Blocks too small for the driver: it takes 20 a second.
    done = simulate(PHOTO_1, cluster, 1_000_000, 64, Failures(restart_seconds=0))
    assert 1_000_000 / done.seconds == pytest.approx(20 * 64, rel=0.05)
    assert limits(PHOTO_1, cluster, block=64)["driver"] == 20 * 64


def test_every_block_is_answered_once_whatever_fails() -> None:
    failures = Failures(mean_hours=0.05, restart_seconds=30)
    for seed in range(5):
        done = simulate(SMALL_1, Cluster(8), 1_000_000, 1000, failures, seed)
        assert done.restarts > 20
        assert done.answered == (1,) * 1000


def test_failures_cost_what_the_formula_says() -> None:
    failures = Failures(mean_hours=0.3, restart_seconds=60)
    cluster = replace(NO_LIMITS, gpus=8)
    runs = [simulate(MEDIUM_13, cluster, 2_000_000, 1000, failures, seed) for seed in range(3)]
    assert sum(run.restarts for run in runs) > 200
    lost = 1 - sum(run.busy for run in runs) / len(runs)
    assert lost == pytest.approx(lost_share(MEDIUM_13, 1000, failures), rel=0.25)


def test_crossovers_are_where_the_slowest_part_changes() -> None:
    for part in ("network", "store"):
        gpus = crossover(PHOTO_1, Cluster(1), part)
        assert gpus is not None
        below, at = (limits(PHOTO_1, Cluster(count)) for count in (gpus - 1, gpus))
        assert below[part] >= below["GPU"] and at[part] < at["GPU"]
    assert crossover(SMALL_2, Cluster(1), "network") is None


def test_images_in_shards_pass_the_driver_and_its_network() -> None:
    shards = replace(Cluster(80), images_per_request=1000)
    assert slowest(SMALL_1, shards)[0] == "driver"
    assert slowest(SMALL_1, replace(shards, images_per_request=1, store_requests=1e9))[0] == "GPU"
    fast = replace(shards, driver_megabyte_ms=0, driver_row_ms=0, driver_image_ms=0)
    part, rate = slowest(PHOTO_1, fast)
    assert part == "network of the driver" and rate == 25e9 / 8 / PHOTO_1.image_bytes
    done = simulate(SMALL_1, shards, 2_000_000, 512, Failures(restart_seconds=0))
    assert 2_000_000 / done.seconds == pytest.approx(slowest(SMALL_1, shards)[1], rel=0.05)


def test_cost_is_the_price_of_the_time() -> None:
    # One GPU at 2.5 an hour and 1,000 images a second: 1,000 seconds for a million.
    assert cost_per_million(1000, Cluster(1)) == pytest.approx(2.5 * 1000 / 3600)
