"""The folder for compiled kernels and what was measured of them, the user's alone."""

from __future__ import annotations

from pathlib import Path

from vlmc.machine.user_cache import user_cache


def private_folder() -> Path:
    """The folder `kernels` of the user's caches, made with mode 0700."""
    folder = user_cache("kernels")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
