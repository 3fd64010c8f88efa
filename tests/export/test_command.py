"""`vlmc export`: what it prints."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from vlmc.cli.main import main


def test_notes_go_to_stderr_and_the_folder_to_stdout(artifact: Path, tmp_path: Path) -> None:
    output = tmp_path / "exported"
    done = CliRunner().invoke(main, ["export", str(artifact), "--to", "sglang", "-o", str(output)])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{output}\n"
    assert "note: template: SGLang picks" in done.stderr
    assert all(line.startswith("note: ") for line in done.stderr.splitlines())


def test_json_has_the_notes_as_a_list(artifact: Path, tmp_path: Path) -> None:
    output = tmp_path / "exported"
    done = CliRunner().invoke(
        main, ["export", str(artifact), "--to", "hf", "-o", str(output), "--json"]
    )
    printed = json.loads(done.stdout)
    assert (printed["folder"], printed["to"]) == (str(output), "hf")
    assert any(note.startswith("pixels: ") for note in printed["notes"])
    assert (output / "config.json").is_file()
