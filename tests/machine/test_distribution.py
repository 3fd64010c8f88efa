"""The command that messages give for a missing extra, by how vlmc was installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlmc.distribution import install_command

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GIT = {"url": "https://host/vlmc.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT}}
CLONE = {"url": "file:///home/me/my%20vlmc", "dir_info": {"editable": True}}


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'vlm-compiler[sign]'"),
        (CLONE, "pip install -e '.[sign]' (in /home/me/my vlmc)"),
        (
            {"url": "file:///home/me/vlmc", "dir_info": {}},
            "pip install 'vlm-compiler[sign] @ file:///home/me/vlmc'",
        ),
        (GIT, f"pip install 'vlm-compiler[sign] @ git+https://host/vlmc.git@{COMMIT}'"),
    ],
)
def test_command_follows_the_install(
    origin: object, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    information = tmp_path / "vlm_compiler-9.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: vlm-compiler\nVersion: 9\n")
    if origin is not None:
        (information / "direct_url.json").write_text(json.dumps(origin))
    # Only what is installed in this folder is seen.
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert install_command("sign") == command
