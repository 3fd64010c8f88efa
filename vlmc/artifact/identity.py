"""The identity that an artifact carries in a file beside its manifest.

The identity is the SHA-256 of the canonical manifest. With the file there, the manifest must also
be the exact text that `vlmc build` writes for those values, so that no changed byte is accepted:
one that changes a value gives another identity, one that does not (a space, an escape) gives
another text. Artifacts of earlier versions have no such file and stay readable.
"""

from __future__ import annotations

import re
from pathlib import Path

from vlmc.errors import IntegrityError
from vlmc.files.bounded_read import read_bytes

IDENTITY = "identity"
_FORM = re.compile(rb"([0-9a-f]{64})\n")
NOT_RECORDED = (
    "not recorded: an earlier version of vlmc built this artifact, so a changed manifest is found "
    "only by a signature. Build it again to record its identity"
)
"""What `inspect` and `verify integrity` say of an artifact without the file."""


def is_recorded(folder: Path) -> bool:
    """Whether the artifact carries its identity."""
    return (folder / IDENTITY).is_file()


def identity_text(identity: str) -> str:
    """The content of the file."""
    return f"{identity}\n"


def read_identity(folder: Path) -> str | None:
    """The identity that the artifact carries; None if the file does not exist.

    Raises:
        IntegrityError: the file is not a plain file with an identity.
    """
    path = folder / IDENTITY
    try:
        match = _FORM.fullmatch(read_bytes(path, 1024, follow_links=False))
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = "it is a link" if path.is_symlink() else error.strerror
        raise IntegrityError(
            f"{path} cannot be read ({reason}); copy the artifact again"
        ) from error
    except ValueError as error:
        raise IntegrityError(f"{path} is damaged: {error}. Copy the artifact again.") from error
    if match is None:
        raise IntegrityError(
            f"{path} is damaged: it does not hold 64 hexadecimal digits. Copy the artifact again."
        )
    return match[1].decode("ascii")


def check_identity(folder: Path, identity: str, *, same_text: bool) -> None:
    """Compare the manifest's identity with the one that the artifact carries.

    `same_text` is whether the manifest's bytes are those that `vlmc build` writes.

    Raises:
        IntegrityError: the manifest was changed, or the file is damaged.
    """
    recorded = read_identity(folder)
    if recorded is None or (recorded == identity and same_text):
        return
    what = (
        "has other spaces, escapes or order than `vlmc build` wrote"
        if recorded == identity
        else f"has identity {identity[:16]}…, and {IDENTITY} beside it says {recorded[:16]}…"
    )
    raise IntegrityError(
        f"{folder}: the manifest {what}. One of the two files was changed or damaged; copy the "
        "artifact again, or build it again."
    )
