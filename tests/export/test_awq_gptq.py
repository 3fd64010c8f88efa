"""The language model alone: what is refused before anything is written, and what is said."""

from __future__ import annotations

import json
from collections.abc import Callable
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


def test_positions_are_not_scaled_and_joined_linears_are_named(
    built: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """The engines that read these layouts apply dynamic scaling to every prompt."""
    artifact = built("internlm2-300m", "w4a16")
    notes = export(open_artifact(artifact), "gptq", tmp_path / "exported")
    config = json.loads((tmp_path / "exported" / "config.json").read_bytes())
    assert config["rope_scaling"] is None
    assert any("prompts end at" in note for note in notes)
    assert not any("they join" in note for note in notes)
