"""A request: images and a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from vlmc.errors import UsageError
from vlmc.image.decode import ImageNote
from vlmc.image.source import ImageSource, describe, is_image_source

if TYPE_CHECKING:
    # Processes that only prepare images do without torch.
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class TileOrigin:
    """The artifact's identity and the tile rule, as text, that tiles were made by."""

    artifact: str
    tiles: str

    def __str__(self) -> str:
        return f"the artifact {self.artifact[:8]} with tiles {self.tiles}"


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """Tiles, uint8 (T, 448, 448, 3), and the digest of all of the image's bytes, which identifies
    the image.

    In a request it replaces its image, which is then neither decoded nor tiled. `features`
    (256 · T, hidden), where given, replace the vision engine's. `notes` is what decoding left
    unused. A model refuses tiles of another `origin` than its own; None passes everywhere.
    """

    digest: bytes
    tiles: npt.NDArray[np.uint8]
    features: Tensor | None = None
    notes: frozenset[ImageNote] = frozenset()
    origin: TileOrigin | None = None


Request: TypeAlias = (
    "tuple[ImageSource | PreparedImage | Sequence[ImageSource | PreparedImage] | None, str]"
)
"""Image, images or None, and a prompt that may hold `<image>` placeholders."""


def split_request(request: object) -> tuple[list[ImageSource | PreparedImage], str]:
    """A request's images, in order, and its prompt.

    Raises:
        UsageError: it is not of the form of `Request`; says what was found.
    """
    if not isinstance(request, tuple | list) or len(request) != 2:
        parts = f"{len(request)} values" if isinstance(request, tuple | list) else describe(request)
        raise UsageError(f"a request is (image, list of images or None, prompt), got {parts}")
    images, prompt = request
    if not isinstance(prompt, str):
        raise UsageError(f"a request's prompt is a text, got {type(prompt).__name__}")
    if images is None:
        return [], prompt
    if isinstance(images, list | tuple):
        return list(images), prompt
    if isinstance(images, PreparedImage) or is_image_source(images):
        return [images], prompt
    raise UsageError(
        "a request's image is a path, bytes, a file object, a Pillow image, a data: URL, an array, "
        f"a tensor or a list of these, got {type(images).__name__}"
    )
