"""Folders and globs: files are taken by their content, and what is left out is counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import DATA
from tests.image.files import encoded
from tests.image.patterns import pattern
from vlmc.errors import UsageError
from vlmc.image import formats
from vlmc.jobs.input.open import open_input

PHOTO = Image.fromarray(pattern(61, 43))
JPEG = encoded(PHOTO, "JPEG")


def fill(folder: Path) -> None:
    """Pictures of all kinds of names, and what is not a picture."""
    folder.mkdir()
    for name, content in {
        "a.jfif": JPEG,
        "b.mpo": encoded(PHOTO, "MPO"),
        "c.ppm": encoded(PHOTO, "PPM"),
        "d": JPEG,
        "e.download": encoded(PHOTO, "PNG"),
        "f.heic": (DATA / "heic" / "scene.heic").read_bytes(),
        "g.HEIC.tmp": (DATA / "heic" / "scene.heic").read_bytes(),
        "h.jpg": b"<html>404</html>",
        "i.png": b"",
        "j.jxl": b"\xff\x0a" + bytes(30),
        "notes.txt": b"Python is not a picture",
        "rows.jsonl": b"{}",
        "Thumbs.db": b"\xd0\xcf\x11\xe0" + bytes(600),
        "README": b"P1 is a plan",
        "empty": b"",
        "camera.NEF": encoded(PHOTO, "TIFF"),
        "other.nef": encoded(PHOTO, "TIFF"),
        ".hidden.jpg": JPEG,
    }.items():
        (folder / name).write_bytes(content)
    (folder / "k.jpg").symlink_to("gone.jpg")
    (folder / "l").symlink_to("gone")
    (folder / "m.txt").symlink_to("d")
    (folder / ".git").mkdir()
    (folder / ".git" / "x.jpg").write_bytes(JPEG)
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "pipe.jpg")


TAKEN = [
    *("a.jfif", "b.mpo", "c.ppm", "d", "e.download", "f.heic", "g.HEIC.tmp", "h.jpg", "i.png"),
    *("j.jxl", "k.jpg", "m.txt", "pipe.jpg"),
]
LEFT_OUT = {
    ".txt": 1,
    ".jsonl": 1,
    ".db": 1,
    ".nef": 2,
    "without suffix": 2,
    "broken link": 1,
    "not a regular file": 1,
}


def names(text: str) -> list[str]:
    return [Path(str(row.name)).name for row in open_input(text).read()]


def test_a_folder_takes_what_is_an_image_or_named_one(tmp_path: Path) -> None:
    fill(tmp_path / "images")
    assert names(str(tmp_path / "images")) == TAKEN
    assert open_input(str(tmp_path / "images")).left_out == {**LEFT_OUT, "hidden": 2}


def test_a_pattern_of_everything_is_as_a_folder(tmp_path: Path) -> None:
    fill(tmp_path / "images")
    (tmp_path / "images" / "deep").mkdir()
    (tmp_path / "images" / "deep" / "z.jpg").write_bytes(JPEG)
    assert names(f"{tmp_path}/images/*") == TAKEN
    assert open_input(f"{tmp_path}/images/*").left_out == {**LEFT_OUT, "folder": 1}
    assert sorted(names(f"{tmp_path}/images/**")) == sorted([*TAKEN, "z.jpg"])
    assert open_input(f"{tmp_path}/images/**").left_out == LEFT_OUT


def test_a_pattern_that_names_files_takes_them_all(tmp_path: Path) -> None:
    fill(tmp_path / "images")
    for text, taken in {
        "*.txt": ["m.txt", "notes.txt"],
        "?": ["d", "l"],
        "*.[nN][eE][fF]": ["camera.NEF", "other.nef"],
        "[hk].jpg": ["h.jpg", "k.jpg"],
    }.items():
        assert names(f"{tmp_path}/images/{text}") == taken
        assert open_input(f"{tmp_path}/images/{text}").left_out == {}


def test_what_a_folder_without_images_holds_is_said(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.pdf"):
        (tmp_path / name).write_text("text")
    for text, part in {
        str(tmp_path): "has no image file, at any depth (left out: 2 .txt, 1 .pdf)",
        f"{tmp_path}/*": "none of the 3 matches is an image file (left out: 2 .txt, 1 .pdf)",
        str(tmp_path / "a.txt"): "neither a table (.jsonl, .ndjson, .csv, .parquet) nor an image",
    }.items():
        with pytest.raises(UsageError) as caught:
            open_input(text)
        assert part in str(caught.value)


def test_a_single_image_needs_no_suffix(tmp_path: Path) -> None:
    (tmp_path / "d").write_bytes(JPEG)
    assert names(str(tmp_path / "d")) == ["d"]


def test_files_that_are_named_images_are_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of 100,000 pictures is listed without reading any."""
    for number in range(20):
        (tmp_path / f"{number}.jpg").write_bytes(JPEG)
    read: list[Path] = []
    monkeypatch.setattr(formats, "read_header", read.append)
    assert len(open_input(str(tmp_path))) == 20
    assert read == []
