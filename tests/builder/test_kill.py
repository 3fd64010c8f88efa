"""A build that is killed leaves no artifact, and the next one clears up after it alone."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.artifacts import write_recipe
from vlmc.artifact.integrity import open_artifact
from vlmc.files.staging import staging_folder

# Builds up to the moment before the manifest.
SCRIPT = """
import sys, time
from pathlib import Path
from vlmc.builder.build import build
from vlmc.cli.views.plain_view import plain_line
from vlmc.progress.channel import receiving
from vlmc.recipe.read import read_recipe

def report(event):
    print(plain_line(event), flush=True)
    if plain_line(event).startswith("manifest"):
        time.sleep(600)

with receiving(report):
    build(read_recipe(Path(sys.argv[1])), None)
"""


def test_killed_build_leaves_no_artifact_and_the_next_works(
    quick_build: Callable[..., Path], miniature: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", miniature)
    command = [sys.executable, "-c", SCRIPT, str(recipe)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
        ExitStack() as killed,  # else a failure here would wait for it
    ):
        killed.callback(process.kill)
        assert process.stdout is not None
        lines = iter(process.stdout)
        assert any(line.startswith("manifest") for line in lines)
        folder = tmp_path / "artifacts"
        (partial,) = folder.iterdir()
        assert (partial / "language" / "model.safetensors").exists()

        # A build beside the one that lives does not touch what that one writes.
        other = quick_build(["model.dtype=fp16"])
        assert partial.exists()

        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert partial.exists()
    assert not (partial / "manifest.json").exists()
    bystanders = (".other.partial-01234567", ".miniature.partial-notes", ".miniature.partial")
    for name in bystanders:
        (folder / name).mkdir()
    built = quick_build()
    assert open_artifact(built).manifest.language_dtype == "bfloat16"
    assert not partial.exists()
    found = {path.name for path in folder.iterdir()}
    assert found == {"miniature", built.name, other.name, *bystanders}


def test_builds_side_by_side_keep_each_others_folders(tmp_path: Path) -> None:
    with staging_folder(tmp_path, "name") as first, staging_folder(tmp_path, "name") as second:
        assert first != second
        assert first.is_dir() and second.is_dir()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moved", [True, False])
def test_folder_is_gone_afterwards_unless_moved(moved: bool, tmp_path: Path) -> None:
    with staging_folder(tmp_path, "name") as partial:
        (partial / "file").write_text("x")
        if moved:
            partial.rename(tmp_path / "target")
    assert [path.name for path in tmp_path.iterdir()] == (["target"] if moved else [])


def test_leftover_link_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (tmp_path / ".name.partial-01234567").symlink_to(precious)
    with staging_folder(tmp_path, "name"):
        pass
    assert precious.is_dir()
