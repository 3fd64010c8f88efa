"""Every byte of an artifact counts: the manifest's by the identity, the payload's by the hashes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.artifact.conftest import manifest, write_payload
from vlmc.artifact.identity import IDENTITY, NOT_RECORDED, read_identity
from vlmc.artifact.integrity import open_artifact
from vlmc.artifact.manifest import MANIFEST, read_manifest
from vlmc.artifact.summary import summarize
from vlmc.artifact.write import publish, seal
from vlmc.errors import IntegrityError


def flip(path: Path, place: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= bit
    path.write_bytes(data)


def test_the_identity_lies_beside_the_manifest(made: Path) -> None:
    assert (made / IDENTITY).read_text() == read_manifest(made).identity + "\n"
    assert IDENTITY not in open_artifact(made).manifest.payload
    assert NOT_RECORDED not in "\n".join(summarize(made).lines())


@pytest.mark.parametrize("name", [MANIFEST, IDENTITY])
def test_any_changed_byte_is_refused(name: str, made: Path) -> None:
    """Every digit into another, which stays valid JSON, and each fifth byte in a bit of its own."""
    path = made / name
    original = path.read_bytes()
    for place, byte in enumerate(original):
        digit = chr(byte).isdigit()
        if digit or place % 5 == 0:
            path.write_bytes(original)
            flip(path, place, 1 if digit else 1 << place % 8)
            with pytest.raises(IntegrityError):
                read_manifest(made)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"2.13.0"', '"2.13.1"', "manifest has identity .* beside it says .*changed or damaged"),
        ('"opencv"', '"pillow"', "manifest has identity"),
        ('\n "name"', '\n\t"name"', "other spaces, escapes or order"),
        ("你", "\\u4f60", "other spaces, escapes or order"),
    ],
)
def test_a_changed_manifest_is_named(old: str, new: str, said: str, made: Path) -> None:
    path = made / MANIFEST
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    for opens in (open_artifact, summarize, read_manifest):
        with pytest.raises(IntegrityError, match=said):
            opens(made)


def test_a_manifest_that_changes_after_it_was_opened(made: Path) -> None:
    opened = open_artifact(made)
    path = made / MANIFEST
    path.write_text(path.read_text(encoding="utf-8").replace("2.13.0", "2.13.1"), encoding="utf-8")
    with pytest.raises(IntegrityError, match="manifest has identity"):
        opened.confirmed()


@pytest.mark.parametrize("what", ["empty", "short", "upper", "link", "folder", "sparse"])
def test_a_damaged_identity_is_refused(what: str, made: Path) -> None:
    path = made / IDENTITY
    text = path.read_text()
    path.unlink()
    if what == "link":
        (made.parent / "elsewhere").write_text(text)
        path.symlink_to(made.parent / "elsewhere")
    elif what == "folder":
        path.mkdir()
    else:
        path.write_text({"empty": "", "short": text[1:], "upper": text.upper()}.get(what, text))
        if what == "sparse":
            with path.open("r+b") as file:
                file.truncate(1 << 40)
    with pytest.raises(IntegrityError, match=IDENTITY):
        read_manifest(made)


def test_an_artifact_of_an_earlier_version_opens(made: Path) -> None:
    identity = open_artifact(made).identity
    (made / IDENTITY).unlink()
    assert open_artifact(made).identity == identity
    assert read_identity(made) is None
    assert NOT_RECORDED in "\n".join(summarize(made).lines())


def test_building_again_records_the_identity(made: Path, tmp_path: Path) -> None:
    target = shutil.copytree(made, tmp_path / "target")
    (target / IDENTITY).unlink()
    identity = open_artifact(made).identity
    publish(made, target)
    assert read_identity(target) == identity


def test_a_damaged_manifest_is_known_by_the_identity(made: Path, tmp_path: Path) -> None:
    target = shutil.copytree(made, tmp_path / "target")
    flip(target / MANIFEST, 40)
    with pytest.raises(IntegrityError, match=r"damaged now\. Remove it, then build again"):
        publish(made, target)


def test_every_file_of_the_payload_is_hashed_whole(artifact: Path, tmp_path: Path) -> None:
    """Of each kind that a build writes, and of each that it may write for GPUs."""
    folder = shutil.copytree(artifact, tmp_path / "artifact")
    made = read_manifest(folder)
    for name in ("vision/ranges.json", "vision/inductor-sm90.pt2", "vision/tensorrt-sm89.engine"):
        (folder / name).write_bytes(b"content of " + name.encode())
    payload = seal(folder, made).payload
    kinds = {Path(name).suffix for name in payload}
    assert kinds >= {".yaml", ".json", ".safetensors", ".onnx", ".npz", ".model", ".pt2", ".engine"}
    opened = open_artifact(folder)
    for name, entry in payload.items():
        for place in (0, entry.size // 2, entry.size - 1):
            flip(folder / name, place)
            with pytest.raises(IntegrityError, match=f"{name} has SHA-256"):
                open_artifact(folder)
            with pytest.raises(IntegrityError, match=f"{name} has SHA-256"):
                opened.confirmed()
            flip(folder / name, place)
    assert open_artifact(folder).identity == opened.identity


def test_another_folder_name_changes_nothing(tmp_path: Path) -> None:
    """`-o DIR` and a copy under any name: the identity is in the folder, not in its name."""
    for name in ("made", "renamed-00000000", "identity"):
        folder = write_payload(tmp_path / name)
        seal(folder, manifest())
        assert open_artifact(folder).identity == read_identity(folder)
