"""JSON as text: parsed without losing a spelling, and written again in the style in which it stood.

`json` alone alters what it reads: `1.10`, `1e400`, duplicate keys and thousands of digits do not survive it. Here
numbers keep their spelling and objects are lists of pairs. How strings and white space are spelled is one `Style` for a
whole text; where it deviates from its own style, the writer shows, because its result is compared with the text.
"""

from __future__ import annotations

import json
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIN_SEGMENT_CHARS = 24
"""Shorter JSON inside a text is left alone."""

TRIES_PER_CHAR = 4
"""How often a character may be read in search of JSON, on average; bounds the time for hostile texts."""

WINDOW_CHARS = 2_000
"""Length of the piece in which an array or object is looked for first."""

LITERALS = {"true": True, "false": False, "null": None}


class Number(str):
    """A number as it was spelled; `NaN` and `Infinity` too."""

    __slots__ = ()


class Pairs(list[tuple[str, Any]]):
    """An object: its keys and values in their order, duplicate keys included."""

    __slots__ = ()


class Embedded(NamedTuple):
    """A string that is itself JSON on one line: its value, and whether blanks follow its commas and colons."""

    value: Any
    spaced: bool

    @property
    def style(self) -> Style:
        """How the string spells the value."""
        return Style(item=", ", key=": ") if self.spaced else Style()


class Segment(NamedTuple):
    """JSON within a text, from `start` up to, not including, `end`."""

    start: int
    end: int
    value: Any


class Style(NamedTuple):
    """How a JSON text is spelled.

    Attributes:
        indent: White space per level, or `None` for a text on one line.
        item: What separates items on one line.
        key: What separates a key from its value.
        ascii: Whether characters beyond ASCII are escaped.
        html: Whether `<`, `>` and `&` are escaped, as Go does.
        slash: Whether `/` is escaped, as PHP does.
    """

    indent: str | None = None
    item: str = ","
    key: str = ":"
    ascii: bool = False
    html: bool = False
    slash: bool = False

    def words(self) -> str:
        """Return a spelling of the style that `parse` reads; empty for minified JSON.

        >>> Style(indent="  ", key=": ").words()
        'indent2 spaced'
        """
        words = [] if self.indent is None else [f"indent{len(self.indent)}" if "\t" not in self.indent else "tab"]
        items = self.indent is not None or self.item == ", "
        names = {"spaced": items and self.key == ": ", "items-spaced": self.item == ", " and self.key == ":"}
        names |= {"keys-spaced": not items and self.key == ": "}
        flags = names | {"ascii": self.ascii, "html": self.html, "slash": self.slash}
        return " ".join(words + [name for name, holds in flags.items() if holds])

    @classmethod
    def parse(cls, words: str) -> Style:
        """Return the style of a spelling.

        Raises:
            ValueError: It holds an unknown word.
        """
        given = set(words.split())
        indents = {word for word in given if word.startswith("indent") or word == "tab"}
        rest = given - indents
        if len(indents) > 1 or rest - {"spaced", "items-spaced", "keys-spaced", "ascii", "html", "slash"}:
            raise ValueError(f"unknown style {words!r}")
        word = indents.pop() if indents else None
        indent = None if word is None else "\t" if word == "tab" else " " * int(word[6:])
        return cls(
            indent,
            ", " if "items-spaced" in rest or ("spaced" in rest and not indents) else ",",
            ": " if "keys-spaced" in rest or "spaced" in rest else ":",
            *(flag in rest for flag in ("ascii", "html", "slash")),
        )

    def spell(self) -> Callable[[str], str]:
        """Return the function that writes a string."""
        plain: Callable[[str], str] = encode_basestring_ascii if self.ascii else encode_basestring
        if not (self.html or self.slash):
            return plain
        swaps = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"} if self.html else {}
        table = str.maketrans(swaps | ({"/": "\\/"} if self.slash else {}))
        return lambda string: plain(string).translate(table)


_decoder = json.JSONDecoder(
    object_pairs_hook=Pairs, parse_float=Number, parse_int=Number, parse_constant=Number, strict=True
)


def find_segments(text: str) -> Iterator[Segment]:
    """Yield the arrays and objects in a text, the first of each line and what follows it, in order."""
    position, budget = 0, TRIES_PER_CHAR * len(text) + 1000
    while position < len(text) and budget > 0:
        start = _opening(text, position)
        if start < 0:
            return
        if not _may_begin(text, start):
            position = _next_try(text, start)
            continue
        try:
            value, end = _decode(text, start)
        except json.JSONDecodeError as error:
            budget -= error.pos + 1 if len(error.doc) > WINDOW_CHARS else 1
            position = _next_try(text, start)
            continue
        except RecursionError:
            return
        if end - start >= MIN_SEGMENT_CHARS:
            yield Segment(start, end, value)
        position = end


