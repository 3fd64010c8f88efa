"""What the README shows works: its commands run, and the files and extras that it names exist."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from recipes.publish import ROOT
from tests.recipes.pages import Page, run
from vlmc.distribution import DISTRIBUTION
from vlmc.recipe.read import read_recipe

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAGE = Page("README.md")
README = PAGE.text
MAX_LINES = 200


def test_commands_and_python_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    assert len(PAGE.commands) >= 6
    for command in PAGE.commands:
        run(command)
    _check_shown_answers(tmp_path / "answers.jsonl")
    (example,) = PAGE.blocks("python")
    exec(compile(example, "README.md", "exec"), {})


def _check_shown_answers(path: Path) -> None:
    """The lines that the README shows are the job's, shortened."""
    written = {Path(line["image"]).name: line for line in _json_lines(path.read_text("utf-8"))}
    (example,) = [text for text in PAGE.blocks("") if text.startswith("{")]
    for shown in _json_lines(example):
        line = written[Path(shown["image"]).name]
        assert shown["answer"] == line["answer"]
        assert shown["image_tokens"] == line["image_tokens"]
        assert shown["scores"] == pytest.approx(line["scores"], abs=0.02)


def _json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_recipe_is_valid(tmp_path: Path) -> None:
    (example,) = PAGE.blocks("yaml")
    (tmp_path / "recipe.yaml").write_text(example, encoding="utf-8")
    assert read_recipe(tmp_path / "recipe.yaml").name == "inspection"


def test_make_targets_and_extras_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^`?make (\w+)", README, re.MULTILINE):
        assert f"\n{target}:" in makefile, target
    table = README.partition("| extra | adds |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([\w-]+)`", table)) | {"build"}
    assert named == set(PROJECT["optional-dependencies"])
    assert PROJECT["name"] == DISTRIBUTION
    for name in re.findall(r"(vlm-\w+)\[", README):
        assert name == DISTRIBUTION


NAMED = re.findall(r"\b(?:docs|recipes|vlmc|tests)/[\w/.*-]+(?![\w.*\[-])", README)


@pytest.mark.parametrize("name", sorted(set(NAMED)))
def test_named_file_exists(name: str) -> None:
    assert list(ROOT.glob(name.rstrip("./"))), name


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= MAX_LINES
