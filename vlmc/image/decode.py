"""Decode an image of any source to RGB pixels."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from vlmc.errors import ImageError
from vlmc.files.units import shorten
from vlmc.image.formats import (
    HEADER_BYTES,
    is_heif,
    other_kind,
    read_header,
    readable_formats,
    register_heif,
)
from vlmc.image.high_bit_depth import HighBitDepth, has_high_bit_depth, scale_to_8_bits
from vlmc.image.png_metadata import without_metadata
from vlmc.image.quiet import quiet_pillow
from vlmc.image.reduced import TargetSize, reduce_scale
from vlmc.image.source import (
    ARRAY_FORM,
    ImageSource,
    Pixels,
    describe,
    read_image_file,
    resolve_source,
)

ExifMode = Literal["ignore", "apply"]
ImageNote = Literal["rotation_ignored", "clipped_to_8_bits"]
"""What decoding leaves unused: an EXIF orientation, or bits of a grey picture beyond 8."""
Result = TypeVar("Result")

PIXEL_LIMIT = 178_956_970
"""Where Pillow refuses by itself: 512 MiB of RGB pixels."""
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image: uint8 (height, width, 3), and what of it was left unused."""

    pixels: Pixels
    notes: frozenset[ImageNote] = frozenset()


def decode(
    source: ImageSource,
    *,
    exif: ExifMode = "ignore",
    high_bit_depth: HighBitDepth = "original",
    pixel_limit: int = PIXEL_LIMIT,
    name: str | None = None,
) -> Pixels:
    """Decode to uint8 (height, width, 3); see `read_picture`."""
    return read_picture(
        source, exif=exif, high_bit_depth=high_bit_depth, pixel_limit=pixel_limit, name=name
    ).pixels


def read_picture(
    source: ImageSource,
    *,
    exif: ExifMode = "ignore",
    high_bit_depth: HighBitDepth = "original",
    pixel_limit: int = PIXEL_LIMIT,
    name: str | None = None,
    target_size: TargetSize | None = None,
) -> Picture:
    """Decode an image, pixel for pixel as Pillow's `convert("RGB")`.

    An RGB array is returned as it is. Of an animation the first frame is taken.

    Args:
        source: the image.
        exif: `apply` turns the image by its EXIF orientation, which the original ignores. HEIF
            and TIFF files are always turned, by their readers.
        high_bit_depth: `scale` scales grey pictures of more than 8 bits as `scale_to_8_bits`
            says; the original clips them.
        pixel_limit: an image whose header announces more pixels is refused.
        name: what errors call the image, in place of `describe(source)`.
        target_size: the size that the image will be resized to, from its own. A JPEG that is much
            larger is decoded at a reduced scale (`reduce_scale`).

    Raises:
        ImageError: the source holds no readable image, or a damaged or too large one.
    """
    name = describe(source) if name is None else name
    content = resolve_source(source, name)
    if isinstance(content, np.ndarray):
        return Picture(_checked_array(content, pixel_limit))

    def convert(image: Image.Image) -> Picture:
        if target_size is not None and image is not content:  # the caller's own image stays whole
            sideways = exif == "apply" and _orientation(image) in _SIDEWAYS
            reduce_scale(image, target_size, sideways=sideways)
        image.load()
        notes: set[ImageNote] = set()
        if exif == "apply":
            image = ImageOps.exif_transpose(image)
        elif _orientation(image) != 1:
            notes.add("rotation_ignored")
        if has_high_bit_depth(image):
            if high_bit_depth == "scale":
                return Picture(scale_to_8_bits(image), frozenset(notes))
            notes.add("clipped_to_8_bits")
        # Pillow's `convert` copies even what is RGB already.
        converted = image if image.mode == "RGB" else image.convert("RGB")
        return Picture(np.array(converted), frozenset(notes))

    return _with_image(content, name, pixel_limit, convert)


def image_size(
    source: ImageSource, *, exif: ExifMode = "ignore", pixel_limit: int = PIXEL_LIMIT
) -> tuple[int, int]:
    """(width, height) in pixels from the header alone; refuses what `decode` refuses there."""
    name = describe(source)
    content = resolve_source(source, name)
    if isinstance(content, np.ndarray):
        height, width = _checked_array(content, pixel_limit).shape[:2]
        return width, height

    def size(image: Image.Image) -> tuple[int, int]:
        width, height = image.size
        turned = exif == "apply" and image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS
        return (height, width) if turned else (width, height)

    return _with_image(content, name, pixel_limit, size)


class _LargeMetadataError(ImageError):
    """Pillow refuses the metadata; the pixels may be good."""


def _with_image(
    content: Path | bytes | Image.Image,
    name: str,
    pixel_limit: int,
    use: Callable[[Image.Image], Result],
) -> Result:
    """What `use` makes of the opened image."""
    try:
        with _opened(content, name, pixel_limit) as image, _reported(name):
            return use(image)
    except _LargeMetadataError:
        if isinstance(content, Image.Image):
            raise
        whole = content if isinstance(content, bytes) else read_image_file(content)
        with _opened(without_metadata(whole), name, pixel_limit) as image, _reported(name):
            return use(image)


@contextmanager
def _opened(
    content: Path | bytes | Image.Image, name: str, pixel_limit: int
) -> Iterator[Image.Image]:
    """An image whose header has been read and whose size is within the limit."""
    quiet_pillow()
    with _reported(name):
        image = content if isinstance(content, Image.Image) else _open(content, name)
    # The caller's own image stays open.
    with nullcontext(image) if image is content else image:
        _check_pixels(name, *image.size, pixel_limit)
        yield image


def _open(content: Path | bytes, name: str) -> Image.Image:
    def open_as(formats: list[str]) -> Image.Image:
        stream = content if isinstance(content, Path) else io.BytesIO(content)
        return Image.open(stream, formats=formats)

    try:
        return open_as(readable_formats())
    except UnidentifiedImageError as error:
        header = content[:HEADER_BYTES] if isinstance(content, bytes) else read_header(content)
        if not is_heif(header):
            raise ImageError(f"{name}: {other_kind(header)}") from error
        try:
            register_heif()
        except ImageError as missing:
            raise ImageError(f"{name}: {missing}") from missing
        return open_as(["HEIF"])


@contextmanager
def _reported(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises into an `ImageError` that names the image."""
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name}: too large to decode safely ({error}); scale it down") from error
    # Decoders raise almost anything on damaged input, from SyntaxError to struct.error.
    except Exception as error:
        if "MAX_TEXT" in str(error):
            raise _LargeMetadataError(
                f"{name}: its text or colour profile unpacks to more than Pillow reads "
                f"({shorten(str(error))}); remove the metadata, for example by saving it again"
            ) from error
        raise ImageError(
            f"{name}: cannot be decoded, the file is damaged or cut short "
            f"({type(error).__name__}: {shorten(str(error))}); replace it or leave it out"
        ) from error


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation of a loaded image, 1 where it has none."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF data, which nothing else of the image needs
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


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
        raise ImageError(f"{name}: {ARRAY_FORM}")
    _check_pixels(name, array.shape[1], array.shape[0], pixel_limit)
    return np.ascontiguousarray(array)
