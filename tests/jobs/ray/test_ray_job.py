"""The job on a real local Ray cluster: its lines are those of the local job."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.image.files import turned
from tests.image.patterns import pattern
from tests.jobs.fake import write_images
from tests.jobs.input.write import write_jsonl
from tests.jobs.ray.jobs import lines_of, parts_of, run_local, run_ray
from tests.jobs.ray.killing import kill_workers
from tests.jobs.ray.standin import StandIn
from vlmc.errors import AccuracyError, UsageError, VlmcError
from vlmc.jobs.ray import job, pool
from vlmc.jobs.ray.worker import WorkerFacts
from vlmc.jobs.settings import JobSettings
from vlmc.jobs.stop import Stop
from vlmc.progress.channel import receiving
from vlmc.progress.events import Event, Note, Progress

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.usefixtures("cluster")]

ROOT = Path(__file__).parents[3]


def test_parts_are_the_lines_of_the_local_job(tmp_path: Path) -> None:
    """Damaged and missing images, several images, other columns, a retry, and a resumed job."""
    images = write_images(tmp_path / "images", 90, damaged=[3, 88])
    rows: list[dict[str, Any]] = [{"image": str(path), "id": path.name} for path in images]
    rows[5]["image"] = [str(images[5]), str(images[6])]
    rows[7]["image"] = None
    rows[50]["image"] = str(tmp_path / "later.jpg")
    table = write_jsonl(tmp_path / "rows.jsonl", *rows)
    out, local = tmp_path / "ray.jsonl", tmp_path / "local.jsonl"
    expected = run_local(table, local)
    seen: list[Event] = []
    with receiving(seen.append):
        found = run_ray(table, out)
    assert len(parts_of(out)) == 9
    assert b"".join(part.read_bytes() for part in parts_of(out)) == local.read_bytes()
    assert [count for _, count in found.reasons] == [count for _, count in expected.reasons]
    # A reason's example is of the first line that was written.
    assert replace(found, seconds=0, reasons=()) == replace(expected, seconds=0, reasons=())
    progress = [event for event in seen if isinstance(event, Progress) and event.done is not None]
    assert (progress[0].done, progress[-1].done, progress[-1].errors) == (0, 270, 12)
    assert sum(progress[-1].shares) == 270 and min(progress[-1].shares) > 0

    shutil.copy(images[0], tmp_path / "later.jpg")
    resumed = run_ray(table, out, retry_errors=True)
    run_local(table, local, retry_errors=True)
    assert b"".join(part.read_bytes() for part in parts_of(out)) == local.read_bytes()
    assert (resumed.resumed, resumed.answers, resumed.errors) == (270, 261, 9)
    with pytest.raises(UsageError, match="max new tokens: was 5, is 2"):
        run_ray(table, out, settings=JobSettings(max_new_tokens=2))


def test_parquet_parts_hold_the_same_rows(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 40, damaged=[3])
    table = write_jsonl(
        tmp_path / "rows.jsonl", *({"image": str(path), "size": 0.5} for path in images)
    )
    settings = JobSettings(choices=("yes", "no"))
    run_local(table, tmp_path / "local.parquet", choices=settings.choices)
    out = tmp_path / "ray.parquet"
    address = f"local://{out}"  # through fsspec
    run_ray(table, address, settings=settings)
    assert len(parts_of(out)) == 4 and lines_of(out) == lines_of(tmp_path / "local.parquet")
    assert pq.read_table(out).to_pylist(maps_as_pydicts="strict") == lines_of(out)
    shutil.copy(images[0], images[3])
    assert run_ray(table, address, settings=settings, retry_errors=True).errors == 0
    assert [line["size"] for line in lines_of(out)] == [0.5] * 120


def test_pictures_audit_and_new_files_are_counted_once(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    write_images(folder, 30)
    (folder / "phone.jpg").write_bytes(turned(Image.fromarray(pattern(61, 43))))
    out = f"local://{tmp_path}/out.jsonl"
    found = run_ray(folder, out, audit=1.0)
    assert (found.answers, found.rotation_ignored) == (93, 1)
    assert found.audit is not None and (found.audit.checked, found.audit.agreed) == (93, 93)
    write_images(folder / "more", 12)
    added = run_ray(folder, out)
    assert (added.resumed, added.answers, len(added.changes.added)) == (93, 129, 12)
    rows = [line["row"] for line in lines_of(tmp_path / "out.jsonl")]
    assert rows == [row for row in range(43) for _ in range(3)]
    (folder / "more" / "000.jpg").unlink()
    with pytest.raises(UsageError, match="--strict-input refuses"):
        run_ray(folder, out, strict_input=True)


def test_a_stopped_job_keeps_whole_rows_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out, local = tmp_path / "images", tmp_path / "ray.jsonl", tmp_path / "local.jsonl"
    write_images(folder, 60)
    run_local(folder, local)
    stop = Stop()

    def stop_soon(event: Event) -> None:
        if isinstance(event, Progress) and (event.done or 0) > 12:
            stop.request("it was interrupted")

    with receiving(stop_soon):
        found = run_ray(folder, out, model=StandIn(wait_s=0.02), stop=stop)
    assert found.stopped == "it was interrupted" and found.remaining > 0
    assert found.answers == len(lines_of(out)) > 0 and found.answers % 3 == 0
    # A new output would get smaller parts now, as on a cluster with more workers.
    monkeypatch.setattr(job, "LEAST_LINES", 3)
    assert run_ray(folder, out).resumed == found.answers
    assert b"".join(part.read_bytes() for part in parts_of(out)) == local.read_bytes()


def test_a_cluster_without_a_free_core_does_not_stop_a_job(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where another job's workers have taken them: the worker prepares its images itself."""
    monkeypatch.setattr(job, "PATIENCE_SECONDS", 1.0)
    folder, out, local = tmp_path / "images", tmp_path / "ray.jsonl", tmp_path / "local.jsonl"
    write_images(folder, 12)
    run_local(folder, local)

    class Other:
        def ready(self) -> bool:
            return True

    other = cluster.remote(num_cpus=1)(Other).remote()
    try:
        assert cluster.get(other.ready.remote())
        seen: list[Event] = []
        with receiving(seen.append):
            run_ray(folder, out, workers=1)
    finally:
        cluster.kill(other)
    notes = [event.text for event in seen if isinstance(event, Note)]
    assert sum("worker 0 prepares its images itself" in note for note in notes) == 1
    assert b"".join(part.read_bytes() for part in parts_of(out)) == local.read_bytes()


