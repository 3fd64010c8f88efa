"""The version of vlmc, at the bottom so that every module may import it."""

from __future__ import annotations

__version__ = "0.1.0"
