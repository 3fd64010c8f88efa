"""Import the TensorRT packages, and collect their log messages."""

from __future__ import annotations

import importlib
from typing import Any

from vlmc.compile.engines.layer_precisions import LAYER_LIST
from vlmc.errors import UsageError
from vlmc.machine.packages import PACKAGES

Messages = list[tuple[str, str]]
"""Severity and text of TensorRT's log messages, in order."""


def import_tensorrt(engine: str) -> Any:
    """The module behind `tensorrt` or `tensorrt-rtx`.

    Raises:
        UsageError: the package is not installed.
    """
    package = PACKAGES[engine]
    try:
        return importlib.import_module(package.module)
    except ImportError as error:
        raise UsageError(
            f"building {engine} engines needs the package {package.module}, which cannot be "
            f"imported here ({error}): {package.install}."
        ) from error


def message_collector(tensorrt: Any, messages: Messages) -> Any:
    """Create a TensorRT logger that appends to `messages`."""

    class Collector(tensorrt.ILogger):  # type: ignore[misc]  # known at run time only
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity.name != "VERBOSE" or message.startswith(LAYER_LIST):
                messages.append((severity.name, message))

    return Collector()
