"""Start a module of vlmc in a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module; nothing in the current folder hides what is installed."""
    return [sys.executable, "-P", "-m", module, *arguments]


def module_environment(settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with `settings`, and this vlmc first among what is imported."""
    above = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (above, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **(settings or {})}
