"""One JSON object of a config.json: typed values, and no key that passes unread."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from vlmc.errors import CheckpointError

_LARGEST = 3.4e38  # of fp32, in which all of the configuration's numbers are used
# Ten times and more of what any model has, and small enough that no sum or product overflows.
_MOST = 1 << 24


class Section:
    """Values by key. Errors name the file and the key; `refuse_unread` closes the section."""

    def __init__(self, values: Mapping[str, Any], path: Path, prefix: str = "") -> None:
        self.values, self.path, self.prefix = values, path, prefix
        self._read: set[str] = set()

    def fail(self, key: str, found: object, expected: str) -> CheckpointError:
        """The error for a value that vlmc cannot act on."""
        shown = repr(found)
        return CheckpointError(
            f"{self.path}: {self.prefix}{key} is {shown:.500}, expected {expected}. "
            "vlmc reads original OpenGVLab InternVL2 checkpoints; compare the file with the "
            "released one of this size."
        )

    def get(self, key: str, default: Any = None) -> Any:
        """The value as it is; the key counts as read."""
        self._read.add(key)
        return self.values.get(key, default)

    def one_of(self, *keys: str) -> tuple[str, Any]:
        """The name and value of a key that writers spell in different ways; null is absent.

        Raises:
            CheckpointError: two spellings have different values; names both.
        """
        given = [(key, value) for key in keys if (value := self.get(key)) is not None]
        for key, value in given[1:]:
            first, other = given[0]
            if value != other:
                raise CheckpointError(
                    f"{self.path}: {self.prefix}{first} is {other!r:.200}, but {self.prefix}{key} "
                    f"is {value!r:.200}. They mean the same thing, so which one the model was "
                    "trained with cannot be known. Remove the wrong one."
                )
        return given[0] if given else (keys[0], None)

    def section(self, key: str) -> Section:
        """The object under `key`."""
        found = self.get(key)
        if not isinstance(found, dict):
            raise self.fail(key, found, "an object")
        return Section(found, self.path, f"{self.prefix}{key}.")

    def integer(
        self, key: str, default: int | None = None, *, least: int = 1, most: int = _MOST
    ) -> int:
        """A whole number; null is absent where there is a default."""
        found = self.get(key, default)
        if found is None and default is not None:
            found = default
        if isinstance(found, bool) or not isinstance(found, int) or found < least:
            raise self.fail(key, found, f"a whole number of at least {least}")
        if found > most:
            raise self.fail(key, found, f"a whole number of at most {most}")
        return found

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number that fp32 holds."""
        found = self.get(key, default)
        if not is_positive(found):
            raise self.fail(key, found, "a positive number")
        return float(cast(float, found))

    def boolean(self, key: str, default: bool) -> bool:
        """True or false."""
        found = self.get(key, default)
        if not isinstance(found, bool):
            raise self.fail(key, found, "true or false")
        return found

    def choice(self, key: str, allowed: Sequence[str], default: str | None = None) -> str:
        """One of some texts."""
        found = self.get(key, default)
        if found not in allowed:
            raise self.fail(key, found, f"one of {', '.join(allowed)}")
        return cast(str, found)

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """A list of `count` positive numbers."""
        found = self.get(key)
        if not isinstance(found, list) or len(found) != count or not all(map(is_positive, found)):
            raise self.fail(key, found, f"a list of {count} positive numbers")
        return tuple(float(item) for item in found)

    def refuse_unread(self, harmless: Iterable[str]) -> None:
        """Refuse what nothing has read and what could change the arithmetic.

        Private keys (`_name_or_path`), null, false and empty values change nothing.

        Raises:
            CheckpointError: names the key.
        """
        for key in sorted(self.values.keys() - self._read - set(harmless)):
            value = self.values[key]
            if key.startswith("_") or value is None or value is False or value in ("", [], {}):
                continue
            raise CheckpointError(
                f"{self.path}: {self.prefix}{key} is {value!r:.200}, a key that vlmc does not "
                "know. It may change what the model computes, so it is not ignored. Remove the "
                "key if it does not matter for inference; else this version cannot run the model."
            )


def is_positive(value: object) -> bool:
    """Whether it is a number that fp32 holds; JSON as Python reads it has NaN and Infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value < _LARGEST and math.isfinite(value)
