"""What the keys of steps are made of: digests of source files and versions of tools."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from vlmc.checkpoint.source import Checkpoint
from vlmc.errors import UsageError


def weight_files(
    checkpoint: Checkpoint, prefixes: tuple[str, ...], digests: Mapping[str, str]
) -> dict[str, str]:
    """Digests of the weight files that hold tensors under the prefixes."""
    weights = checkpoint.weights
    names = [name for name in weights if name.startswith(prefixes)]
    # A low-rank pair may lie in another file than its base, which is the one `file` names.
    merged = any(weights.lora_ranks(prefix) for prefix in prefixes)
    files = weights.files if merged else sorted({weights.file(name) for name in names})
    return {file.name: digests[file.name] for file in files}


def tool_versions(*packages: str) -> dict[str, str]:
    """Installed versions by package.

    Raises:
        UsageError: one is not installed.
    """
    try:
        return {package: version(package) for package in packages}
    except PackageNotFoundError as error:
        raise UsageError(
            f"building needs the package {error.name}, which is not installed. Install vlmc with "
            "its build extra: pip install 'vlmc[build]'"
        ) from error
