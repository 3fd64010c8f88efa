"""Outputs at remote addresses: written here, and uploaded when they are complete.

Object stores can neither append nor lock, so the journal and the ledger of such an output are in
the user's cache, and a job resumes on the machine that began it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from vlmc.errors import UsageError, VlmcError
from vlmc.files.atomic import make_private
from vlmc.jobs.input.remote import RemoteFile, file_system, is_remote
from vlmc.jobs.output.files import OutputFiles
from vlmc.machine.user_cache import user_cache


def writable_output(text: str) -> Path:
    """The file that a job writes for an output: itself, or one in the user's cache.

    Raises:
        UsageError: the output cannot be written, or is remote and no job on this machine began it.
    """
    return _local_output(RemoteFile(text)) if is_remote(text) else Path(text)


def _local_output(out: RemoteFile) -> Path:
    folder = user_cache("jobs") / hashlib.sha256(out.url.encode()).hexdigest()[:32]
    local = folder / out.url.rpartition("/")[2]
    if not OutputFiles.of(local).started and out.exists():
        raise UsageError(
            f"{out.url}: exists, and the job that wrote it was not run on this machine by this "
            "user, so it cannot be resumed here; choose another output or remove this one"
        )
    _try_to_write(out)
    make_private(folder.parent, folder)
    return local


def upload(local: Path, out: RemoteFile) -> None:
    """Put the complete output at its address.

    Raises:
        VlmcError: it cannot be written; says how to go on.
    """
    try:
        system, path = file_system(out.url)
        system.put_file(str(local), path)
    except OSError as error:
        raise VlmcError(
            f"{out.url}: cannot be written ({error}). The complete output is in {local}; run the "
            "same command again to upload it"
        ) from error


def _try_to_write(out: RemoteFile) -> None:
    """Find out before the first question whether the last upload will be allowed."""
    probe = f"{out.url}.vlmc-probe"
    try:
        system, path = file_system(probe)
        folder = path.rpartition("/")[0]
        system.makedirs(folder, exist_ok=True)
        system.pipe_file(path, b"vlmc")
        system.rm_file(path)
    except (OSError, NotImplementedError) as error:
        raise UsageError(
            f"{out.url}: cannot be written ({error}); choose another output"
        ) from error
