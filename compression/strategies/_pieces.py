"""What a selection chooses among: sentences of prose, lines of all else, with the passages and headings they belong to.

Pieces follow each other without a gap, so any choice of them is a choice of bytes. A heading, a title, or the name of a
speaker is a piece of its own; the pieces below it know it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import re2

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_PIECE_CHARS = 600
"""A longer run without a full stop is cut at a comma or blank, or else anywhere."""

CUT_CHARS = 400
"""Where about a run that is too long is cut."""

MAX_TITLE_CHARS = 100
"""A longer line is no title."""

MAX_SPEAKER_CHARS = 40
"""A longer beginning of a line is no name of a speaker."""

MAX_PASSAGE_PIECES = 40
"""A passage without blank lines, such as a log, is looked at in parts of this length."""

MAX_HEADS = 6
"""Nesting of headings that is followed."""

_END = r"[.!?…]+[\"')\]»”’]*[ \t]+|[。！？｡]+[\"」』）”’]*[ \t]*|[।॥؟۔]+[ \t]+"
_ABBREVIATIONS = frozenset(
    {
        "mr", "mrs", "ms", "dr", "st", "prof", "sr", "jr", "vs", "etc", "no", "fig", "inc", "ltd", "co", "corp",
        "gen", "col", "lt", "sgt", "capt", "rev", "hon", "mt", "e.g", "i.e", "cf", "al", "ca", "approx",
    }
)  # fmt: skip


_ROLES = frozenset({"user", "assistant", "system", "tool", "human"})


class Piece(NamedTuple):
    """A part of a content that is kept or left out as a whole.

    Attributes:
        text: What stands there; bytes that are not UTF-8 do not occur.
        size: Its length in bytes.
        passage: Number of the passage to which it belongs.
        head: Number of the piece that is its heading, title or speaker, or `None`.
        is_head: Whether it is such a piece itself.
    """

    text: str
    size: int
    passage: int
    head: int | None
    is_head: bool


def pieces_of(text: str) -> list[Piece]:
    """Cut a text into pieces; joined, they are the text."""
    lines = _with_blank_lines(text)
    found: list[Piece] = []
    headings: list[tuple[int, int]] = []  # level and number of the headings that are open
    passage, in_passage, title, closed = 0, 0, None, False
    for number, line in enumerate(lines):
        if closed:
            passage, in_passage, title = passage + (in_passage > 0), 0, None
        closed = line.count("\n") > 1  # blank lines follow
        if in_passage >= MAX_PASSAGE_PIECES:
            passage, in_passage = passage + 1, 0
        level = _heading_level(line)
        if level:
            while headings and headings[-1][0] >= level:
                headings.pop()
            above = headings[-1][1] if headings else None
            passage, in_passage, title = passage + (in_passage > 0), 1, None
            headings = [*headings[-MAX_HEADS + 1 :], (level, len(found))]
            found.append(Piece(line, len(line.encode()), passage, above, is_head=True))
            continue
        below = title if title is not None else headings[-1][1] if headings else None
        if in_passage == 0 and _is_title(line, lines[number + 1] if number + 1 < len(lines) and not closed else ""):
            title = len(found)
            found.append(Piece(line, len(line.encode()), passage, below, is_head=True))
            in_passage += 1
            continue
        parts = list(_sentences(line))
        speaker = _speaker(line) if len(parts) > 1 else 0
        if speaker:
            found.append(Piece(line[:speaker], len(line[:speaker].encode()), passage, below, is_head=True))
            below, parts = len(found) - 1, list(_sentences(line[speaker:]))
        found += [Piece(part, len(part.encode()), passage, below, is_head=False) for part in parts]
        in_passage += len(parts)
    return found


def heads_of(pieces: Sequence[Piece], number: int) -> Iterator[int]:
    """Yield the headings above a piece, the nearest one first."""
    head = pieces[number].head
    for _ in range(MAX_HEADS):
        if head is None:
            return
        yield head
        head = pieces[head].head


def _with_blank_lines(text: str) -> list[str]:
    """Split after each line feed; blank lines go with the line before them, those at the beginning with the first."""
    found: list[str] = []
    parts: list[str] = []
    filled = False
    for line in _lines(text):
        if line.strip():
            if filled:
                found.append("".join(parts))
                parts = []
            filled = True
        parts.append(line)
    if parts:
        found.append("".join(parts))
    return found


def _lines(text: str) -> list[str]:
    lines = [line + "\n" for line in text.split("\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


def _heading_level(line: str) -> int:
    """Return the level of a Markdown heading, or 0."""
    level = len(line) - len(line.lstrip("#"))
    return level if 1 <= level <= 6 and line[level : level + 1] == " " and len(line) <= 2 * MAX_TITLE_CHARS else 0


def _is_title(line: str, below: str) -> bool:
    """Say whether a line at the beginning of a passage names what stands below it."""
    said = line.strip()
    if not said or len(said) > MAX_TITLE_CHARS or said[-1] in ".!?,;{[(\\。！？" or not any(map(str.isalpha, said)):
        return False
    return len(below.strip()) > 1.5 * len(said) or said.endswith(":")


def _speaker(line: str) -> int:
    """Return where the name of a speaker ends, colon and blank included, or 0."""
    colon = line.find(": ", 1, MAX_SPEAKER_CHARS)
    name = line[: max(0, colon)].strip(" *[]()>-")
    if not name or len(name.split()) > 5:
        return 0
    return colon + 2 if name.istitle() or name.isupper() or name.lower() in _ROLES else 0


def _sentences(line: str) -> Iterator[str]:
    """Cut a line after each sentence, and what is still too long where it hurts least."""
    data = line.encode()
    start = 0
    for match in _end_pattern().finditer(data):
        end = match.end()
        if end < len(data) and _ends_sentence(data, match.start(), end, start):
            yield from _short_parts(data[start:end].decode())
            start = end
    yield from _short_parts(data[start:].decode())


def _ends_sentence(data: bytes, mark: int, end: int, start: int) -> bool:
    if data[mark] >= 0x80:
        return True
    behind = data[end : end + 4].decode("utf-8", "ignore")[:1]
    if not behind.strip() or behind.islower():
        return False
    word = data[max(start, mark - 12) : mark].rpartition(b" ")[2].lower().decode("utf-8", "ignore").lstrip("(\"'[")
    if data[mark : mark + 1] != b".":
        return True
    return word not in _ABBREVIATIONS and not all(len(part) == 1 and part.isalpha() for part in word.split("."))


def _short_parts(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > MAX_PIECE_CHARS:
        end = start + CUT_CHARS
        for mark in (", ", "; ", ",", " "):
            found = text.rfind(mark, start + CUT_CHARS // 2, end)
            if found > 0:
                end = found + len(mark)
                break
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


@cache
def _end_pattern() -> Any:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(_END.encode(), options)
