"""Files known as images by their first bytes, and HEIC."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import DATA
from tests.image.files import encoded
from tests.image.patterns import pattern, scene
from vlmc.errors import ImageError
from vlmc.image.decode import decode, image_size, read_picture
from vlmc.image.formats import looks_like_image, register_heif

PHOTO = Image.fromarray(pattern(61, 43))
HEIC = DATA / "heic" / "scene.heic"
WRITTEN = [
    "AVIF",
    "BMP",
    "GIF",
    "ICO",
    "JPEG",
    "JPEG2000",
    "MPO",
    "PCX",
    "PNG",
    "PPM",
    "QOI",
    "SGI",
    "TIFF",
    "WEBP",
    "XBM",
]


@pytest.mark.parametrize("form", WRITTEN)
def test_images_are_known_by_content(form: str, tmp_path: Path) -> None:
    path = tmp_path / "0000-4f2a"
    path.write_bytes(encoded(PHOTO.convert("1") if form == "XBM" else PHOTO, form))
    assert looks_like_image(path)
    assert decode(path).ndim == 3


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"Python is a language\n",
        b"P1 is the first plan.",
        b"BMW and others, a list of cars",
        b"#define WIDTH 7\n#include <stdio.h>\n",
        b"\n\0\1\1 not a picture",
        b"(\0\0\0" + bytes(60),
        b"PK\3\4" + bytes(60),
        b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(40),
        b"%PDF-1.7",
        b'{"image": "a.jpg"}',
    ],
    ids=lambda content: repr(content[:12]),
)
def test_other_files_are_not(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert not looks_like_image(path)


def test_a_bomb_looks_like_an_image(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"P6 60000 60000 255\n" + bytes(100))
    assert looks_like_image(path)
    with pytest.raises(ImageError, match="too large"):
        decode(path)


def test_little_of_a_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in {"a": encoded(PHOTO, "JPEG"), "b": b"text " * 100_000}.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(Image, "open", None)  # certain by their first bytes
    assert looks_like_image(tmp_path / "a")
    assert not looks_like_image(tmp_path / "b")


@pytest.fixture
def unregistered() -> Iterator[None]:
    register_heif.cache_clear()
    yield
    register_heif.cache_clear()


@pytest.mark.usefixtures("unregistered")
def test_heic_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    copy = tmp_path / "phone.jpg"
    copy.write_bytes(HEIC.read_bytes())
    for source in (HEIC, copy, HEIC.read_bytes()):
        with pytest.raises(ImageError, match=r"HEIC images need pillow-heif .*\[heif\]"):
            decode(source)
    assert looks_like_image(HEIC), "so that a job has a line with that error"


@pytest.mark.usefixtures("unregistered")
def test_heic_is_read() -> None:
    pytest.importorskip("pillow_heif")
    other = bytearray(HEIC.read_bytes())
    other[8:12] = b"mif1"  # a brand that AVIF has too
    for source in (HEIC, HEIC.read_bytes(), bytes(other)):
        pixels = decode(source)
        assert np.abs(pixels.astype(int) - scene(64, 48)).mean() < 6
    # The rotation is part of the format, and its reader applies it.
    turned = read_picture(DATA / "heic" / "turned.heic")
    assert turned.pixels.shape == (64, 48, 3) and turned.notes == set()
    assert image_size(DATA / "heic" / "turned.heic", exif="apply") == (48, 64)
