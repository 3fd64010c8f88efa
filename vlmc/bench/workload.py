"""What is asked in each run of a measurement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from vlmc.errors import UsageError, VlmcError
from vlmc.runtime.model import Model

QUESTION = "Is a fire extinguisher visible in the picture? Answer yes or no."


@dataclass(frozen=True, slots=True)
class Workload:
    """Encoded images, and questions about each; `choices` are scored where they are given."""

    images: Sequence[bytes]
    questions: tuple[str, ...] = (QUESTION,)
    max_new_tokens: int = 5
    choices: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.images:
            raise UsageError("there are no images to ask about; give a folder that holds some")

    @property
    def requests(self) -> int:
        """Requests of a run."""
        return len(self.images) * len(self.questions)

    def answer(self, model: Model, run: int, share: float = 1.0) -> int:
        """Ask everything, or the first `share` of the images; returns the number of answers.

        Raises:
            VlmcError: a request has no answer.
        """
        images = self.images[: max(1, round(share * len(self.images)))]
        asked = self._asked(images, run)
        results: Iterable[object]
        if self.choices is None:
            results = model.try_stream(asked, max_new_tokens=self.max_new_tokens)
        else:
            results = model.try_score(asked, choices=self.choices)
        count = 0
        for result in results:
            if isinstance(result, VlmcError):
                raise VlmcError(
                    f"request {count + 1} of the measurement has no answer, and a rate would count "
                    f"it as one: {result}"
                ) from result
            count += 1
        return count

    def _asked(self, images: Sequence[bytes], run: int) -> Iterator[tuple[bytes, str]]:
        """Each image has a mark of the run behind its end, where no decoder looks: it is another
        image for every cache, and nothing of an earlier run is reused."""
        for index, image in enumerate(images):
            marked = image + f"vlmc bench, run {run}, image {index}".encode()
            for question in self.questions:
                yield marked, question
