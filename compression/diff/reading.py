"""Cuts a file into sections whose contents, one after the other, are the file again, byte for byte.

Requests and lists of messages are cut at each message and tool definition, JSON lines at each line. Anything else is
one section. JSON is read to find where to cut; what is cut is the file's own bytes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from apportion.compression.diff.types import MAX_NAME, Context, Section, is_word

if TYPE_CHECKING:
    from collections.abc import Iterator

LISTS: Final = {"messages": "message", "input": "message", "tools": "tool_definition", "agents": "agent"}
"""Members of a request whose elements are sections, and of which kind those are."""

MIN_LINES = 2
"""Lines of JSON that are JSON lines rather than one value."""

_BLANKS: Final = " \t\n\r"
_decoder: Final = json.JSONDecoder()


class _Cut(NamedTuple):
    """Where a section ends, counted in characters, and what it is."""

    end: int
    kind: str
    name: str


def read_context(data: bytes) -> Context:
    """Return the sections of a file; their contents joined are the file."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return Context.of_text(data, kind="bytes")
    try:
        cuts = list(_cuts(text))
    except (ValueError, IndexError, RecursionError):
        cuts = []
    if not cuts:
        return Context.of_text(data, kind=_kind_of(text))
    sections: list[Section] = []
    start = 0
    for cut in cuts:
        sections.append(Section(cut.kind, cut.name, text[start : cut.end].encode()))
        start = cut.end
    if start < len(text):
        sections.append(Section("rest", content=text[start:].encode()))
    return Context(tuple(sections))


def join_context(context: Context) -> bytes:
    """Return the file of which `read_context` made a context."""
    return b"".join(section.content for section in context.sections)


def _kind_of(text: str) -> str:
    return "state" if text.lstrip(_BLANKS)[:1] in {"{", "["} else "text"


def _cuts(text: str) -> Iterator[_Cut]:
    at = _skip(text, 0)
    if text[at : at + 1] == "[":
        yield from _elements(text, at, "message")
    elif text[at : at + 1] == "{":
        lines = [line + "\n" for line in text.split("\n")]
        if len(lines) >= MIN_LINES and _is_object(lines[0]):
            yield from _line_cuts(lines)
        else:
            yield from _members(text, at)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _line_cuts(lines: list[str]) -> Iterator[_Cut]:
    end = 0
    for line in lines[:-1]:  # what follows the last line feed, if anything, is the rest
        end += len(line)
        try:
            kind, name = _described(json.loads(line), "message")
        except (ValueError, RecursionError):
            kind, name = "message", ""
        yield _Cut(end, kind, name)


def _members(text: str, at: int) -> Iterator[_Cut]:
    """Yield cuts behind each member of an object, and behind each element of those that are lists of sections."""
    at = _skip(text, at + 1)
    while text[at] == '"':
        key, at = _decoder.raw_decode(text, at)
        at = _skip(text, at)
        if text[at] != ":":
            raise ValueError("no object")
        at = _skip(text, at + 1)
        if key in LISTS and text[at] == "[":
            cut = None
            for cut in _elements(text, at, LISTS[key]):
                yield cut
            at = _decoder.raw_decode(text, at)[1] if cut is None else cut.end + 1
        else:
            at = _decoder.raw_decode(text, at)[1]
        at = _skip(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)
        yield _Cut(at, "system" if key in {"system", "instructions"} else "request", "")


def _elements(text: str, at: int, kind: str) -> Iterator[_Cut]:
    """Yield a cut behind each element of a list, its comma included."""
    at = _skip(text, at + 1)
    while text[at] != "]":
        value, at = _decoder.raw_decode(text, at)
        at = _skip(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)
        elif text[at] != "]":
            raise ValueError("no list")
        yield _Cut(at, *_described(value, kind))


def _described(value: Any, kind: str) -> tuple[str, str]:
    """Return kind and name of a message or definition, as far as it tells."""
    if not isinstance(value, dict):
        return kind, ""
    function = value.get("function")
    named = function if isinstance(function, dict) else value
    role, name = value.get("role") or value.get("type"), named.get("name")
    if kind == "message" and isinstance(role, str) and is_word(role) and role[0].isalpha() and len(role) <= 32:
        kind = role
    return kind, name[:MAX_NAME] if isinstance(name, str) else ""


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANKS:
        at += 1
    return at
