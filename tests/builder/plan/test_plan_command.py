"""`vlmc plan` as a user calls it, and how long the command line takes to answer at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.artifacts import write_recipe
from tests.builder.plan.processor_time import of_children
from vlmc.cli.main import main


@pytest.fixture
def recipe(miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLMC_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return write_recipe(tmp_path / "recipe.yaml", miniature)


def plan(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["plan", *map(str, arguments)])


def test_the_tables_name_everything(recipe: Path) -> None:
    done = plan(recipe, "--image-size", "480x320", "--set", "image.tiles={rule: native}")
    assert done.exit_code == 0 and done.stderr == ""
    rows = [line.split() for line in done.stdout.splitlines()]
    assert next(row for row in rows if "480x320" in row)[:4] == ["480x320", "2x1", "2", "512"]
    for text in (
        "vision.graph",
        "never built in this cache",
        "expected time: about",
        "estimates from operation counts",
        "no known digest yet",
        "KV cache of a batch of 16,384 tokens",
        "artifact on disk",
        "build cache grows by",
    ):
        assert text in done.stdout
    assert "448x448" not in done.stdout


def test_a_missing_checkpoint_leaves_a_table_of_images(tmp_path: Path) -> None:
    done = plan(write_recipe(tmp_path / "recipe.yaml", tmp_path / "nowhere"))
    assert done.exit_code == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    assert next(row for row in rows if "480x320" in row)[-2:] == ["7", "1792"]
    assert "does not exist" in done.stdout and "KV cache" not in done.stdout


def test_what_this_machine_cannot_run_is_named(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmc.compile.engines.tensorrt.gpus", lambda: ())
    done = plan(recipe, "--set", "vision.engines=[{engine: tensorrt, targets: [sm89]}]")
    assert "this machine cannot run:" in done.stdout
    assert "  vision.tensorrt-sm89: the step vision.tensorrt-sm89 must run on" in done.stdout
    assert "compared with the most similar steps in the cache" in done.stdout
    (gpus,) = [line for line in done.stdout.splitlines() if "GPUs of sm89 to run on" in line]
    assert gpus.endswith("1 × 24 GB (RTX 4090)")


def test_what_build_refuses_is_planned_and_said(recipe: Path) -> None:
    quantized = ("language={scheme: w4a16, group_size: 32}", "calibration.dataset=none.jsonl")
    done = plan(recipe, *(word for override in quantized for word in ("--set", override)))
    assert done.exit_code == 0
    assert "`vlmc build` refuses the recipe" in done.stdout
    assert "none.jsonl" in done.stdout


@pytest.mark.parametrize("size", ["480", "480x", "0x320", "480x320x3", "-1x5", "480×320"])
def test_a_size_that_is_none_is_a_usage_error(recipe: Path, size: str) -> None:
    done = plan(recipe, f"--image-size={size}")
    assert done.exit_code == 2
    assert done.stdout == "" and done.stderr.startswith("error: ")


def test_help_answers_within_300_ms() -> None:
    """The whole process, in processor time, which tests that share the cores add little to."""
    command = [sys.executable, "-m", "vlmc", "--help"]
    assert of_children(lambda: subprocess.run(command, capture_output=True, check=True)) < 0.3
