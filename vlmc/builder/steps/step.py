"""A step of a build: what it is made of, and the function that makes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

REPORT = "report"
"""The folder inside a step's own for files that people read: they go into the artifact's reports,
and no payload. Names begin with the wing, such as `report/language-quantization.json`."""


def _anywhere() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Step:
    """A pure function from inputs and parameters to the files of a folder.

    `work` is called with an empty folder to fill, and after it the folder of each of `needs` to
    read. It imports what is heavy itself, and knows nothing of caching.
    """

    name: str  # "vision.weights", "language.tokenizer": the wing before the dot
    version: int  # raise it when the step's output changes
    inputs: Mapping[str, str]  # label → sha256 of a source file
    parameters: Mapping[str, object]  # the values of the resolved recipe that the step acts on
    tools: Mapping[str, str]  # package → version, of those that decide what is written
    work: Callable[..., None]
    needs: tuple[Step, ...] = ()  # whose files it reads
    reproducible: bool = True  # False: two runs may write different bytes
    check: Callable[[], None] = _anywhere  # raises where this machine cannot do the work

    @property
    def key_parts(self) -> dict[str, Any]:
        """All that the key is made of, as JSON values."""
        return {
            "name": self.name,
            "version": self.version,
            "inputs": dict(self.inputs) | {need.name: need.key for need in self.needs},
            "parameters": dict(self.parameters),
            "tools": dict(self.tools),
        }

    @property
    def key(self) -> str:
        """The sha256, in full, of the canonical JSON of `key_parts`."""
        text = json.dumps(
            self.key_parts,
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=True,
            allow_nan=False,
        )
        return hashlib.sha256(text.encode("ascii")).hexdigest()
