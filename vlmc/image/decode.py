"""Reading images: from a path, encoded bytes or an array to RGB pixels."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from vlmc.errors import ImageError

ImageSource = Path | str | bytes | npt.NDArray[np.uint8]
Pixels = npt.NDArray[np.uint8]
ExifMode = Literal["ignore", "apply"]

PIXEL_LIMIT = 178_956_970
"""Where Pillow refuses by itself: 512 MiB of RGB pixels."""

# Pillow's readers that decode in the process. Left out are those that start another program
# (EPS runs Ghostscript) and those of vector and container files.
# fmt: off
FORMATS = (
    "AVIF", "BMP", "DDS", "DIB", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "MPO", "MSP", "PCX",
    "PNG", "PPM", "PSD", "QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM",
)
# fmt: on


def decode(
    source: ImageSource,
    *,
    exif: ExifMode = "ignore",
    pixel_limit: int = PIXEL_LIMIT,
    name: str | None = None,
) -> Pixels:
    """Decode to uint8 (height, width, 3), pixel for pixel as Pillow's `convert("RGB")`.

    `source` is a path, the bytes of an encoded file, or an RGB array, which is returned as
    it is. Of an animation the first frame is taken. `exif="apply"` turns the image as its
    orientation tag says; the original does not. `name` is what errors call the image, for bytes
    that were read from somewhere. `ImageError` if there is no image to read, it
    is damaged, or its header announces more than `pixel_limit` pixels.
    """
    if isinstance(source, np.ndarray):
        return _checked_array(source, pixel_limit)
    name = describe(source) if name is None else name
    with _opened(source, name, pixel_limit) as image, _reported(name):
        image.load()
        upright = ImageOps.exif_transpose(image) if exif == "apply" else image
        if upright.mode == "P":
            # `convert` drops a palette's transparency in any case, but warns about it.
            upright.info.pop("transparency", None)
        return np.array(upright.convert("RGB"))


def image_size(
    source: ImageSource, *, exif: ExifMode = "ignore", pixel_limit: int = PIXEL_LIMIT
) -> tuple[int, int]:
    """(width, height) in pixels from the header alone; refuses what `decode` refuses there."""
    if isinstance(source, np.ndarray):
        height, width = _checked_array(source, pixel_limit).shape[:2]
        return width, height
    name = describe(source)
    with _opened(source, name, pixel_limit) as image, _reported(name):
        width, height = image.size
        turned = exif == "apply" and image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (height, width) if turned else (width, height)


def read_image_file(path: Path | str) -> bytes:
    """The bytes of an image file. `ImageError` if it is missing, empty or no plain file."""
    name = describe(path)
    _check_file(Path(path), name)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({error}); check the path") from error


def describe(source: object) -> str:
    """How messages and job rows name an image: its path, or what it is."""
    if isinstance(source, Path | str):
        return str(source)
    if isinstance(source, bytes):
        return f"<{len(source)} bytes>"
    if isinstance(source, np.ndarray):
        return f"<array {'x'.join(map(str, source.shape))} {source.dtype}>"
    return f"<{type(source).__name__}>"


@contextmanager
def _opened(source: Path | str | bytes, name: str, pixel_limit: int) -> Iterator[Image.Image]:
    """An image whose header has been read and whose size is within the limit."""
    content = _content(source, name)
    with _reported(name):
        image = Image.open(content, formats=_readable_formats())
    with image:
        width, height = image.size
        _check_pixels(name, width, height, pixel_limit)
        yield image


def _content(source: Path | str | bytes, name: str) -> Path | io.BytesIO:
    if isinstance(source, bytes):
        if not source:
            raise ImageError("the image is 0 bytes long; pass the whole encoded file")
        return io.BytesIO(source)
    if not isinstance(source, Path | str):
        raise ImageError(f"cannot read an image from {name}; pass a path, bytes or an RGB array")
    path = Path(source)
    _check_file(path, name)
    return path


def _check_file(path: Path, name: str) -> None:
    try:
        # A pipe or device would block or never end, so only regular files are opened.
        regular, size = path.is_file(), path.stat().st_size
    except FileNotFoundError:
        raise ImageError(f"{name}: there is no such file; check the path") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{name}: cannot be read ({error}); check the path") from error
    if not regular:
        raise ImageError(f"{name}: is not a regular file; pass the path of an image file")
    if size == 0:
        raise ImageError(f"{name}: is empty (0 bytes); replace it or leave it out")


@cache
def _readable_formats() -> list[str]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


@contextmanager
def _reported(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises into an `ImageError` that names the image."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name}: is not an image in a format that can be read; "
            f"convert it to JPEG or PNG, or leave it out"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name}: too large to decode safely ({error}); scale it down") from error
    # Decoders raise almost anything on damaged input, from SyntaxError to struct.error.
    except Exception as error:
        raise ImageError(
            f"{name}: cannot be decoded, the file is damaged or cut short "
            f"({type(error).__name__}: {error}); replace it or leave it out"
        ) from error


def _check_pixels(name: str, width: int, height: int, pixel_limit: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{name}: is {width}x{height} pixels, which holds no image")
    if width * height > pixel_limit:
        raise ImageError(
            f"{name}: is {width}x{height} pixels, more than the limit of {pixel_limit:,}; "
            "scale it down, or raise the limit if the source is trusted"
        )


def _checked_array(array: npt.NDArray[np.uint8], pixel_limit: int) -> Pixels:
    name = describe(array)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ImageError(f"{name}: an image array must be uint8 of shape (height, width, 3), RGB")
    _check_pixels(name, array.shape[1], array.shape[0], pixel_limit)
    return np.ascontiguousarray(array)
