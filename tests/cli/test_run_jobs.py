"""`vlmc run`: what it refuses before the model is loaded, streams, and says of failures."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.command import call
from vlmc.cli.main import main

PROMPT = ("--prompt", "A room?")
SMALL = ("--tiles", "single", "--device", "cpu")


@pytest.fixture
def folder(images: Path, tmp_path: Path) -> Path:
    """A picture and one that is cut short."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copy(images / "480x320.jpg", folder / "a.jpg")
    (folder / "cut.jpg").write_bytes((images / "480x320.jpg").read_bytes()[:500])
    return folder


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--choices", "yes,no", "--max-new-tokens", "3", *PROMPT), "choices are scored whole"),
        (
            ("--choices", "yes,no", "--confidence", *PROMPT),
            "works for generated answers only",
        ),
        (("--score", "mean", *PROMPT), "--score is for choices"),
        ((*PROMPT, *PROMPT), "the prompt 'A room?' is given twice"),
        (("--prompt", "<image> or <image>?"), "has 2 <image> placeholder(s), but the rows of"),
        (("--prompt", "<IMG_CONTEXT>?"), "stands for image features"),
        (("other.jpg", "more.jpg", *PROMPT), "put it in quotes: 'images/*.jpg'"),
    ],
)
def test_refused_before_the_model_is_loaded(
    options: tuple[str, ...], said: str, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers.jsonl"
    # There is no artifact, which loading would say.
    result = call("run", tmp_path / "none", folder, *options, "-o", out)
    assert result.exit_code == 2 and said in result.stderr
    assert not out.exists()


def test_a_prompt_for_two_images_needs_a_row_with_two(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "rows.jsonl"
    command = ["run", tmp_path / "none", table, "--prompt", "<image> or <image>?", "-o"]
    for images, said in (([["a", "b"], "c"], "is not an artifact"), (["a"], "have 1 image(s)")):
        table.write_text("".join(json.dumps({"image": image}) + "\n" for image in images))
        assert said in call(*command, tmp_path / "o.jsonl").stderr


@pytest.mark.parametrize("option", ["--retry-errors", "--strict-input", "--json"])
def test_stdout_keeps_nothing_to_resume(option: str, folder: Path, tmp_path: Path) -> None:
    result = call("run", tmp_path / "none", folder, *PROMPT, "-o", "-", option)
    assert result.exit_code == 2 and "cannot be used with -o -" in result.stderr


def test_lines_from_stdin_to_stdout(artifact: Path, folder: Path, tmp_path: Path) -> None:
    rows = [{"image": str(folder / name), "id": name} for name in ("a.jpg", "cut.jpg")]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    out = tmp_path / "answers.jsonl"
    command = [*map(str, ("run", artifact, "-", *PROMPT, *SMALL, "-o"))]
    kept = CliRunner().invoke(main, [*command, str(out)], input=text)
    assert kept.exit_code == 0, kept.output
    streamed = subprocess.run(
        [sys.executable, "-m", "vlmc", *command, "-"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert streamed.stdout == out.read_text()
    assert "1 answer, 1 error for 2 rows in " in streamed.stderr
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("-")]


@pytest.mark.parametrize("to", ["answers.jsonl", "-"])
def test_a_job_without_any_answer_exits_with_1(
    to: str, artifact: Path, folder: Path, tmp_path: Path
) -> None:
    (folder / "a.jpg").write_bytes(b"x")
    out = to if to == "-" else tmp_path / to
    result = call("run", artifact, folder, *PROMPT, *SMALL, "-o", out)
    assert result.exit_code == 1
    assert "no answers, 2 errors. Most frequent errors:\n  1 × " in result.stderr
    assert ("--retry-errors" in result.stderr) == (to != "-")
    if to != "-":
        again = call("run", artifact, folder, *PROMPT, *SMALL, "-o", out, "--json")
        assert again.exit_code == 1
        reasons = json.loads(again.stdout)["reasons"]
        assert [reason["lines"] for reason in reasons] == [1, 1]


def test_changed_folders_are_said(artifact: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    command = ["run", artifact, folder, *PROMPT, *SMALL, "-o", out]
    first = call(*command)
    assert first.exit_code == 0
    assert "most frequent errors:\n  1 × " in first.stderr
    assert "since the output was begun" not in first.stderr
    shutil.copy(folder / "a.jpg", folder / "new.jpg")
    (folder / "cut.jpg").unlink()
    refused = call(*command, "--strict-input")
    assert refused.exit_code == 2 and "added: 1" in refused.stderr
    said = call(*command, "--json")
    assert said.exit_code == 0
    summary = json.loads(said.stdout)
    assert summary["added"] == [str(folder / "new.jpg")]
    assert (summary["removed"], summary["changed"]) == ([str(folder / "cut.jpg")], [])
    assert "added: 1" in said.stderr and "are kept as they are" in said.stderr
