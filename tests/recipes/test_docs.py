"""What the pages under docs/ show works: commands run, recipes are valid, messages are real."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from recipes.publish import ROOT
from tests.recipes.pages import Page, run, unknown_words
from tests.recipes.workplace import prepare
from vlmc import load
from vlmc.recipe.read import read_recipe

PAGES = {path.name: Page(f"docs/{path.name}") for path in sorted((ROOT / "docs").glob("*.md"))}
RUN = [name for name, page in PAGES.items() if page.commands]
LANGUAGES = {"sh", "text", "yaml", "python", "json"}
# Pages with commands that no test runs, whose words are checked alone.
NOT_RUN = {
    "accuracy.md": "thresholds need about a hundred positive labels in each half of the data",
    "bench.md": "the 8B shape needs a GPU",
    "ray.md": "a cluster of several machines",
    "tensorrt.md": "plans for a card are built in tests of their own, and run on that card alone",
    "vision-gpu.md": "inductor needs a GPU",
}
# A recipe of the required keys, to which the fragments of the pages are added.
REQUIRED = {"version": 1, "name": "inspection", "model": {"checkpoint": "finetuned"}}
STAGES = ["Install", "Recipe", "Checkpoint", "Build", "Load", "Run", "Verify"]
ROW = re.compile(r"^\| (`.+`) \| (.+) \| (.+) \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, miniature: Path) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "prepared"
    folder.mkdir()
    prepare(folder, miniature)
    return folder


@pytest.fixture
def workplace(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder that the pages speak of."""
    folder = tmp_path / "work"
    shutil.copytree(prepared, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


def on_ray(name: str) -> Any:
    """The page as a parameter; those with Ray share a process, and so a cluster."""
    is_ray = name == "ray.md"
    return pytest.param(name, marks=[pytest.mark.xdist_group("ray")] if is_ray else [])


@pytest.fixture
def cluster_if_needed(request: pytest.FixtureRequest) -> None:
    """Ray, for the page on it."""
    if request.node.callspec.params["name"] == "ray.md":
        request.getfixturevalue("cluster")


@pytest.mark.usefixtures("cluster_if_needed")
@pytest.mark.parametrize("name", [on_ray(name) for name in RUN])
def test_commands_run_in_order(name: str, workplace: Path) -> None:
    page = PAGES[name]
    whole = [text for text in page.blocks("yaml") if "version:" in text]
    for recipe in whole[:1]:
        (workplace / "recipe.yaml").write_text(recipe, encoding="utf-8")
    for command in page.commands:
        run(command)


@pytest.mark.usefixtures("cluster_if_needed")
@pytest.mark.parametrize(
    "name", [on_ray(name) for name, page in PAGES.items() if page.blocks("python")]
)
def test_python_runs(name: str, workplace: Path) -> None:
    with load("artifacts/inspection", device="cpu") as model:
        for example in PAGES[name].blocks("python"):
            exec(compile(example, name, "exec"), {"model": model})


@pytest.mark.parametrize("name", [*PAGES, "README.md"])
def test_shown_commands_have_the_verbs_and_options_of_vlmc(name: str) -> None:
    page = PAGES.get(name) or Page(name)
    wrong = {command: unknown_words(command) for command in page.shown}
    assert not {command: words for command, words in wrong.items() if words}


def test_a_wrong_verb_or_option_is_noticed() -> None:
    assert unknown_words("vlmc verify accuracy ARTIFACT --limit 5 --fast") == ["--fast"]
    assert unknown_words("vlmc verify accurately ARTIFACT") == ["accurately"]
    assert unknown_words("vlmc cache prune") == []


def test_blocks_that_do_not_run_have_a_reason() -> None:
    for page in PAGES.values():
        assert page.languages <= LANGUAGES, f"{page.name}: name the language of every block"
    shown = {
        name
        for name, page in PAGES.items()
        if any(
            line.startswith("vlmc ") for text in page.blocks("text") for line in text.split("\n")
        )
    }
    assert shown == NOT_RUN.keys()


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if page.blocks("yaml")])
def test_recipes_are_valid(name: str, tmp_path: Path) -> None:
    for number, text in enumerate(PAGES[name].blocks("yaml")):
        path = tmp_path / f"{number}.yaml"
        fragment = yaml.safe_load(text)
        if fragment.keys() == {"calibration"}:
            fragment["vision"] = {"precision": "int8"}  # without which nothing looks at it
        values = REQUIRED | fragment
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        read_recipe(path)


@cache
def messages() -> tuple[str, ...]:
    """Every text of vlmc that is not a docstring, with … for what is filled in."""
    return tuple(text for path in (ROOT / "vlmc").rglob("*.py") for text in _texts(path))


def _texts(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and id(node) not in docstrings:
            yield str(node.value)


def entries() -> dict[str, tuple[str, str]]:
    """Message → cause and remedy, of every row of the page."""
    return {
        message: (cause, remedy)
        for cell, cause, remedy in ROW.findall(PAGES["troubleshooting.md"].text)
        for message in re.findall(r"`([^`]+)`", cell)
    }


@pytest.mark.parametrize("message", entries())
def test_message_occurs_in_the_source(message: str) -> None:
    pattern = re.compile(".*".join(map(re.escape, message.split("…"))), re.DOTALL)
    assert any(pattern.search(text) for text in messages()), "no message of vlmc reads like this"


def test_troubleshooting_covers_every_stage() -> None:
    page = PAGES["troubleshooting.md"]
    assert re.findall(r"^## (.+)$", page.text, re.MULTILINE) == STAGES
    assert len(entries()) >= 25
    for cause, remedy in entries().values():
        assert cause.strip() and remedy.strip()


LINK = re.compile(r"\]\(([\w./-]+\.md)?(?:#([\w-]+))?\)")


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    for file, heading in LINK.findall(PAGES[name].text):
        target = PAGES[file] if file else PAGES[name]
        titles = re.findall(r"^#+ (.+)$", target.text, re.MULTILINE)
        assert not heading or heading in {_anchor(title) for title in titles}, (file, heading)


def _anchor(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.casefold()).replace(" ", "-")
