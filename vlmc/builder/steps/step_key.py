"""Versions of the tools that steps use, which are part of their keys."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from vlmc.distribution import install_command
from vlmc.errors import UsageError


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
            f"its build extra: {install_command('build')}"
        ) from error
