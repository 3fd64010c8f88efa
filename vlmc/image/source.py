"""What callers pass as an image, and what errors call it."""

from __future__ import annotations

import base64
import binascii
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard
from urllib.parse import unquote_to_bytes

import numpy as np
import numpy.typing as npt
from PIL import Image

from vlmc.errors import ImageError
from vlmc.files.units import shorten

if TYPE_CHECKING:
    from torch import Tensor


class BinaryFile(Protocol):
    """A file opened to read bytes, or what reads like one."""

    def read(self) -> bytes:
        """The content."""

    def seekable(self) -> bool:
        """Whether it can be set to its start."""


Pixels = npt.NDArray[np.uint8]
ImageSource: TypeAlias = (
    "Path | str | bytes | bytearray | memoryview | BinaryFile | Image.Image | Pixels | Tensor"
    " | Mapping[str, Any]"
)
"""A path, a `data:` URL, an encoded file as bytes or as a file object, a Pillow image, an RGB
array or tensor (H, W, 3) uint8, or a mapping {bytes, path} as in Hugging Face datasets."""
Content = Path | bytes | Pixels | Image.Image
"""An image after `resolve_source`: a path is that of a regular file that is not empty."""
ARRAY_FORM = "an image array must be uint8 of shape (height, width, 3), RGB"
# A drive letter is not a scheme. `Path` makes one slash of two.
_URL = re.compile(r"data:|[a-z][a-z0-9+.-]+:/", re.IGNORECASE)


def is_url(text: str) -> bool:
    """Whether a text is a URL, `data:` or another, and not a path."""
    return _URL.match(text) is not None


def is_image_source(value: object) -> bool:
    """Whether a value has the type of one image."""
    return (
        isinstance(
            value, str | Path | bytes | bytearray | memoryview | np.ndarray | Image.Image | Mapping
        )
        or callable(getattr(value, "read", None))
        or is_tensor(value)
    )


def resolve_source(source: object, name: str) -> Content:
    """Read what is not a path; check that a path is that of a regular file.

    A file object is read from its start. `name` is what errors call the image.

    Raises:
        ImageError: the source is of another type, a URL, missing, empty or not a regular file.
    """
    if isinstance(source, Path | str):
        return _resolve_text(source, name)
    if isinstance(source, bytes | bytearray | memoryview):
        return _checked_bytes(bytes(source), name)
    if isinstance(source, np.ndarray | Image.Image):
        return source
    if isinstance(source, Mapping):
        return _resolve_struct(source, name)
    if callable(getattr(source, "read", None)):
        return _read_file_object(source, name)
    if is_tensor(source):
        if source.dtype != sys.modules["torch"].uint8:
            raise ImageError(f"{name}: {ARRAY_FORM}")
        pixels: Pixels = source.detach().cpu().numpy()
        return pixels
    raise ImageError(
        f"cannot read an image from {name}; pass a path, bytes, a file object, a Pillow image, a "
        "data: URL, or an RGB array or tensor (height, width, 3) of uint8"
    )


def read_image_file(path: Path | str) -> bytes:
    """The bytes of an image file.

    Raises:
        ImageError: the file is missing, empty or not a regular file.
    """
    name = describe(path)
    _check_file(Path(path), name)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({error.strerror}); check the path") from error


def describe(source: object) -> str:
    """What messages and job rows call an image: its path, or what it is."""
    if isinstance(source, str) and source[:5].lower() == "data:":
        return f"<data: URL of {len(source)} characters>"
    if isinstance(source, Path | str):
        return shorten(str(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return f"<{len(source)} bytes>"
    if isinstance(source, Mapping):
        named = source.get("path") or source.get("bytes")
        return f"<{type(source).__name__}>" if named is None else describe(named)
    if isinstance(source, np.ndarray):
        return f"<array {'x'.join(map(str, source.shape))} {source.dtype}>"
    if isinstance(source, Image.Image):
        return f"<image {source.width}x{source.height} {source.mode}>"
    if is_tensor(source):
        return f"<tensor {'x'.join(map(str, source.shape))} {source.dtype}>"
    if isinstance(named := getattr(source, "name", None), str) and hasattr(source, "read"):
        return shorten(named)
    return f"<{type(source).__name__}>"


def _resolve_text(source: Path | str, name: str) -> Path | bytes:
    text = str(source)
    if text[:5].lower() == "data:":
        return _read_data_url(text, name)
    if is_url(text):
        raise ImageError(
            f"{name}: is a URL, and vlmc reads local files only; download it and pass its path or "
            "its bytes"
        )
    _check_file(Path(source), name)
    return Path(source)


def _check_file(path: Path, name: str) -> None:
    try:
        # A pipe or device would block or never end, so only regular files are opened.
        regular, size = path.is_file(), path.stat().st_size
    except FileNotFoundError:
        if path.is_symlink():
            target = shorten(str(path.readlink()))
            raise ImageError(
                f"{name}: is a link to {target}, which does not exist; restore it or remove the "
                "link"
            ) from None
        raise ImageError(f"{name}: there is no such file; check the path") from None
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise ImageError(f"{name}: cannot be read ({error}); check the path") from error
    if not regular:
        raise ImageError(f"{name}: is not a regular file; pass the path of an image file")
    if size == 0:
        raise ImageError(f"{name}: is empty (0 bytes); replace it or leave it out")


def _read_data_url(text: str, name: str) -> bytes:
    """The content of `data:[type][;base64],content`, RFC 2397."""
    head, comma, body = text.partition(",")
    if not comma:
        raise ImageError(f"{name}: has no comma; a data: URL is data:image/png;base64,CONTENT")
    content = unquote_to_bytes(body)
    if head.lower().endswith(";base64"):
        try:
            content = base64.b64decode(re.sub(rb"\s", b"", content), validate=True)
        except binascii.Error as error:
            raise ImageError(f"{name}: is not valid base64 ({error}); encode it again") from error
    return _checked_bytes(content, name)


def _resolve_struct(source: Mapping[str, Any], name: str) -> Content:
    content, path = source.get("bytes"), source.get("path")
    if not set(source) <= {"bytes", "path"} or (content is None and path is None):
        keys = shorten(", ".join(map(repr, source)) or "no key")
        raise ImageError(
            f"an image as a mapping holds 'bytes', 'path' or both, and this one has {keys}; fill "
            "in one of the two"
        )
    return resolve_source(path if content is None else content, name)


def _read_file_object(source: Any, name: str) -> bytes:
    try:
        if source.seekable():
            source.seek(0)  # where a writer has left it at its end
        content = source.read()
    except (OSError, ValueError, AttributeError) as error:
        raise ImageError(f"{name}: cannot be read ({error}); pass an open file") from error
    if not isinstance(content, bytes):
        raise ImageError(f"{name}: is opened as text; open it with mode 'rb'")
    return _checked_bytes(content, name)


def _checked_bytes(content: bytes, name: str) -> bytes:
    if not content:
        raise ImageError(f"{name}: the image is 0 bytes long; pass the whole encoded file")
    return content


def is_tensor(value: object) -> TypeGuard[Tensor]:
    """Whether a value is a torch tensor; imports nothing."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)
