"""What the runtime is asked: images and a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vlmc.errors import UsageError
from vlmc.image.decode import ImageSource


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """Tiles, uint8 (T, 448, 448, 3), and the digest of the image's own bytes, which alone tells
    two images apart.

    In a request it stands for its image, which is then neither decoded nor tiled. `features`
    (256 · T, hidden), where given, are taken in place of the vision engine's.
    """

    digest: bytes
    tiles: npt.NDArray[np.uint8]
    features: Tensor | None = None


Request = tuple[ImageSource | PreparedImage | Sequence[ImageSource | PreparedImage] | None, str]
"""Image, images or None, and a prompt that may hold `<image>` placeholders."""


def split_request(request: object) -> tuple[list[ImageSource | PreparedImage], str]:
    """A request's images, in order, and its prompt.

    Raises:
        UsageError: it is not of the form of `Request`; says what was found.
    """
    if not isinstance(request, tuple | list) or len(request) != 2:
        raise UsageError(
            f"a request is (image, list of images or None, prompt), got {request!r:.200}"
        )
    images, prompt = request
    if not isinstance(prompt, str):
        raise UsageError(f"a request's prompt is a text, got {type(prompt).__name__}")
    if images is None:
        return [], prompt
    if isinstance(images, str | Path | bytes | np.ndarray | PreparedImage):
        return [images], prompt
    if isinstance(images, list | tuple):
        return list(images), prompt
    raise UsageError(
        f"a request's image is a path, bytes, an array or a list of these, got "
        f"{type(images).__name__}"
    )
