"""A memory of what was worked out that does not grow without end: what has not been asked for lately is forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

Key = TypeVar("Key", bound="Hashable")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """Remembers what was kept or asked for last; safe to share between threads.

    It has two halves. When the newer one is full, the older one is dropped, and what is asked for there until then
    moves to the newer: that takes no lock, and no order to keep.

    Args:
        most: What one half holds, in the unit of the weights.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._weight = 0
        self._newer: dict[Key, tuple[Value, int]] = {}
        self._older: dict[Key, tuple[Value, int]] = {}

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

    def get(self, key: Key) -> Value | None:
        """Return what was kept, or `None` where nothing was, or it is forgotten."""
        found = self._newer.get(key)
        if found is not None:
            return found[0]
        found = self._older.pop(key, None)
        if found is None:
            return None
        self.keep(key, *found)
        return found[0]

    def keep(self, key: Key, value: Value, weight: int) -> None:
        """Keep a value; one that is heavier than a half is kept until the next comes."""
        if self._weight + weight > self._most and self._newer:
            self._older, self._newer, self._weight = self._newer, {}, 0
        self._newer[key] = (value, weight)
        self._weight += weight