def test_every_worker_gets_a_part_of_a_small_job(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 6)
    run_ray(tmp_path / "images", tmp_path / "out.jsonl", workers=2)
    assert len(parts_of(tmp_path / "out.jsonl")) == 2


def test_too_many_errors_stop_the_job(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 60, damaged=range(0, 60, 2))
    stop = Stop(max_errors=3)
    found = run_ray(
        tmp_path / "images", tmp_path / "o.jsonl", model=StandIn(wait_s=0.01), stop=stop
    )
    assert found.stopped == "3 rows ended in an error (--max-errors)"
    assert 9 <= found.errors < 90 and found.remaining > 0


def test_a_job_that_stops_while_models_load_begins_nothing(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 4)
    stop, seen = Stop(seconds=1, since=time.monotonic() - 2), list[Event]()
    with receiving(seen.append):
        found = run_ray(tmp_path / "images", tmp_path / "o.jsonl", stop=stop, on_ready=pytest.fail)
    assert (found.stopped, found.remaining) == ("the deadline of 1.0 s has passed", 12)
    assert Note("the deadline of 1.0 s has passed") in seen
    assert run_ray(tmp_path / "images", tmp_path / "o.jsonl").answers == 12


@pytest.mark.parametrize("seed", [1])
def test_workers_that_are_killed_lose_and_double_nothing(seed: int, tmp_path: Path) -> None:
    folder, out, local = tmp_path / "images", tmp_path / "ray.jsonl", tmp_path / "local.jsonl"
    write_images(folder, 80)
    run_local(folder, local)
    pids = tmp_path / "pids"
    pids.mkdir()
    kills = kill_workers(pids, random.Random(seed), most=2)
    try:
        run_ray(folder, out, model=StandIn(wait_s=0.02, pids=pids))
    finally:
        assert kills() > 0
    assert b"".join(part.read_bytes() for part in parts_of(out)) == local.read_bytes()


def test_a_killed_driver_is_resumed(cluster: Any, tmp_path: Path) -> None:
    folder, out, local = tmp_path / "images", tmp_path / "ray.jsonl", tmp_path / "local.jsonl"
    write_images(folder, 80)
    run_local(folder, local)
    address = cluster.get_runtime_context().gcs_address
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.jobs.ray.driver", folder, out, address], cwd=ROOT
    )
    deadline = time.monotonic() + 60
    while driver.poll() is None and len(parts_of(out)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    done = len(parts_of(out))
    assert 2 <= done < 8
    assert run_ray(folder, out).resumed >= 30 * done
    assert b"".join(part.read_bytes() for part in parts_of(out)) == local.read_bytes()


def test_a_model_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 2)
    with pytest.raises(VlmcError, match=r"^no engine fits$"):
        run_ray(tmp_path / "images", tmp_path / "o.jsonl", model=StandIn(refuses="no engine fits"))
    assert parts_of(tmp_path / "o.jsonl") == []


