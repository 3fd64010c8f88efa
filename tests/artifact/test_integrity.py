"""Files against the manifest, and the artifact that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.artifact.conftest import FILES, manifest, write_payload
from vlmc.artifact.integrity import file_sha256, open_artifact
from vlmc.artifact.manifest import MANIFEST
from vlmc.artifact.write import point_link, publish, seal
from vlmc.errors import IntegrityError, UsageError


def test_an_intact_artifact_opens(made: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(made)
    opened = open_artifact(link)
    assert opened.folder == made
    assert opened.identity == opened.manifest.identity
    for name in FILES:
        assert file_sha256(opened.path(name)) == opened.manifest.payload[name].sha256
    with pytest.raises(IntegrityError, match="holds no vision/other"):
        opened.path("vision/other")


def _truncate(folder: Path) -> None:
    with (folder / "vision/model.onnx").open("r+b") as file:
        file.truncate(3)


def _flip_one_bit(folder: Path) -> None:
    path = folder / "vision/model.onnx"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _replace_by_link(folder: Path) -> None:
    path = folder / "vision/model.onnx"
    path.rename(folder.parent / "elsewhere.onnx")
    path.symlink_to(folder.parent / "elsewhere.onnx")


def _replace_folder_by_link(folder: Path) -> None:
    (folder / "vision").rename(folder.parent / "elsewhere")
    (folder / "vision").symlink_to(folder.parent / "elsewhere")


def _replace_by_pipe(folder: Path) -> None:
    (folder / "vision/model.onnx").unlink()
    os.mkfifo(folder / "vision/model.onnx")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda folder: (folder / "vision/model.onnx").unlink(), "lacks vision/model.onnx"),
    "extra": (
        lambda folder: (folder / "language/model-2.safetensors").write_text("x"),
        "holds language/model-2.safetensors, which is not in its manifest",
    ),
    "hidden": (lambda folder: (folder / ".hidden").write_text("x"), "holds .hidden"),
    "truncated": (_truncate, r"model.onnx is 3 bytes, the manifest says 28"),
    "changed": (_flip_one_bit, "model.onnx has SHA-256 .* changed or damaged"),
    "link": (_replace_by_link, "model.onnx is a link or a special file"),
    "linked folder": (_replace_folder_by_link, "vision is a link or a special file"),
    "pipe": (_replace_by_pipe, "model.onnx is a link or a special file"),
    "no manifest": (lambda folder: (folder / MANIFEST).unlink(), "is not an artifact"),
    "gone": (shutil.rmtree, "is not an artifact"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(damage: str, made: Path) -> None:
    change, said = DAMAGE[damage]
    change(made)
    with pytest.raises(IntegrityError, match=said):
        open_artifact(made)


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(IntegrityError):
        open_artifact(tmp_path / "a")


def test_published_whole(made: Path, tmp_path: Path) -> None:
    publish(made, tmp_path / "target")
    assert not made.exists()
    assert open_artifact(tmp_path / "target").manifest.name == "made"


def test_equal_artifact_is_kept(made: Path, tmp_path: Path) -> None:
    target = shutil.copytree(made, tmp_path / "target")
    (target / "reports" / "accuracy.json").write_text("{}")
    publish(made, target)
    assert not made.exists()
    assert (target / "reports" / "accuracy.json").exists()


def test_equal_but_damaged_artifact_is_refused(made: Path, tmp_path: Path) -> None:
    target = shutil.copytree(made, tmp_path / "target")
    _flip_one_bit(target)
    with pytest.raises(IntegrityError, match=r"damaged now\. Remove it, then build again"):
        publish(made, target)
    assert open_artifact(made)


@pytest.mark.parametrize("what", ["another", "file", "empty folder", "dangling link"])
def test_something_else_in_the_way_is_left_alone(what: str, made: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    if what == "another":
        seal(write_payload(target), manifest("other"))
    elif what == "file":
        target.write_text("precious")
    elif what == "empty folder":
        target.mkdir()
    else:
        target.symlink_to("nowhere")
    with pytest.raises(UsageError, match="already exists and is another artifact"):
        publish(made, target)
    assert open_artifact(made)
    if what == "another":
        assert open_artifact(target).manifest.name == "other"
    elif what == "file":
        assert target.read_text() == "precious"


def test_link_goes_forth_and_back(tmp_path: Path) -> None:
    link = tmp_path / "name"
    for name in ("name-1", "name-2", "name-1"):
        (tmp_path / name).mkdir(exist_ok=True)
        point_link(link, tmp_path / name)
        assert link.readlink() == Path(name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["name", "name-1", "name-2"]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_link_replaces_nothing_but_links(what: str, tmp_path: Path) -> None:
    link = tmp_path / "name"
    link.write_text("precious") if what == "file" else link.mkdir()
    with pytest.raises(UsageError, match="is not a link; move it away"):
        point_link(link, tmp_path / "name-1")
    assert not link.is_symlink()
