"""Compiled Triton kernels as one file: from the cache of who compiled to that of who runs.

Triton keeps what it compiles by a key of source, options, GPU and compiler: cubins, and the small
host libraries that launch them. Copied entries are found by another process on such a machine,
which then compiles nothing and needs no C compiler.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from vlmc.errors import IntegrityError
from vlmc.files.atomic import make_private, write_atomically

CACHE_VARIABLE = "TRITON_CACHE_DIR"
_ABOUT = "about.json"
_GROUP = "__grp__"
# A key and a file's name; nothing that leads out of the cache.
_ENTRY = re.compile(r"[A-Za-z0-9_-]+/[A-Za-z0-9_][A-Za-z0-9_.\-]*")


def environment(target: str) -> dict[str, str]:
    """What an entry of the cache is for: GPU, Triton, Python and machine."""
    try:
        triton = version("triton")
    except PackageNotFoundError:
        triton = "not installed"
    return {
        "gpu": target,
        "triton": triton,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "machine": platform.machine(),
    }


def pack_cache(cache: Path, path: Path, target: str) -> None:
    """Write all entries of Triton's cache folder `cache` into the file `path`."""
    with ZipFile(path, "w") as archive:
        archive.writestr(ZipInfo(_ABOUT), json.dumps(environment(target), sort_keys=True))
        for file in sorted(cache.glob("*/*")):
            data = file.read_bytes()
            if file.name.startswith(_GROUP):
                # Absolute paths of this machine otherwise.
                children = json.loads(data)["child_paths"]
                data = json.dumps({"child_paths": dict.fromkeys(sorted(children), "")}).encode()
            archive.writestr(ZipInfo(f"{file.parent.name}/{file.name}"), data)


def unfit(path: Path, target: str) -> str | None:
    """Why the entries in `path` are of no use here; None where they are.

    Raises:
        IntegrityError: the file does not hold packed entries.
    """
    try:
        with ZipFile(path) as archive:
            about = json.loads(archive.read(_ABOUT))
    except (BadZipFile, KeyError, ValueError) as error:
        raise _damaged(path, error) from error
    here = environment(target)
    others = [
        f"{name} {about.get(name)}, but here is {here[name]}"
        for name in here
        if about.get(name) != here[name]
    ]
    return "; ".join(others) or None


def install(path: Path, cache: Path) -> int:
    """Copy the entries that Triton's cache folder `cache` lacks.

    Returns:
        How many files were copied.

    Raises:
        IntegrityError: the file does not hold packed entries.
    """
    copied = 0
    make_private(cache)
    try:
        with ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name != _ABOUT]
            # The group files last: they say that the others are complete.
            for name in sorted(names, key=lambda name: (_GROUP in name, name)):
                if not _ENTRY.fullmatch(name):
                    raise ValueError(f"{name!r} is not the name of an entry")
                file = cache / PurePosixPath(name)
                if file.exists():
                    continue
                data = archive.read(name)
                if file.name.startswith(_GROUP):
                    children = json.loads(data)["child_paths"]
                    paths = {child: str(file.parent / child) for child in children}
                    data = json.dumps({"child_paths": paths}).encode()
                file.parent.mkdir(exist_ok=True)
                write_atomically(file, data, mode=0o700)
                copied += 1
    except (BadZipFile, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    return copied


def _damaged(path: Path, error: Exception) -> IntegrityError:
    return IntegrityError(f"{path} does not hold compiled kernels ({error}); build it again")
