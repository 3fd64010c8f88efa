"""Entries of the cache are whole or absent, checked on use, and made once."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.builder.small_steps import FILES, make_and_place, small_step
from vlmc.builder.executor import place, run_step
from vlmc.builder.steps.step import Step
from vlmc.builder.store.step_cache import CachedStep, Damage, StepCache, default_folder
from vlmc.errors import BuildError
from vlmc.files.copy import copy_file
from vlmc.progress.channel import receiving
from vlmc.progress.events import Event, StepCached, StepDamaged, StepDone, StepStarted


@pytest.fixture
def cache(tmp_path: Path) -> StepCache:
    return StepCache(tmp_path / "cache")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def leftovers(cache: StepCache) -> list[str]:
    return [path.name for path in (cache.folder / "steps").glob(".*")]


def test_key_is_a_whole_digest_of_every_ingredient() -> None:
    step = small_step()
    assert re.fullmatch("[0-9a-f]{64}", step.key)
    others = [
        small_step("vision.golden"),
        small_step(version=2),
        small_step(inputs={"model.safetensors": "1" * 64}),
        small_step(inputs={"other.safetensors": "0" * 64}),
        small_step(parameters={"dtype": "float32", "layers": [2, 1]}),
        small_step(tools={"torch": "2.1"}),
        small_step(tools={}),
    ]
    assert len({step.key, *(other.key for other in others)}) == len(others) + 1
    assert small_step(parameters={"layers": [1, 2], "dtype": "float32"}).key == step.key
    assert small_step(work=print, reproducible=False).key == step.key


def test_step_is_made_once_and_then_found(cache: StepCache) -> None:
    step, events = small_step(), list[Event]()
    assert cache.find(step.key) is None
    assert not cache.folder.exists(), "looking writes nothing"
    with receiving(events.append):
        built = run_step(step, cache)
        again = run_step(step, cache)
    assert (built.state, again.state) == ("built", "cached")
    assert again.entry == built.entry == cache.find(step.key)
    assert [type(event) for event in events] == [StepStarted, StepDone, StepCached]
    entry = built.entry
    assert entry.key_parts == step.key_parts
    assert entry.bytes == sum(map(len, FILES.values()))
    assert entry.seconds >= 0 and (entry.peak_memory_bytes is None or entry.peak_memory_bytes > 0)
    assert contents(entry.folder) == FILES
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    forced = run_step(step, cache, force=True)
    assert forced.state == "built" and forced.entry.created > entry.created
    assert leftovers(cache) == []


def test_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert default_folder() == StepCache().folder
    monkeypatch.delenv("VLMC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "vlmc" / "build"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "vlmc" / "build"


def test_artifact_shares_no_file_with_the_cache(cache: StepCache, tmp_path: Path) -> None:
    make_and_place(cache, tmp_path / "artifact")
    assert contents(tmp_path / "artifact") == FILES
    (tmp_path / "artifact" / "a.bin").write_bytes(b"edited")
    (entry,) = cache.entries()
    assert contents(entry.folder) == FILES


def test_copy_without_the_kernels_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.copy_file_range", refuse)
    (tmp_path / "source").write_bytes(bytes(range(256)) * 9000)
    copy_file(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()


def _record(entry: CachedStep, **changes: object) -> None:
    path = entry.folder.parent / "step.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# Damage → whether it shows without hashing.
DAMAGE: dict[str, tuple[Callable[[CachedStep], object], bool]] = {
    "cut file": (lambda entry: (entry.folder / "a.bin").write_bytes(b"a" * 999), True),
    "no file": (lambda entry: (entry.folder / "below" / "b.txt").unlink(), True),
    "no record": (lambda entry: (entry.folder.parent / "step.json").unlink(), True),
    "cut record": (lambda entry: (entry.folder.parent / "step.json").write_text('{"sch'), True),
    "other schema": (lambda entry: _record(entry, schema=2), True),
    "other key": (lambda entry: _record(entry, key="0" * 64), True),
    "path outside": (
        lambda entry: _record(entry, files={"../../x": {"sha256": "0" * 64, "size": 1}}),
        True,
    ),
    "list": (lambda entry: (entry.folder.parent / "step.json").write_text("[]"), True),
    "flipped byte": (lambda entry: (entry.folder / "a.bin").write_bytes(b"b" * 1000), False),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_entry_is_made_again_with_a_word(
    damage: str, cache: StepCache, tmp_path: Path
) -> None:
    harm, shows = DAMAGE[damage]
    step = small_step()
    harm(run_step(step, cache).entry)
    assert isinstance(cache.check(step.key), Damage) == shows
    assert (cache.find(step.key) is None) == shows
    events: list[Event] = []
    with receiving(events.append):
        outcome = place(run_step(step, cache), tmp_path / "artifact", cache)
    assert outcome.state == "built"
    (told,) = [event for event in events if isinstance(event, StepDamaged)]
    assert told.name == step.name and told.reason
    assert contents(tmp_path / "artifact") == FILES == contents(outcome.entry.folder)
    assert leftovers(cache) == []


def test_entry_that_is_pruned_before_it_is_placed(cache: StepCache, tmp_path: Path) -> None:
    step = small_step()
    outcome = run_step(step, cache)
    cache.drop(step.key)
    place(outcome, tmp_path / "artifact", cache)
    assert contents(tmp_path / "artifact") == FILES


def test_cache_that_may_only_be_read(
    cache: StepCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = small_step()
    run_step(step, cache)

    def refuse(*_: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("vlmc.files.lock.os.open", refuse)
    outcome = run_step(step, cache)
    assert place(outcome, tmp_path / "artifact", cache).state == "cached"
    assert contents(tmp_path / "artifact") == FILES
    with pytest.raises(BuildError, match=r"step vision\.golden failed.*Read-only"):
        run_step(small_step("vision.golden"), cache)


def test_disk_that_damages_everything_is_named(
    cache: StepCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = run_step(small_step(), cache)
    monkeypatch.setattr(
        "vlmc.builder.executor.files_sha256", lambda sizes: dict.fromkeys(sizes, "0" * 64)
    )
    with pytest.raises(BuildError, match="disk or the memory"):
        place(outcome, tmp_path / "artifact", cache)


@pytest.mark.parametrize(
    "error", [RuntimeError("no"), OSError(5, "Input/output error"), KeyboardInterrupt()]
)
def test_failing_work_leaves_nothing(error: BaseException, cache: StepCache) -> None:
    def work(folder: Path) -> None:
        write = folder / "half"
        write.write_bytes(b"x")
        raise error

    step = small_step(work=work)
    expected = BuildError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        run_step(step, cache)
    assert cache.find(step.key) is None
    assert leftovers(cache) == []
    run_step(small_step(), cache)


def test_step_that_writes_nothing_is_an_error(cache: StepCache) -> None:
    with pytest.raises(BuildError, match="wrote no file"):
        run_step(small_step(work=lambda _: None), cache)


@contextmanager
def process(cache: StepCache, how: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.builder.small_steps", str(cache.folder), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


def lines(started: subprocess.Popen[str]) -> Iterator[str]:
    assert started.stdout is not None
    return (line.strip() for line in started.stdout)


def test_of_two_builds_one_works_and_one_waits(cache: StepCache) -> None:
    with process(cache, "slow") as first, process(cache, "slow") as second:
        said = [list(lines(first)), list(lines(second))]
        assert first.wait() == second.wait() == 0
    said.sort(key=len)
    assert sum(line == "working" for text in said for line in text) == 1
    waited, worked = sorted(said, key=lambda text: "working" in text)
    assert worked[-1].startswith("vision.weights: done")
    assert waited[-1].startswith("vision.weights: cached")


def test_build_takes_over_from_one_that_is_killed(cache: StepCache) -> None:
    with process(cache, "hang") as first:
        text = lines(first)
        assert any(line == "working" for line in text)
        assert len(leftovers(cache)) == 1
        with process(cache, "slow") as second:
            text = lines(second)
            assert next(text) == "vision.weights: another build runs this step, waiting for it"
            first.send_signal(signal.SIGKILL)
            assert next(text) == "vision.weights: started"
            assert [line.split(" in ")[0] for line in text] == ["working", "vision.weights: done"]
            assert second.wait() == 0
    assert cache.find(small_step().key) is not None
    assert leftovers(cache) == [], "also what the killed one left"


def test_killed_before_each_file_operation(tmp_path: Path) -> None:
    """Whenever it is, the next build ends as if nothing had happened, and leaves nothing."""
    subprocess.run(
        [sys.executable, "-m", "tests.builder.small_steps", str(tmp_path), "everywhere"], check=True
    )
    caches = [path for path in tmp_path.iterdir() if path.name.isdigit()]
    assert len(caches) > 20
    stored = 0
    for folder in caches:
        cache = StepCache(folder)
        found = cache.check(small_step().key)
        assert not isinstance(found, Damage)
        stored += found is not None
        target = folder.with_name(f"{folder.name}-placed")
        make_and_place(cache, target)
        assert contents(target) == FILES
        assert len(cache.entries()) == 1
        assert found is None or cache.find(small_step().key) == found, "it is not made again"
        assert found is not None or leftovers(cache) == []
    assert 3 < stored < len(caches) - 3


def full_disk(_: Path) -> None:
    raise OSError(28, "No space left on device")


def full_disk_in_rust(_: Path) -> None:
    from safetensors import SafetensorError

    raise SafetensorError("Error while serializing: I/O error: File too large (os error 27)")


@pytest.mark.parametrize("work", [full_disk, full_disk_in_rust])
def test_full_disk_is_a_clear_error(work: Callable[[Path], None], cache: StepCache) -> None:
    kept = run_step(small_step("vision.golden"), cache).entry
    with pytest.raises(BuildError) as error:
        run_step(small_step(work=work), cache)
    for part in ("vision.weights", "the disk is full", str(cache.folder), "vlmc cache prune"):
        assert part in str(error.value)
    assert cache.entries() == [kept]
    assert leftovers(cache) == []


def test_full_disk_while_the_record_is_written(
    cache: StepCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    step: Step = small_step()
    with monkeypatch.context() as patch:
        patch.setattr("vlmc.builder.store.step_cache.sync_tree", full_disk)
        with pytest.raises(BuildError, match="the disk is full"):
            run_step(step, cache)
    assert cache.entries() == [] == leftovers(cache)
    assert run_step(step, cache).state == "built"


def _needing(need: Step, read: list[str]) -> Step:
    def work(folder: Path, needed: Path) -> None:
        read.append((needed / "weights.txt").read_text())
        (folder / "graph.txt").write_text("graph")

    return small_step("vision.graph", work=work, needs=(need,))


def test_a_step_reads_what_it_needs_made_before_it(cache: StepCache) -> None:
    read: list[str] = []
    need = small_step(work=lambda folder: (folder / "weights.txt").write_text("weights"))
    step = _needing(need, read)
    assert run_step(step, cache).state == "built"
    assert run_step(step, cache).state == "cached"
    assert run_step(need, cache).state == "cached"
    assert read == ["weights"]
    other = small_step(parameters={"dtype": "float64"}, work=need.work)
    assert _needing(other, read).key != step.key


def test_a_needed_step_that_is_damaged_is_made_again(cache: StepCache) -> None:
    read: list[str] = []
    need = small_step(work=lambda folder: (folder / "weights.txt").write_text("weights"))
    entry = run_step(need, cache).entry
    (entry.folder / "weights.txt").write_text("damaged")  # as long as what was stored
    events: list[Event] = []
    with receiving(events.append):
        run_step(_needing(need, read), cache)
    assert read == ["weights"]
    assert any(isinstance(event, StepDamaged) for event in events)


def test_reports_go_beside_the_payload(cache: StepCache, tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        (folder / "report").mkdir()
        (folder / "report" / "vision-ranges.json").write_text("{}")
        (folder / "ranges.json").write_text("[]")

    outcome = run_step(small_step(work=work), cache)
    place(outcome, tmp_path / "vision", cache, reports=tmp_path / "reports")
    assert contents(tmp_path / "vision") == {"ranges.json": b"[]"}
    assert contents(tmp_path / "reports") == {"vision-ranges.json": b"{}"}
