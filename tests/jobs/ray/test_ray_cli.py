"""`vlmc run --ray` with a real artifact, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.command import call
from tests.jobs.input.write import write_jsonl
from tests.jobs.ray.jobs import lines_of, parts_of

ROOT = Path(__file__).parents[3]
SMALL = ("--prompt", "A room?", "--prompt", "A door?", "--tiles", "single", "--device", "cpu")


@pytest.mark.xdist_group("ray")
@pytest.mark.usefixtures("cluster")
def test_lines_are_those_of_the_local_job(artifact: Path, images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("480x320.jpg", "320x480.jpg"):
        shutil.copy(images / name, folder)
    (folder / "cut.jpg").write_bytes((images / "480x320.jpg").read_bytes()[:500])
    local, out = tmp_path / "local.jsonl", tmp_path / "ray.jsonl"
    assert call("run", artifact, folder, *SMALL, "-o", local).exit_code == 0
    found = call("run", artifact, folder, *SMALL, "-o", out, "--json", "--ray")
    assert found.exit_code == 0, found.stderr
    assert b"".join(part.read_bytes() for part in parts_of(out)) == local.read_bytes()
    summary = json.loads(found.stdout)
    assert (summary["answers"], summary["errors"], summary["output"]) == (4, 2, str(out))
    assert "1 worker on 1 machine" in found.stderr
    assert "tiles single, accuracy unverified" in found.stderr
    shared = tmp_path / "shared.jsonl"
    command = ("run", artifact, folder / "480x320.jpg", *SMALL, "-o", shared, "--devices", "2")
    assert call(*command, "--ray").exit_code == 0
    answers = {(line["image"], line["prompt"]): line["answer"] for line in lines_of(local)}
    found_shared = {(line["image"], line["prompt"]): line["answer"] for line in lines_of(shared)}
    assert len(found_shared) == 2 and found_shared.items() <= answers.items()
    refused = call("run", artifact, folder, *SMALL, "-o", out)
    assert refused.exit_code == 2 and "add --ray to resume" in refused.stderr
    refused = call("run", artifact, folder, *SMALL, "-o", out, "--require-verified", "--ray")
    assert refused.exit_code == 3 and "needs it passed" in refused.stderr


@pytest.mark.xdist_group("ray")
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupt_ends_all_processes_and_loses_nothing(
    number: signal.Signals, artifact: Path, images: Path, tmp_path: Path
) -> None:
    image = str(images / "480x320.jpg")
    rows = [{"image": image, "prompt": f"Room {row}?"} for row in range(300)]
    table, out = write_jsonl(tmp_path / "rows.jsonl", *rows), tmp_path / "ray.jsonl"
    command = ("run", artifact, table, "--tiles", "single", "--device", "cpu", "-o", out)
    process = subprocess.Popen(
        [sys.executable, "-m", "vlmc", *command, "--ray"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while process.poll() is None and not parts_of(out) and time.monotonic() < deadline:
        time.sleep(0.02)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as from a terminal, to all of the command's group
    else:
        process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1, said
    assert "it was interrupted; finishing the requests that run" in said
    assert "run the same command again to resume" in said and "Traceback" not in said
    done = len(lines_of(out))
    assert 0 < done < 300
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    resumed = call(*command, "--ray", "--json")
    assert resumed.exit_code == 0 and json.loads(resumed.stdout)["resumed"] == done
    assert [line["row"] for line in lines_of(out)] == list(range(300))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-o", "-", "--ray"), "--ray writes a folder of parts, so -o - cannot be used"),
        (("-o", "a.jsonl", "--workers", "2"), "--workers has no effect without --ray"),
        (("-o", "a.txt", "--ray"), "the output must end in .jsonl"),
        (("-o", "a.jsonl", "--ray", "photos"), "'photos' is not an address"),
    ],
)
def test_what_is_refused(options: tuple[str, ...], said: str, images: Path, tmp_path: Path) -> None:
    result = call("run", tmp_path / "none", images, "--prompt", "A room?", *options)
    assert result.exit_code == 2 and said in result.stderr
