"""Manifests that lead elsewhere, mean two things, or cost more than a manifest may."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.attempt import attempt
from tests.attacks.conftest import Change, edit_manifest
from vlmc.artifact.identity import IDENTITY
from vlmc.artifact.manifest import MANIFEST

ENTRY = {"sha256": "0" * 64, "size": 1}


def listing(name: str, entry: Any = ENTRY) -> Change:
    """An attack that lists a file more."""

    def attack(folder: Path) -> None:
        values = json.loads((folder / MANIFEST).read_text())
        values["payload"][name] = entry
        (folder / MANIFEST).write_text(json.dumps(values))

    return attack


def written(data: bytes) -> Change:
    """An attack that writes other bytes."""
    return lambda folder: (folder / MANIFEST).write_bytes(data)


def unrecorded(change: Change) -> Change:
    """The attack on an artifact that carries no identity, as those of earlier versions."""

    def attack(folder: Path) -> None:
        (folder / IDENTITY).unlink()
        change(folder)

    return attack


def give_a_name_twice(folder: Path) -> None:
    text = (folder / MANIFEST).read_text().rstrip()
    (folder / MANIFEST).write_text(text[:-1] + ', "name": "other"}')


def encode_otherwise(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_bytes(text.encode("utf-16"))


def sparse(folder: Path) -> None:
    os.truncate(folder / MANIFEST, 1 << 40)


ATTACKS: list[tuple[Change, str]] = [
    (listing("../outside"), "leads out of the artifact"),
    (listing("/etc/hostname"), "leads out of the artifact"),
    (listing("vision/../../outside"), "leads out of the artifact"),
    (listing("\x1b[2J"), "cannot be shown"),
    (listing("vision/huge", ENTRY | {"size": 1 << 60}), "beside it says"),
    (unrecorded(listing("vision/huge", ENTRY | {"size": 1 << 60})), "lacks vision/huge"),
    (listing("vision/huge", ENTRY | {"size": -1}), "-1 is not a count"),
    (edit_manifest(engines__0__file="../../../../etc/hostname"), "leads out of the artifact"),
    (edit_manifest(engines__0__file="/etc/hostname"), "leads out of the artifact"),
    (edit_manifest(engines__0__file="a\0b"), "cannot be shown"),
    (edit_manifest(name="\ud800"), "cannot be shown"),
    (edit_manifest(prompt__system_message="\ud800"), "malformed"),
    (edit_manifest(prompt__template="../x"), "is not one of"),
    (edit_manifest(image__tiles__max=10**9), "must be between 1 and 1024"),
    (edit_manifest(image__tiles__max="x" * 100_000), "malformed"),
    (edit_manifest(engines__0__profiles=[{"min": 1, "opt": 1 << 70, "max": 2}]), "not 1 ≤ min"),
    (edit_manifest(schema=2), "has schema 2; this vlmc reads schema 1"),
    (edit_manifest(schema=True), "values that schema 1 does not have"),
    (edit_manifest(schema="x" * 3_000_000), "has schema 'xxx"),
    (edit_manifest(vlmc="x" * 5_000_000), "larger than"),
    (give_a_name_twice, "gives the key 'name' twice"),
    (encode_otherwise, "not UTF-8 text"),
    (sparse, "larger than"),
    (written(b"[" * 4_000_000), "nested too deeply"),
    (written(b'{"schema": 1, "name": ' + b'{"a":' * 900 + b"1" + b"}" * 901), "it lacks"),
    (written(b'{"schema": 1, "name": ' + b"9" * 1_000_000 + b"}"), "thousands of digits"),
    (written(b'{"a":[' + b"[]," * 1_300_000 + b"1]}"), "has schema None"),
]


@pytest.mark.parametrize(("attack", "said"), ATTACKS)
def test_a_changed_manifest(attack: Change, said: str, copied: Path) -> None:
    attack(copied)
    attempt(copied.parent, "verify", "integrity", copied).refused(4, said)
