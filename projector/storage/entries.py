"""Read JSON content with a check of every value."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any


class Wrong(ValueError):
    """A value in a file is missing or has a wrong type; the message names it."""


class Entry:
    """A JSON object with checked access to its values.

    Args:
        value: the parsed JSON value.
        name: name of the object in its file; empty for the whole content.

    Raises:
        Wrong: if ``value`` isn't an object; and by every method, if a value is missing or has
            another type.
    """

    def __init__(self, value: Any, name: str = "") -> None:
        if not isinstance(value, dict):
            raise Wrong(f"{name or 'the content'} is not an object")
        self.value: dict[str, Any] = value
        self.name = name

    def __contains__(self, key: str) -> bool:
        return self.value.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.value)

    def entry(self, key: str) -> Entry:
        """The object ``key``."""
        return Entry(self._taken(key), self._named(key))

    def maybe_entry(self, key: str) -> Entry | None:
        """The object ``key``; None if it is null or missing."""
        return self.entry(key) if key in self else None

    def text(self, key: str) -> str:
        """The text ``key``."""
        return str(self._of(key, str, "a text"))

    def maybe_text(self, key: str) -> str | None:
        """The string ``key``; None if it is null or missing."""
        return self.text(key) if key in self else None

    def truth(self, key: str, default: bool | None = None) -> bool:
        """The boolean ``key``; ``default`` if it is missing and a default is given."""
        if key not in self and default is not None:
            return default
        return bool(self._of(key, bool, "true or false"))

    def count(self, key: str) -> int:
        """The non-negative integer ``key``."""
        return _count(self._taken(key), self._named(key))

    def maybe_count(self, key: str) -> int | None:
        """The non-negative integer ``key``; None if it is null or missing."""
        return self.count(key) if key in self else None

    def maybe_number(self, key: str) -> float | None:
        """The number ``key``; None if it is null or missing."""
        if key not in self:
            return None
        value = self.value[key]
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise Wrong(f"{self._named(key)} is not a number")
        if not math.isfinite(value):
            raise Wrong(f"{self._named(key)} is {value}, not a finite number")
        return float(value)

    def numbers_by_name(self, key: str, *, is_known: bool) -> dict[str, float]:
        """The object ``key`` of numbers; empty if it is missing, or a number in it is null.

        Args:
            is_known: whether another type is an error; otherwise the result is empty.
        """
        value = self.value.get(key)
        if not is_known and not (
            isinstance(value, dict) and all(type(each) in (int, float) for each in value.values())
        ):
            return {}
        found = self.maybe_entry(key)
        numbers = {} if found is None else {name: found.maybe_number(name) for name in found}
        known = {name: number for name, number in numbers.items() if number is not None}
        return known if len(known) == len(numbers) else {}

    def counts(self, key: str) -> tuple[int, ...]:
        """The list ``key`` of non-negative integers."""
        return tuple(_count(each, self._named(key)) for each in self._of(key, list, "a list"))

    def texts(self, key: str) -> tuple[str, ...]:
        """The list ``key`` of strings."""
        values = self._of(key, list, "a list")
        if not all(isinstance(each, str) for each in values):
            raise Wrong(f"{self._named(key)} holds something that is not a text")
        return tuple(values)

    def texts_by_name(self, key: str) -> dict[str, str]:
        """The object ``key`` of strings; empty if it is null or missing."""
        found = self.maybe_entry(key)
        return {} if found is None else {name: found.text(name) for name in found}

    def _taken(self, key: str) -> Any:
        if key not in self.value:
            raise Wrong(f"{self._named(key)} is missing")
        return self.value[key]

    def _of(self, key: str, kind: type, what: str) -> Any:
        value = self._taken(key)
        if not isinstance(value, kind):
            raise Wrong(f"{self._named(key)} is not {what}")
        return value

    def _named(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key


def _count(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Wrong(f"{name} is not a whole number of 0 or more")
    return value
