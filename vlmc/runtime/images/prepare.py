"""From a request to tiles and token ids, on the CPU and ahead of the model."""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vlmc.artifact.manifest import ImageRules
from vlmc.errors import UsageError
from vlmc.image.decode import ImageSource, decode, describe, read_image_file
from vlmc.image.preprocess import make_tiles
from vlmc.image.tiles import TileRule
from vlmc.runtime.images.cache import KEPT_IMAGES, ContentCache
from vlmc.runtime.requests.request import PreparedImage, split_request
from vlmc.text.prompt import PromptBuilder


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """Token ids of the whole prompt, and the images that its image tokens stand for."""

    prompt_ids: tuple[int, ...]
    image_token_id: int
    images: tuple[PreparedImage, ...]
    prepare_ms: float

    @property
    def image_tokens(self) -> int:
        """Tokens that the images take."""
        return self.prompt_ids.count(self.image_token_id) if self.images else 0

    @property
    def prefix_length(self) -> int:
        """Tokens up to the last image token; they depend on nothing that comes after them."""
        if not self.images:
            return 0
        return len(self.prompt_ids) - self.prompt_ids[::-1].index(self.image_token_id)

    @property
    def prefix_key(self) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
        """What the prefix is computed from: the images' content *and* the token ids. Ids alone
        would take one image for another of the same size."""
        digests = tuple(image.digest for image in self.images)
        return digests, self.prompt_ids[: self.prefix_length]


class Preparer:
    """Decodes, tiles and tokenizes; keeps the last few images for the questions that follow."""

    def __init__(self, rules: ImageRules, tiles: TileRule, prompts: PromptBuilder) -> None:
        self._rules, self._tiles, self._prompts = rules, tiles, prompts
        # Streams that are open at once, and `encode` beside them, prepare on threads of their own.
        self._kept: ContentCache[PreparedImage] = ContentCache(KEPT_IMAGES)
        self._counting = threading.Lock()
        self.images_decoded = 0

    def request(self, request: object) -> PreparedRequest:
        """Prepare one request.

        Raises:
            VlmcError: the request, one of its images or its prompt is not usable.
        """
        start = time.perf_counter()
        sources, question = split_request(request)
        images = tuple(self.image(source) for source in sources)
        prompt = self._prompts.build(question, [len(image.tiles) for image in images])
        return PreparedRequest(
            prompt_ids=tuple(prompt.ids),
            image_token_id=prompt.image_token_id,
            images=images,
            prepare_ms=(time.perf_counter() - start) * 1e3,
        )

    def image(self, source: ImageSource | PreparedImage) -> PreparedImage:
        """Decode and tile one image, or take it from the last few by its content.

        Raises:
            ImageError: it is missing, damaged, too large, or no image.
        """
        if isinstance(source, PreparedImage):
            return source
        name = describe(source)
        if isinstance(source, str | Path):
            source = read_image_file(source)
        content, digest = source, _digest(source)

        def prepared() -> PreparedImage:
            pixels = decode(content, exif=self._rules.exif, name=name)
            with self._counting:
                self.images_decoded += 1
            return PreparedImage(digest, make_tiles(pixels, self._tiles, self._rules.resampler))

        return self._kept.get_or_compute(digest, prepared)


def _digest(source: bytes | npt.NDArray[np.uint8]) -> bytes:
    digest = hashlib.blake2b(digest_size=32)
    if isinstance(source, np.ndarray):
        digest.update(f"{source.shape} {source.dtype}".encode())
        digest.update(np.ascontiguousarray(source).data)
    elif isinstance(source, bytes):
        digest.update(source)
    else:
        raise UsageError(f"an image is a path, bytes or an RGB array, got {type(source).__name__}")
    return digest.digest()
