"""Remote images, fetched side by side while the model works."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmc.jobs.input.remote import RemoteFile

if TYPE_CHECKING:
    # Processes that only prepare images do without torch, which rows lead to.
    from vlmc.jobs.input.rows import ImageInput, OneImage

# A store answers after tens of milliseconds, in which a thread only waits.
THREADS = 32


@dataclass(frozen=True, slots=True)
class Fetching:
    """A remote image on its way."""

    name: str
    content: Future[bytes]

    def seekable(self) -> bool:
        """It is read as a whole."""
        return False

    def read(self) -> bytes:
        """The content, once it is there; raises as `RemoteFile.read`."""
        return self.content.result()


class Fetcher:
    """Starts to fetch the images of requests; as many are on their way as the model reads ahead."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._last: tuple[RemoteFile, Fetching] | None = None

    def started(
        self, image: ImageInput | None
    ) -> OneImage | Fetching | list[OneImage | Fetching] | None:
        """The image or the list of images, with remote ones on their way."""
        if isinstance(image, list):
            return [self._start(part) for part in image]
        return None if image is None else self._start(image)

    def close(self) -> None:
        """Fetch nothing more."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _start(self, image: OneImage) -> OneImage | Fetching:
        if not isinstance(image, RemoteFile):
            return image
        # The questions on an image follow each other.
        if self._last is None or self._last[0] != image:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="vlmc-fetch")
            self._last = image, Fetching(image.url, self._pool.submit(image.read))
        return self._last[1]
