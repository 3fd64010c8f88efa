"""Numbers of reports as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def share_text(value: float | None) -> str:
    """A share in four digits."""
    return "-" if value is None else f"{value:.4f}"


def rate_text(value: float | None) -> str:
    """A rate, with more digits where it is small."""
    return "-" if value is None else f"{value:,.{0 if value >= 100 else 1}f}"


def interval_text(values: Mapping[str, Any]) -> str:
    """A share or a drop in its JSON form, with its interval and n."""
    if values["value"] is None:
        return "-"
    low, high = values["interval"]
    return f"{values['value']:.4f} [{low:.4f}, {high:.4f}] n {values['n']}"
