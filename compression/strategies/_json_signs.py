"""The signs with which JSON is written as rows, and which text needs quotes among them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from apportion.compression.strategies._json_shapes import is_number
from apportion.compression.strategies._json_text import LITERALS

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

DEFAULT = "_"
"""Stands for the default of a field."""

DITTO = "^"
"""Stands for the value that its key had last, or before a time for the date of that."""

DATE_CHARS = 10
"""Characters of a date as in `2026-01-02T10:20:30Z`."""

EMBEDDED, SPACED = "%", "%%"
"""Before the value of a string that is JSON itself, minified or with blanks."""

LINES = "*"
"""Before a list of values that stood on a line each."""

BLOCK = "$"
"""Before the number of a text that stands at the end."""

STRUCTURE = frozenset('|,()[]{}"\n')
"""Characters that end a bare word anywhere but in a row of its own."""

ROW = frozenset("|\n")
"""Characters that end a bare word in a row of its own."""

LEGEND = STRUCTURE | frozenset("=~:; ")
"""Characters that end a bare word in the legend, or a key."""

CELL_ENDS = frozenset({"|", ")", "\n", ""})
"""What can follow a value in a row."""


def is_encodable(value: str) -> bool:
    """Say whether a text has no lone surrogates, so that it can stand in the form as it is."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def is_bare(value: str, ends: AbstractSet[str], *, is_text: bool) -> bool:
    """Say whether a string can stand without quotes.

    Args:
        value: The string.
        ends: Characters that would end it there.
        is_text: Whether the legend says that a string stands there, so that it cannot be taken for a number.
    """
    if not value or value[0] in '([{"$%_^- \t' or value[-1] in " \t" or not value.isprintable() or set(value) & ends:
        return is_text and value[:1] == "-" and is_number(value)
    return is_text or not (is_number(value) or value in LITERALS)


def has_date(value: str) -> bool:
    """Say whether a string is a date with the time of day behind it, and nothing else.

    >>> [has_date(text) for text in ("2026-01-02T10:20:30.5+01:00", "2026-01-02 10:20:30", "2026-01-02", "2026-01-02T")]
    [True, True, False, False]
    """
    if value[4:5] != "-" or value[7:8] != "-" or value[10:11] not in {"T", " "} or not set(value[11:]) <= _IN_TIMES:
        return False
    return len(value) > DATE_CHARS + 1 and (value[:4] + value[5:7] + value[8:10]).isdecimal()


_IN_TIMES = frozenset("0123456789:.+-Z")


def quoted(value: str) -> str:
    """Return a string in quotes."""
    return json.dumps(value, ensure_ascii=not is_encodable(value))


def spell_key(key: str) -> str:
    """Return a key, in quotes where it needs them."""
    return key if is_bare(key, LEGEND, is_text=True) else quoted(key)
