"""What a job reads: rows with an image, perhaps a prompt, and columns that are passed on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

ImageInput = Path | bytes | list[Path | bytes]


@dataclass(frozen=True, slots=True)
class InputRow:
    """`number` counts from 0; `name` is what the output's column `image` will hold.

    `image` is None where the input names none; `prompt` and `question` are set where the
    input brings its own prompts.
    """

    number: int
    image: ImageInput | None
    name: str | list[str] | None
    prompt: str | None = None
    question: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


class Rows(Protocol):
    """An input that can be read more than once, from any row on."""

    @property
    def source(self) -> str:
        """The input's name, for messages."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that are passed on to the output."""

    @property
    def prompted(self) -> bool:
        """Whether the rows bring their own prompts."""

    @property
    def digest(self) -> str:
        """sha256 over what identifies the input; image files count by their path alone."""

    def __len__(self) -> int: ...

    def read(self, start: int = 0) -> Iterator[InputRow]:
        """The rows from number `start` on."""
