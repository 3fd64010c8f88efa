"""Images of every type that callers pass, and what errors call them."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import numpy as np
import pytest
import torch
from PIL import Image

from tests.image.files import encoded, turned
from tests.image.patterns import pattern
from vlmc.errors import ImageError
from vlmc.image.decode import decode, image_size, read_picture
from vlmc.image.source import describe

PHOTO = Image.fromarray(pattern(61, 43))
PNG = encoded(PHOTO, "PNG")
BASE64 = base64.b64encode(PNG).decode()


def at_end() -> io.BytesIO:
    buffer = io.BytesIO()
    PHOTO.save(buffer, "PNG")
    return buffer


SOURCES: dict[str, Any] = {
    "bytes": PNG,
    "bytearray": bytearray(PNG),
    "memoryview": memoryview(PNG),
    "file object": io.BytesIO(PNG),
    "file object at its end": at_end(),
    "pillow": PHOTO,
    "pillow, lazy": Image.open(io.BytesIO(PNG)),
    "array": pattern(61, 43),
    "tensor": torch.from_numpy(pattern(61, 43)),
    "data url": f"data:image/png;base64,{BASE64}",
    "data url in capitals": f"DATA:;base64,{BASE64[:40]}%0A{BASE64[40:]}",
    "data url in percents": f"data:image/png,{quote_from_bytes(PNG)}",
    "struct": {"bytes": PNG, "path": None},
    "struct, bytes first": {"bytes": PNG, "path": "absent.png"},
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_type_gives_the_same_pixels(kind: str) -> None:
    for _ in range(2):  # a file object is read again, and a caller's image is left open
        np.testing.assert_array_equal(decode(SOURCES[kind]), pattern(61, 43))
        assert image_size(SOURCES[kind]) == (61, 43)


def test_a_struct_may_hold_a_path_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    np.testing.assert_array_equal(decode({"path": str(path)}), pattern(61, 43))
    with path.open("rb") as file:
        assert describe(file) == str(path)
        np.testing.assert_array_equal(decode(file), pattern(61, 43))


def test_pillow_images_follow_the_rules() -> None:
    image = Image.open(io.BytesIO(turned(PHOTO)))
    assert read_picture(image).notes == {"rotation_ignored"}
    assert decode(image, exif="apply").shape == (61, 43, 3)
    deep = Image.fromarray(np.array([[0, 257, 65535]], np.uint16))
    assert decode(deep, high_bit_depth="scale")[0, :, 0].tolist() == [0, 1, 255]
    palette = PHOTO.convert("P")
    palette.info["transparency"] = bytes(range(200))
    decode(palette)
    assert palette.info["transparency"] == bytes(range(200)), "the caller's image is as it was"
    with pytest.raises(ImageError, match="more than the limit of 62"):
        decode(PHOTO, pixel_limit=62)
    cut = Image.open(io.BytesIO(encoded(PHOTO, "JPEG")[:-100]))
    with pytest.raises(ImageError, match=r"<image 61x43 RGB>: .*cut short"):
        decode(cut)


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("https://example.com/a.jpg", r"https://example\.com/a\.jpg: is a URL.*download it"),
        (Path("https://example.com/a.jpg"), "is a URL"),
        ("s3://bucket/a.jpg", "is a URL"),
        ("file:///a.jpg", "is a URL"),
        ({"bytes": None, "path": "http://a/b.jpg"}, "is a URL"),
        ("data:image/png;base64", "has no comma"),
        ("data:image/png;base64,@@@@", "not valid base64"),
        ("data:image/png;base64,", "0 bytes long"),
        (b"", "0 bytes long"),
        (io.BytesIO(), "<BytesIO>: the image is 0 bytes long"),
        (io.StringIO("text"), "opened as text"),
        ({"bytes": None, "path": None}, "'bytes', 'path' or both"),
        ({}, "and this one has no key"),
        ({"image": PNG}, "this one has 'image'"),
        (torch.zeros(4, 4, 3), r"<tensor 4x4x3 torch\.float32>: .*must be uint8"),
        (torch.zeros(4, 4, 3, dtype=torch.bfloat16), "must be uint8"),
        (torch.zeros(3, 4, 5, dtype=torch.uint8), r"\(height, width, 3\)"),
        (np.zeros((4, 4), np.uint8), r"\(height, width, 3\)"),
        (7, "<int>; pass a path, bytes, a file object"),
        (None, "<NoneType>"),
    ],
    ids=lambda value: describe(value)[:40],
)
def test_what_is_not_an_image_is_refused(source: Any, part: str) -> None:
    with pytest.raises(ImageError, match=part):
        decode(source)


def test_a_closed_file_is_refused() -> None:
    closed = io.BytesIO(PNG)
    closed.close()
    with pytest.raises(ImageError, match="pass an open file"):
        decode(closed)


def test_links_without_a_target_name_it(tmp_path: Path) -> None:
    link = tmp_path / "a.jpg"
    link.symlink_to("gone.jpg")
    with pytest.raises(ImageError, match=r"a link to gone\.jpg, which does not exist"):
        decode(link)


@pytest.mark.parametrize(
    "source",
    [
        BASE64 * 40,
        "x" * 5000,
        "https://example.com/" + "x" * 5000,
        f"data:image/png;base64,{'A' * 100_000}@",
        {"x" * 5000: 1},
        {"path": "y" * 5000},
    ],
    ids=["base64", "long path", "url", "data url", "key", "struct"],
)
def test_errors_hold_little_of_what_was_given(source: Any) -> None:
    with pytest.raises(ImageError) as caught:
        decode(source)
    assert len(str(caught.value)) < 600
