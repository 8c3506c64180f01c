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
"""Stands for the value that its key had last."""

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


def quoted(value: str) -> str:
    """Return a string in quotes."""
    return json.dumps(value, ensure_ascii=not is_encodable(value))


def spell_key(key: str) -> str:
    """Return a key, in quotes where it needs them."""
    return key if is_bare(key, LEGEND, is_text=True) else quoted(key)