def _may_begin(text: str, start: int) -> bool:
    """Say whether an array or object may begin at a bracket, from what follows it."""
    following = text[start + 1 : start + 64].lstrip(" \t\r\n")[:1]
    return not following or following in ('"}' if text[start] == "{" else '"{[]-0123456789tfnNI')


def _decode(text: str, start: int) -> tuple[Any, int]:
    """Return the value that begins at a bracket, and where it ends.

    A short piece is tried first: an error costs as much as all the text before it, because it counts the lines.
    """
    window = text[start : start + WINDOW_CHARS]
    try:
        value, end = _decoder.raw_decode(window)
    except json.JSONDecodeError as error:
        unfinished = error.msg.startswith("Unterminated") or error.pos > len(window) - 16
        if len(window) < WINDOW_CHARS or not unfinished:
            raise
        return _decoder.raw_decode(text, start)
    return value, start + end


def embed(value: Any) -> Any:
    r"""Return a value in which strings that are JSON themselves are read, as arguments of tool calls are.

    >>> write(embed('{"a":1.0}'), Style())
    '"{\\"a\\":1.0}"'
    """
    if isinstance(value, Pairs):
        return Pairs((key, embed(inner)) for key, inner in value)
    if isinstance(value, list):
        return [embed(inner) for inner in value]
    if not isinstance(value, str) or isinstance(value, Number) or len(value) < MIN_SEGMENT_CHARS:
        return value
    if value[0] + value[-1] not in {"{}", "[]"}:
        return value
    try:
        read, end = _decoder.raw_decode(value)
    except (json.JSONDecodeError, RecursionError):
        return value
    for spaced in (False, True):
        found = Embedded(read, spaced)
        if end == len(value) and write(read, found.style) == value:
            return Embedded(embed(read), spaced)
    return value


def _opening(text: str, position: int) -> int:
    brace, bracket = text.find("{", position), text.find("[", position)
    return max(brace, bracket) if min(brace, bracket) < 0 else min(brace, bracket)


def _next_try(text: str, failed: int) -> int:
    """Return where to look on: behind a run of brackets, or in the next line."""
    if text[failed + 1 : failed + 2] in {"{", "["}:
        return failed + 1
    line_end = text.find("\n", failed)
    return len(text) if line_end < 0 else line_end + 1


def guess_style(text: str, segment: Segment) -> Style:
    """Return the style in which a segment seems to be written."""
    start, end, _ = segment
    inner = text[start + 1 : start + 200]
    blanks = inner[: len(inner) - len(inner.lstrip())]
    colon = text.find('":', start, end)
    key = ": " if colon >= 0 and text[colon + 2 : colon + 3] == " " else ":"
    ascii_only = text.isascii() and text.find("\\u", start, end) >= 0
    html = text.find("\\u003", start, end) >= 0 or text.find("\\u0026", start, end) >= 0
    html = html and not any(text.find(sign, start, end) >= 0 for sign in "<>&")
    slashes = text.count("\\/", start, end)
    slash = slashes > 0 and slashes == text.count("/", start, end)
    if blanks.startswith("\n"):
        return Style(blanks[1:], ",", key, ascii_only, html, slash)
    spaced = text.count(", ", start, end) > text.count(",", start, end) / 2 or (key == ": " and "," not in inner)
    return Style(None, ", " if spaced else ",", key, ascii_only, html, slash)


def write(value: Any, style: Style) -> str:
    """Return the JSON text of a parsed value.

    >>> write(Pairs([("a", Number("1.10")), ("a", [])]), Style(item=", ", key=": "))
    '{"a": 1.10, "a": []}'
    """
    parts: list[str] = []
    _write(value, style, style.spell(), "\n", parts)
    return "".join(parts)


def _write(value: Any, style: Style, spell: Callable[[str], str], line_end: str, parts: list[str]) -> None:
    if isinstance(value, Number):
        parts.append(value)
    elif isinstance(value, str):
        parts.append(spell(value))
    elif isinstance(value, Embedded):
        parts.append(spell(write(value.value, value.style)))
    elif not isinstance(value, list):
        parts.append("null" if value is None else "true" if value else "false")
    elif not value:
        parts.append("{}" if isinstance(value, Pairs) else "[]")
    else:
        pairs = isinstance(value, Pairs)
        inner = line_end if style.indent is None else line_end + style.indent
        opening, between = ("", style.item) if style.indent is None else (inner, "," + inner)
        parts.append(("{" if pairs else "[") + opening)
        for number, item in enumerate(value):
            if number:
                parts.append(between)
            if pairs:
                parts.append(spell(item[0]) + style.key)
            _write(item[1] if pairs else item, style, spell, inner, parts)
        parts.append(("" if style.indent is None else line_end) + ("}" if pairs else "]"))
