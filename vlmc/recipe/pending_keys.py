"""How much of a recipe this version acts on; the rest is planned, and refused by `vlmc build`.

Whoever makes a key act takes it out of here.
"""

from __future__ import annotations

PENDING_KEYS: dict[str, str] = {
    "runtime": "the runtime's settings are fixed in it",
}
"""Key path → what holds instead. Refused where written, and left out of an artifact's recipe."""
