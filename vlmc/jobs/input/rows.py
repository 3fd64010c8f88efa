"""The rows of a job: images, perhaps a prompt, and other columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from vlmc.image.source import BinaryFile, describe, is_url
from vlmc.jobs.input.remote import Location, RemoteFile, is_remote
from vlmc.runtime.requests.request import PreparedImage
from vlmc.runtime.scheduler.sequence import Sampling

OneImage = Path | RemoteFile | str | bytes | PreparedImage | BinaryFile
"""A path, a remote file, a URL as a text, an encoded image, or one on its way or prepared."""
ImageInput = OneImage | list[OneImage]


def result_id(line: int) -> str:
    """The id of a batch's result that is the output's line `line`."""
    return f"batch_req_{line:012}"


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """What a line of an OpenAI batch says beside its images and its prompt."""

    custom_id: str
    model: str
    sampling: Sampling
    limited: bool  # whether it says how long its answer may be
    logprobs: bool

    def sampling_up_to(self, max_new_tokens: int) -> Sampling:
        """Its sampling; an answer of no limit of its own has the job's."""
        return (
            self.sampling if self.limited else replace(self.sampling, max_new_tokens=max_new_tokens)
        )


@dataclass(frozen=True, slots=True)
class InputRow:
    """`number` counts from 0; `name` is the value of the output's column `image`.

    `image` is None for a row of text alone. It is also None if `missing`: the input has a column
    `image`, and it is empty in this row. `prompt` and `question` are set if the input has prompts,
    and `batch` if it is an OpenAI batch.
    """

    number: int
    image: ImageInput | None
    name: str | list[str] | None
    prompt: str | None = None
    question: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    missing: bool = False
    batch: BatchRequest | None = None


class Rows(Protocol):
    """An input that can be read more than once, from any row on."""

    @property
    def source(self) -> str:
        """The input's name, for messages."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The other columns, which the output has too."""

    @property
    def prompted(self) -> bool:
        """Whether the rows have their own prompts."""

    @property
    def text_only(self) -> bool:
        """Whether the input has no column `image`, so that its prompts are text alone."""

    @property
    def left_out(self) -> Mapping[str, int]:
        """Kind of file, such as `.txt` → number of files that are left out."""

    @property
    def identity(self) -> str:
        """What a resumed job's input must have in common with the former: a table's sha256, or
        the folder or pattern of image files."""

    def image_counts(self) -> frozenset[int]:
        """How many images the rows have; rows whose image is missing do not count."""

    def __len__(self) -> int: ...

    def read(self, start: int = 0) -> Iterator[InputRow]:
        """The rows from number `start` on."""


def images_in(row: InputRow) -> int:
    """The number of images of a row."""
    if row.image is None:
        return 0
    return len(row.image) if isinstance(row.image, list) else 1


def image_at(folder: Location, text: str) -> tuple[Location | str, str]:
    """The image that a table in `folder` names, and the name for the output.

    A relative path is relative to the folder; a URL that is not fsspec's stays a text.
    """
    if is_remote(text):
        return RemoteFile(text), text
    if is_url(text):
        return text, describe(text)
    return folder / text, text
