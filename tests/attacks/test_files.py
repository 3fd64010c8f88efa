"""Artifacts whose files are not what the manifest says, as copying and tampering leave them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.artifact.keys import make_keys
from tests.attacks.attempt import attempt
from tests.attacks.conftest import Change, answer
from vlmc.artifact.manifest import MANIFEST
from vlmc.artifact.signature import SIGNATURE

GRAPH, WEIGHTS = "vision/model.onnx", "language/model.safetensors"


def truncate(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - 1)


def flip_a_bit(folder: Path) -> None:
    with (folder / GRAPH).open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)[0]
        file.seek(1000)
        file.write(bytes([byte ^ 1]))


def grow(folder: Path) -> None:
    os.truncate(folder / GRAPH, 1 << 42)


def link_file(folder: Path) -> None:
    (folder / GRAPH).rename(folder.parent / "outside.onnx")
    (folder / GRAPH).symlink_to("../../outside.onnx")


def link_folder(folder: Path) -> None:
    (folder / "vision").rename(folder.parent / "outside")
    (folder / "vision").symlink_to("../outside")


def link_in_a_circle(folder: Path) -> None:
    (folder / "vision" / "more").symlink_to("..")


def link_reports(folder: Path) -> None:
    shutil.rmtree(folder / "reports")
    (folder / "reports").symlink_to("/etc")


def link_manifest(folder: Path) -> None:
    (folder / MANIFEST).rename(folder.parent / MANIFEST)
    (folder / MANIFEST).symlink_to(f"../{MANIFEST}")


def endless_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).symlink_to("/dev/zero")


def pipe_for_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    os.mkfifo(folder / MANIFEST)


def pipe_for_file(folder: Path) -> None:
    (folder / GRAPH).unlink()
    os.mkfifo(folder / GRAPH)


def nest_folders(folder: Path) -> None:
    """Each costs a look-up, and a walk that calls itself a frame of the stack."""
    back = Path.cwd()
    os.chdir(folder / "vision")
    try:
        for _ in range(100):
            Path("d").mkdir()
            os.chdir("d")
    finally:
        os.chdir(back)


def add_control_codes(folder: Path) -> None:
    (folder / "vision" / "\x1b[2J\x1b]0;owned\x07").touch()


ATTACKS: list[tuple[Change, str]] = [
    (truncate, "bytes, the manifest says"),
    (flip_a_bit, "has SHA-256"),
    (grow, "4,398,046,511,104 bytes, the manifest says"),
    (lambda folder: (folder / GRAPH).unlink(), f"lacks {GRAPH}"),
    (lambda folder: (folder / "language/pytorch_model.bin").touch(), "not in its manifest"),
    (add_control_codes, r"\x1b[2J\x1b]0;owned\x07, which is not in its manifest"),
    (link_file, "is a link or a special file"),
    (link_folder, "is a link or a special file"),
    (link_in_a_circle, "is a link or a special file"),
    (link_reports, "reports is a link or a special file"),
    (link_manifest, "is a link"),
    (endless_manifest, "is a link"),
    (pipe_for_manifest, "it is not a plain file"),
    (pipe_for_file, "is a link or a special file"),
    (nest_folders, "deeper than any artifact's"),
]


@pytest.mark.parametrize(("attack", "said"), ATTACKS)
def test_a_changed_folder(attack: Change, said: str, copied: Path) -> None:
    attack(copied)
    attempt(copied.parent, "verify", "integrity", copied).refused(4, said)


def test_an_engine_of_another_artifact(
    copied: Path, artifacts: Callable[[str], Path], images: Path
) -> None:
    """Here `run`: a loader that hashed less would find a good graph of the right form."""
    shutil.copy(artifacts("llama-yi-6b") / GRAPH, copied / GRAPH)
    answer(copied, images).refused(4, GRAPH)


SIGNATURES: list[tuple[Change, str]] = [
    (lambda folder: os.mkfifo(folder / SIGNATURE), "it is not a plain file"),
    (lambda folder: (folder / SIGNATURE).symlink_to("/dev/zero"), "cannot be read"),
    (lambda folder: (folder / SIGNATURE).write_bytes(b"[" * 50_000), "nested too deeply"),
    (lambda folder: (folder / SIGNATURE).write_bytes(b" " * 100_000), "larger than"),
]


@pytest.mark.parametrize(("attack", "said"), SIGNATURES)
def test_a_made_signature(attack: Change, said: str, copied: Path) -> None:
    attack(copied)
    _, public = make_keys(copied.parent)
    command = ("verify", "integrity", copied, "--public-key", public)
    attempt(copied.parent, *command).refused(4, said)
