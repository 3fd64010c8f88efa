"""Compiled kernels travel between Triton's caches, and only to where they fit."""

from __future__ import annotations

import json
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.builder.inductor import write_cache
from vlmc.errors import IntegrityError
from vlmc.machine.triton_cache import environment, install, pack_cache, unfit


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    (tmp_path / "there").mkdir()
    write_cache(tmp_path / "there")
    path = tmp_path / "kernels.zip"
    pack_cache(tmp_path / "there", path, "sm90")
    return path


def test_entries_arrive_with_paths_of_their_new_place(packed: Path, tmp_path: Path) -> None:
    cache = tmp_path / "here"
    assert install(packed, cache) == 3
    assert (cache / "KEY1" / "launcher.so").read_bytes() == b"library"
    group = json.loads((cache / "KEY2" / "__grp__kernel.json").read_text())
    assert group == {"child_paths": {"kernel.cubin": str(cache / "KEY2" / "kernel.cubin")}}
    assert str(tmp_path / "there").encode() not in packed.read_bytes()
    assert cache.stat().st_mode & 0o077 == 0


def test_entries_that_are_there_stay(packed: Path, tmp_path: Path) -> None:
    cache = tmp_path / "here"
    (cache / "KEY1").mkdir(parents=True)
    (cache / "KEY1" / "launcher.so").write_bytes(b"own")
    assert install(packed, cache) == 2
    assert install(packed, cache) == 0
    assert (cache / "KEY1" / "launcher.so").read_bytes() == b"own"


def test_equal_caches_give_equal_files(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    write_cache(tmp_path / "other")
    pack_cache(tmp_path / "other", tmp_path / "other.zip", "sm90")
    assert (tmp_path / "other.zip").read_bytes() == packed.read_bytes()


def test_another_gpu_or_version_is_named(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unfit(packed, "sm90") is None
    assert unfit(packed, "sm89") == "gpu sm90, but here is sm89"
    here = environment("sm90")
    monkeypatch.setattr(
        "vlmc.machine.triton_cache.environment", lambda target: here | {"triton": "99"}
    )
    assert unfit(packed, "sm90") == f"triton {here['triton']}, but here is 99"


@pytest.mark.parametrize("name", ["../KEY/file", "KEY/../../file", "/KEY/file", "file", "KEY/.."])
def test_a_name_that_leads_elsewhere_is_refused(name: str, packed: Path, tmp_path: Path) -> None:
    with ZipFile(packed, "a") as archive:
        archive.writestr(name, b"code")
    with pytest.raises(IntegrityError, match="is not the name of an entry"):
        install(packed, tmp_path / "here")
    assert not (tmp_path / "file").exists()


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kernels.zip"
    path.write_bytes(b"PK no archive")
    for look in (lambda: unfit(path, "sm90"), lambda: install(path, tmp_path / "here")):
        with pytest.raises(IntegrityError, match="does not hold compiled kernels"):
            look()
