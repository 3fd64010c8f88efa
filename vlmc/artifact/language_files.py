"""Names of files in an artifact's language folder that builder and runtime share."""

from __future__ import annotations

FOLDER = "language"
KERNELS = f"{FOLDER}/kernels"


def kernels_file(target: str) -> str:
    """Where the payload holds the language model's kernels for a GPU, such as sm90."""
    return f"{KERNELS}-{target}.zip"
