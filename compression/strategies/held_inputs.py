r"""Inputs of tool calls whose texts the receiver holds already: each text is sent as where its lines stand.

    {"file_path": "a.py", "old_string": "[held: @=message:lines, @- without numbers]\n@-=#12:40-52"}

An edit repeats what it replaces, which was read before. Only texts that are values of the input's own members are
written so (`held_lines`), and only where that gives the input back, byte for byte; everything else stays as it is, and
the input stays JSON.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from apportion.compression.strategies.held_lines import HeldLines
from apportion.compression.strategies.lossless import LosslessStrategy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apportion.compression.strategies.types import Held, Item, Query

MIN_CHARS = 160
"""Characters of the shortest text that is looked up: some forty tokens."""

MAX_MEMBERS = 64
"""Members of an input that are looked at."""

_BLANKS: Final = " \t\n\r"
_BEGIN: Final = "[held: "
_decoder: Final = json.JSONDecoder()


class _Text(NamedTuple):
    """A member's value that is a text: where it stands, and what it is."""

    start: int
    end: int
    value: str


class HeldInputs(LosslessStrategy):
    """Writes the texts of a tool's input as references to lines that the receiver holds."""

    name = "held_inputs"

    def __init__(self) -> None:
        self._lines = HeldLines()

    def encode(self, text: str, item: Item, query: Query) -> str | None:
        """Return the input with references, or `None` where nothing of it is held."""
        if not item.held:
            return None
        texts = list(_texts(text))
        if any(each.value.startswith(_BEGIN) for each in texts):
            return None
        parts: list[str] = []
        position = 0
        for each in texts:
            form = self._lines.encode(each.value, item, query) if len(each.value) >= MIN_CHARS else None
            if form is not None and query.count(form.encode()) < query.count(each.value.encode()):
                parts += (text[position : each.start], _spell(form))
                position = each.end
        return "".join((*parts, text[position:])) if parts else None

    def decode(self, form: str, held: Sequence[Held]) -> str:
        """Return the input with its texts."""
        parts: list[str] = []
        position = 0
        for each in _texts(form):
            if each.value.startswith(_BEGIN):
                parts += (form[position : each.start], _spell(self._lines.decode(each.value, held)))
                position = each.end
        return "".join((*parts, form[position:]))


def _spell(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _texts(text: str) -> Iterator[_Text]:
    """Yield the texts that are values of a JSON object's own members and are spelled as we would spell them.

    Raises:
        ValueError: The text is no JSON object.
    """
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError("no object")
    at = _skip(text, at + 1)
    for _ in range(MAX_MEMBERS):
        if text[at : at + 1] != '"':
            return
        _, at = _decoder.raw_decode(text, at)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise ValueError("no object")
        start = _skip(text, at + 1)
        value, at = _decoder.raw_decode(text, start)
        if isinstance(value, str) and text[start:at] == _spell(value):
            yield _Text(start, at, value)
        at = _skip(text, at)
        if text[at : at + 1] != ",":
            return
        at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANKS:
        at += 1
    return at
