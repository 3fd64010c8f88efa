"""Pillow's messages on damaged or unusual files, which `ImageError` reports in their place."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import re
import warnings
from functools import cache

from PIL import _imaging

_MODULES = r"(PIL|pillow_heif)\."
_FILTER = ("ignore", None, Warning, re.compile(_MODULES), 0)


def quiet_pillow() -> None:
    """Keep the warnings of Pillow and its libraries off the terminal.

    Decoding calls this each time, since a filter that is added later comes first. It is a filter
    on Pillow's modules and not `catch_warnings`, which restores the filters of all threads.
    """
    _quiet_libraries()
    if not warnings.filters or warnings.filters[0] != _FILTER:
        warnings.filterwarnings("ignore", module=_MODULES)


@cache
def _quiet_libraries() -> None:
    # Without any handler, Python writes a logger's errors to stderr.
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    # libtiff writes to stderr by itself. A Pillow that was linked in another way has no such name.
    with contextlib.suppress(AttributeError, OSError):
        library = ctypes.CDLL(_imaging.__file__)
        for setter in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
            setter.argtypes, setter.restype = (ctypes.c_void_p,), ctypes.c_void_p
            setter(None)
