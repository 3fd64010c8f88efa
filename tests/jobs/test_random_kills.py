"""Jobs on a real model, killed at random moments: every row and question has one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.jobs.input.shards import write_shard
from tests.jobs.input.write import jpeg, write_jsonl

ROOT = Path(__file__).parents[2]
ROWS = 12
DAMAGED = 5


def lines_of(out: Path) -> Sequence[dict[str, Any]]:
    if out.suffix == ".parquet":
        return pq.read_table(out).to_pylist()
    return [json.loads(line) for line in out.open()]


# Two kills for each of three kinds of job.
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_each_row_and_question_has_one_line(kills: int, artifact: Path, tmp_path: Path) -> None:
    contents = [jpeg(20 + row) for row in range(ROWS)]
    contents[DAMAGED] = contents[DAMAGED][:200]
    for row, content in enumerate(contents):
        (tmp_path / f"{row}.jpg").write_bytes(content)
    write_jsonl(tmp_path / "rows.jsonl", *({"image": f"{row}.jpg"} for row in range(ROWS)))
    write_shard(tmp_path / "s.tar", {f"{row}.jpg": content for row, content in enumerate(contents)})
    found = subprocess.run(
        [sys.executable, "-m", "tests.jobs.killed_runs", artifact, tmp_path, str(kills)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    killed = json.loads(found.stdout.splitlines()[-1])
    assert set(killed.values()) == {kills}
    for name in killed:
        lines = lines_of(tmp_path / name)
        keys = [(line["row"], line["question"]) for line in lines]
        assert keys == [(row, question) for row in range(ROWS) for question in ("door", "lamp")]
        assert [line["row"] for line in lines if line["error"]] == [DAMAGED, DAMAGED]
        whole = lines_of(tmp_path / f"whole-{name}")
        assert [line["answer"] for line in lines] == [line["answer"] for line in whole]
    left = {path.name for path in tmp_path.iterdir()} - {f"{row}.jpg" for row in range(ROWS)}
    outputs = {f"{begin}{name}" for name in killed for begin in ("", "whole-")}
    ledgers = {f"{name}.ledger.json" for name in outputs}
    assert left == {"rows.jsonl", "s.tar", *outputs, *ledgers}
