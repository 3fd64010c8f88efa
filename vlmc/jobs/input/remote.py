"""Files at addresses such as s3://bucket/file, through fsspec."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from vlmc.distribution import install_command
from vlmc.errors import ImageError, UsageError
from vlmc.files.units import shorten

# A chain such as simplecache::https://host/file names fsspec explicitly; a plain web address does
# not. A drive letter is not a scheme.
_REMOTE = re.compile(r"(?!https?:|data:)[a-z][a-z0-9+.-]+(?:::|://)", re.IGNORECASE)


def is_remote(text: str) -> bool:
    """Whether a text is an address for fsspec."""
    return _REMOTE.match(text) is not None


@dataclass(frozen=True, slots=True, order=True)
class RemoteFile:
    """A file or folder at an address. As an image it is read when it is prepared."""

    url: str

    @property
    def name(self) -> str:
        """What messages and rows call it."""
        return self.url

    @property
    def suffix(self) -> str:
        """As of a path, such as `.jpg`."""
        return posixpath.splitext(self.url)[1]

    @property
    def parent(self) -> RemoteFile:
        """The folder that it is in."""
        return RemoteFile(self.url.rpartition("/")[0])

    def __truediv__(self, part: str) -> RemoteFile:
        return RemoteFile(f"{self.url}/{part}")

    def as_posix(self) -> str:
        """The address."""
        return self.url

    def seekable(self) -> bool:
        """It is read as a whole."""
        return False

    def read(self) -> bytes:
        """The whole content.

        Raises:
            ImageError: it cannot be read.
        """
        try:
            system, path = file_system(self.url)
            content: bytes = system.cat_file(path)
        except FileNotFoundError:
            raise ImageError(
                f"{shorten(self.url)}: there is no such file; check the path"
            ) from None
        except (OSError, ValueError) as error:
            raise ImageError(f"{shorten(self.url)}: cannot be read ({error})") from error
        return content

    def exists(self) -> bool:
        """Whether there is a file or folder."""
        system, path = file_system(self.url)
        return bool(system.exists(path))

    def version(self) -> str | None:
        """What the store says identifies the present content, or None where it cannot be read."""
        try:
            system, path = file_system(self.url)
            return str(system.ukey(path))
        except (OSError, ValueError):
            return None


Location: TypeAlias = Path | RemoteFile
"""Where a file is."""


def location(text: str) -> Location:
    """The location that a text names."""
    return RemoteFile(text) if is_remote(text) else Path(text)


def file_system(url: str) -> tuple[Any, str]:
    """(the file system of an address, its path there).

    Raises:
        UsageError: fsspec or the package of the scheme is missing, or the scheme is unknown.
    """
    try:
        import fsspec
    except ImportError as error:
        raise UsageError(
            f"{shorten(url)}: remote files need fsspec ({error}); install it: "
            f"{install_command('remote')}"
        ) from error
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise UsageError(
            f"{shorten(url)}: its scheme needs another package ({error}); install that beside vlmc"
        ) from error
    except ValueError as error:
        raise UsageError(f"{shorten(url)}: cannot be opened ({error}); check the scheme") from error
    return system, path


def matching(url: str) -> list[RemoteFile]:
    """The files that a pattern matches, by name; as in a shell, hidden ones are left out.

    Raises:
        UsageError: as `file_system`.
    """
    system, path = file_system(url)
    found = sorted(name for name, info in system.glob(path, detail=True).items() if _is_file(info))
    shown = [name for name in found if not posixpath.basename(name).startswith(".")]
    return [RemoteFile(str(system.unstrip_protocol(name))) for name in shown]


def _is_file(info: Any) -> bool:
    return bool(info["type"] == "file")


@contextmanager
def opened(place: Location) -> Iterator[BinaryIO]:
    """The file, opened to be read.

    Raises:
        UsageError: it is missing or cannot be read.
    """
    try:
        if isinstance(place, Path):
            file: Any = place.open("rb")
        else:
            system, path = file_system(place.url)
            file = system.open(path, "rb")
    except FileNotFoundError:
        raise UsageError(f"{place_text(place)}: there is no such file; check the path") from None
    except OSError as error:
        raise UsageError(f"{place_text(place)}: cannot be read ({error})") from error
    with file:
        yield file


def place_text(place: Location) -> str:
    """The location in messages."""
    return shorten(place.as_posix())
