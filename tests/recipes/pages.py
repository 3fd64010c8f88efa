"""Pages of documentation: their code blocks and commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from click import Command, Context, Group
from click.testing import CliRunner

from recipes.publish import ROOT
from vlmc.checkpoint import convert
from vlmc.cli.main import main

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_CONVERT = "python -m vlmc.checkpoint.convert "


@dataclass(frozen=True, slots=True)
class Page:
    """A page by its path below the repository."""

    name: str

    @property
    def text(self) -> str:
        """All of it."""
        return (ROOT / self.name).read_text(encoding="utf-8")

    def blocks(self, language: str) -> list[str]:
        """Its code blocks in a language."""
        return [text for name, text in _FENCE.findall(self.text) if name == language]

    @property
    def languages(self) -> set[str]:
        """The languages of all its code blocks."""
        return {name for name, _ in _FENCE.findall(self.text)}

    @property
    def commands(self) -> list[str]:
        """The lines of its `sh` blocks, which are run."""
        return [line for block in self.blocks("sh") for line in _lines(block)]

    @property
    def shown(self) -> list[str]:
        """Commands of vlmc that it shows and that are not run: in `text` blocks and in prose."""
        lines = [line for block in self.blocks("text") for line in _lines(block)]
        prose = _FENCE.sub("", self.text)
        return [line for line in [*lines, *_SPAN.findall(prose)] if line.startswith("vlmc ")]


def _lines(block: str) -> Iterator[str]:
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True) if line.strip() else []
        if words:
            yield shlex.join(words)


def run(command: str) -> None:
    """Run a command of a page in this process; it must succeed."""
    if command.startswith(_CONVERT):
        assert convert.main(shlex.split(command.removeprefix(_CONVERT))) == 0, command
        return
    program, *arguments = shlex.split(command)
    assert program == "vlmc", f"{command}: a block that cannot run is not sh but text"
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, f"{command}\n{result.output}"


def unknown_words(command: str) -> list[str]:
    """Verbs and options of a shown command that vlmc does not have."""
    words = shlex.split(command.replace("…", ""))[1:]
    place: Command = main
    while isinstance(place, Group) and words and not words[0].startswith("-"):
        verb = place.get_command(Context(place), words[0])
        if verb is None:
            return [word for word in words[:1] if word.isascii() and not word.isupper()]
        place, words = verb, words[1:]
    known = {name for part in place.get_params(Context(place)) for name in part.opts}
    return [word for word in words if word.startswith("-") and word != "-" and word not in known]