@pytest.mark.parametrize(
    ("loads", "said"),
    [
        ("raise", r"a worker failed, by a fault of vlmc or a library:(?s:.)*ZeroDivisionError"),
        ("exit", r"worker 0 ended 2 times while it loaded its model"),
    ],
)
def test_a_model_that_breaks_while_it_loads_ends_the_job(
    loads: Literal["raise", "exit"], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MAX_DEATHS", 2)
    pids = tmp_path / "pids"
    pids.mkdir()
    write_images(tmp_path / "images", 2)
    model = StandIn(loads=loads, pids=pids)
    with pytest.raises(VlmcError, match=said):
        run_ray(tmp_path / "images", tmp_path / "o.jsonl", model=model, workers=1)
    assert len(list(pids.iterdir())) == (2 if loads == "exit" else 1)


def test_a_worker_is_started_again_more_often_than_ray_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deaths count for the part that was answered, or where no model was loaded between them."""
    monkeypatch.setattr(pool, "MAX_DEATHS", 3)  # so that Ray starts it twice again
    monkeypatch.setattr(pool, "MAX_PART_DEATHS", 3)
    monkeypatch.setattr(job, "MOST_LINES", {"cpu": 32})
    pids, out = tmp_path / "pids", tmp_path / "out.jsonl"
    pids.mkdir()
    write_images(tmp_path / "images", 120)
    killed: list[int] = []
    done_at = [-60]

    def kill(event: Event) -> None:
        """Two parts of 30 lines after the last kill, so that another part is answered."""
        if not isinstance(event, Progress) or not event.done or len(killed) == 3:
            return
        living = [int(path.name) for path in pids.iterdir() if int(path.name) not in killed]
        if living and event.done >= done_at[-1] + 60:
            done_at.append(event.done)
            killed.append(living[0])
            os.kill(living[0], signal.SIGKILL)

    with receiving(kill):
        run_ray(tmp_path / "images", out, model=StandIn(pids=pids, wait_s=0.02), workers=1)
    assert len(killed) == 3
    assert [line["row"] for line in lines_of(out)] == [row for row in range(120) for _ in range(3)]


def test_a_worker_that_joins_with_another_engine_is_announced(tmp_path: Path) -> None:
    """So that --require-verified holds for it too."""
    pids, out = tmp_path / "pids", tmp_path / "out.jsonl"
    pids.mkdir()
    write_images(tmp_path / "images", 120)
    seen: list[str] = []

    def announce(ready: Sequence[WorkerFacts]) -> None:
        seen.extend(facts.engine for facts in ready)
        if len(seen) > 1:
            raise AccuracyError("the other engine is not verified")

    kills = kill_workers(pids, random.Random(1), most=1)
    try:
        with pytest.raises(AccuracyError, match="not verified"):
            model = StandIn(wait_s=0.02, pids=pids, renamed=True)
            run_ray(tmp_path / "images", out, model=model, workers=1, on_ready=announce)
    finally:
        assert kills() == 1
    assert len(set(seen)) == 2


@pytest.mark.parametrize(
    ("breaks", "said"),
    [
        ("raise", r"a worker failed, by a fault of vlmc or a library:(?s:.)*ZeroDivisionError"),
        ("lose", r"workers ended 2 times while they answered rows \d+ to \d+"),
        ("exit", r"workers ended 2 times while they answered rows \d+ to \d+"),
    ],
)
def test_a_model_that_breaks_ends_the_job(
    breaks: Literal["raise", "lose", "exit"],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "MAX_PART_DEATHS", 2)
    images = write_images(tmp_path / "images", 12)
    asked = ["fine?"] * 35 + ["break?"]
    rows = [{"image": str(images[n // 3]), "prompt": text} for n, text in enumerate(asked)]
    table = write_jsonl(tmp_path / "rows.jsonl", *rows)
    out = tmp_path / "out.jsonl"
    with pytest.raises(VlmcError, match=said):
        run_ray(table, out, [], model=StandIn(breaks=breaks), workers=1)
    assert run_ray(table, out, [], workers=1).resumed in (0, 32)
    assert [line["row"] for line in lines_of(out)] == list(range(36))


def test_preparing_images_and_handing_out_parts_need_no_torch() -> None:
    """Which takes seconds to import, and a quarter of a gigabyte in every process."""
    code = "import sys, vlmc.jobs.ray.prepare, vlmc.jobs.ray.job; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert found.stdout == "False\n", found.stderr


def test_nodes_that_differ_are_refused(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "images", 1)
    job = (tmp_path / "images", tmp_path / "o.jsonl")
    with pytest.raises(UsageError, match=r"has the artifact .* and this machine has f00df00d"):
        run_ray(*job, model=StandIn(folder=artifact))
    with pytest.raises(UsageError, match="cannot open the artifact"):
        run_ray(*job, model=StandIn(folder=tmp_path / "none"))
    monkeypatch.setattr("vlmc.jobs.ray.job.__version__", "9.9")
    with pytest.raises(UsageError, match=r"the node \S+ has vlmc 0\.1\.0, and this machine has 9"):
        run_ray(*job)
