"""Modules of vlmc in processes of their own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import vlmc
from vlmc.machine.child_process import module_command, module_environment


def test_a_file_of_the_current_folder_hides_no_module(tmp_path: Path) -> None:
    for name in ("json", "vlmc"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(3)\n")
    done = subprocess.run(
        module_command("vlmc", "--version"),
        env=module_environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert vlmc.__version__ in done.stdout


def test_settings_come_first() -> None:
    assert module_environment({"HOME": "/elsewhere"})["HOME"] == "/elsewhere"
