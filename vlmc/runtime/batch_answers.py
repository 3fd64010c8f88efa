"""A callable class that answers batches of other people's pipelines, such as Ray Data's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmc.errors import UsageError, VlmcError
from vlmc.files.units import shorten
from vlmc.runtime.load import load
from vlmc.runtime.requests.answer import Answer
from vlmc.runtime.requests.scores import Choose, Scored, make_choose
from vlmc.runtime.sampling_options import make_sampling
from vlmc.runtime.scheduler.sequence import Sampling

Batch = Mapping[str, Sequence[Any] | npt.NDArray[Any]]


class BatchAnswers:
    """Loads an artifact once, and adds answers to every batch that it is called with.

    A batch maps a column's name to its values, as NumPy arrays or lists. The result is the batch
    with `answer`, `image_tokens` and `error`, each a value a row; with `choices` also their
    log-probabilities, in a column `score_CHOICE` each. A row without an image, or whose image or
    prompt cannot be used, has its error and no answer: "", 0 and NaN. `error` is "" elsewhere.

    >>> import vlmc
    >>> answers = vlmc.BatchAnswers("artifacts/quickstart", prompt="A door?", device="cpu")
    >>> found = answers({"image": ["room.jpg", "missing.jpg"], "id": [7, 8]})
    >>> sorted(found), found["error"][0] == "", found["answer"][1] == ""
    (['answer', 'error', 'id', 'image', 'image_tokens'], True, True)
    >>> answers.close()
    """

    def __init__(
        self,
        artifact: str | Path,
        *,
        prompt: str | None = None,
        prompt_column: str | None = None,
        image_column: str | None = "image",
        choices: Sequence[str] | None = None,
        max_new_tokens: int = 5,
        device: str = "auto",
        tiles: str | None = None,
    ) -> None:
        """Load the artifact.

        Args:
            prompt: the question on every row; or else `prompt_column` names the column that has
                one.
            image_column: holds paths, encoded images, RGB arrays (height, width, 3) of uint8, or
                lists of these; None for prompts without images.
            choices: to score instead of generating an answer.

        Raises:
            VlmcError: as `vlmc.load`.
            UsageError: not one of `prompt` and `prompt_column` is given, or the choices are
                not different texts.
        """
        if (prompt is None) == (prompt_column is None):
            raise UsageError("give prompt or prompt_column, one of the two")
        self._prompt, self._prompt_column, self._image_column = prompt, prompt_column, image_column
        self._work: Sampling | Choose = make_sampling(max_new_tokens)
        if choices is not None:
            self._work = make_choose(choices)
        self._model = load(artifact, device=device, tiles=tiles)

    def __call__(self, batch: Batch) -> dict[str, Any]:
        """The batch with the columns of its answers.

        Raises:
            UsageError: a column is missing, or has the name of one that is added.
        """
        count = len(next(iter(batch.values()), ()))
        images: Any = [None] * count
        if self._image_column is not None:
            images = self._column(batch, self._image_column)
        prompts: Any = [self._prompt] * count
        if self._prompt_column is not None:
            prompts = self._column(batch, self._prompt_column)
        requests = [
            (_image(image), _text(prompt)) for image, prompt in zip(images, prompts, strict=True)
        ]
        missing = [self._image_column is not None and _is_missing(one) for one, _ in requests]
        asked = [one for one, gone in zip(requests, missing, strict=True) if not gone]
        found = iter(list(self._model.try_each((request, self._work) for request in asked)))
        outcomes = [self._no_image() if gone else next(found) for gone in missing]
        added = self._columns(outcomes)
        clashes = sorted(set(added) & set(batch))
        if clashes:
            raise UsageError(f"the batch has a column {clashes[0]!r}, which is added; rename it")
        return {**batch, **added}

    def close(self) -> None:
        """Free the model.

        >>> import vlmc
        >>> answers = vlmc.BatchAnswers("artifacts/quickstart", prompt="A door?", device="cpu")
        >>> answers.close()
        """
        self._model.close()

    def _columns(self, outcomes: Sequence[Answer | Scored | VlmcError]) -> dict[str, Any]:
        answers = [one.answer if isinstance(one, Scored) else one for one in outcomes]
        good = [answer if isinstance(answer, Answer) else None for answer in answers]
        columns: dict[str, Any] = {
            "answer": np.array([one.text if one else "" for one in good], object),
            "image_tokens": np.array([one.image_tokens if one else 0 for one in good], np.int64),
            "error": np.array(
                [str(one) if isinstance(one, VlmcError) else "" for one in answers], object
            ),
        }
        if isinstance(self._work, Choose):
            for choice in self._work.choices:
                columns[f"score_{choice}"] = np.array(
                    [one.scores[choice] if isinstance(one, Scored) else np.nan for one in outcomes]
                )
        return columns

    def _no_image(self) -> VlmcError:
        return VlmcError(
            f"the row has no image in the column {self._image_column!r}; fill it in, or give "
            "image_column=None if no row has one"
        )

    @staticmethod
    def _column(batch: Batch, name: str) -> Any:
        if name not in batch:
            has = shorten(", ".join(map(repr, batch)) or "none")
            raise UsageError(f"the batch has no column {name!r}, it has {has}; name the right one")
        return batch[name]


def _image(value: Any) -> Any:
    """An image as a request takes it: arrays of text or bytes are lists of images."""
    if isinstance(value, np.ndarray) and value.dtype != np.uint8:
        return [_image(part) for part in value]
    return value


def _is_missing(image: Any) -> bool:
    """Tables without an image in a row hold None or an empty list there."""
    return image is None or (isinstance(image, list) and not image)


def _text(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
