"""The same recipe and checkpoint give the same artifact, byte for byte, wherever they lie."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.artifacts import AS_ORACLE, write_recipe


def test_another_process_in_another_folder_builds_the_same(
    artifact: Path, miniature: Path, tmp_path: Path
) -> None:
    checkpoint = shutil.copytree(miniature, tmp_path / "deep" / "down" / miniature.name)
    recipe = write_recipe(tmp_path / "other-name.yaml", Path("deep/down") / miniature.name)
    overrides = [part for override in AS_ORACLE for part in ("--set", override)]
    finished = subprocess.run(
        [sys.executable, "-m", "vlmc", "build", recipe.name, *overrides, "--json"],
        cwd=tmp_path,
        env={
            **os.environ,
            "VLMC_CACHE": "cache",
            "PYTHONHASHSEED": "7",
            "TZ": "Asia/Shanghai",
            "LC_ALL": "C",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert checkpoint.is_dir()
    told = json.loads(finished.stdout)  # one object, nothing else
    built = tmp_path / told["artifact"]
    assert built == tmp_path / "artifacts" / f"miniature-{told['identity'][:8]}"
    assert (tmp_path / "artifacts" / "miniature").readlink() == Path(built.name)
    for line in ("vision.graph: done", "language.weights: done", "manifest: ", "built "):
        assert line in finished.stderr

    def payload(folder: Path) -> dict[str, bytes]:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.parent.name != "reports"
        }

    first, second = payload(artifact), payload(built)
    assert first.keys() == second.keys()
    for name, data in first.items():
        assert second[name] == data, name
