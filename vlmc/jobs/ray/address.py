"""Addresses of Ray clusters."""

from __future__ import annotations

from urllib.parse import urlsplit

LOCAL, AUTO = "local", "auto"
"""A cluster of this machine that lasts as long as the job, and one that runs on it already."""


def is_address(text: str) -> bool:
    """Whether a text has the form of an address."""
    return text in (LOCAL, AUTO) or all(host_and_port(text))


def host_and_port(address: str) -> tuple[str, int]:
    """Those of `HOST:PORT` or `ray://HOST:PORT`; empty and 0 for any other text."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        named = parts.scheme in ("", "ray") and not parts.path
        return (parts.hostname or "", parts.port or 0) if named else ("", 0)
    except ValueError:
        return "", 0
