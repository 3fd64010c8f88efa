"""What an export refuses before it writes anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.artifacts import copy_with
from vlmc import open_artifact
from vlmc.errors import UsageError
from vlmc.export.awq_gptq import export


@pytest.mark.parametrize("scheme", ["none", "fp8"])
def test_weights_of_other_schemes_are_refused(scheme: str, artifact: Path, tmp_path: Path) -> None:
    held = copy_with(artifact, tmp_path / "artifact", language_scheme=scheme)
    with pytest.raises(UsageError, match=f"language.scheme {scheme}; awq and gptq are layouts of"):
        export(open_artifact(held), "awq", tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_a_folder_in_the_way_is_left_alone(artifact: Path, tmp_path: Path) -> None:
    held = copy_with(artifact, tmp_path / "artifact", language_scheme="w4a16")
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "mine").touch()
    with pytest.raises(UsageError, match="exists; name a new folder with -o"):
        export(open_artifact(held), "gptq", tmp_path / "exported")
    assert [path.name for path in (tmp_path / "exported").iterdir()] == ["mine"]
