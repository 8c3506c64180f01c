"""Lines that stand somewhere already: further up in the same text, or in what the receiver holds.

    [repeats: @=message:lines, @x times]
    @=#12:3-40
    a line
    @x5

`@=#12:3-40` are lines 3 to 40 of what the receiver knows as #12, counted from 1; `@=3-9` are lines of this text itself,
as restored; `@x5` is the line above, five times more. A reference points to lines that stand literally where it says,
never to another reference. Where lines begin with their number, as tools show files, `@=#12:3-40 +2` are the same
lines with numbers higher by 2, if that is asked for: an edit further up moves what it does not change.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from apportion.compression.strategies.lossless import LosslessStrategy, free_mark, split_form

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apportion.compression.strategies.types import Held, Item, Query

MAX_PLACES = 6
"""How many places of one line are tried, of those that stand longest."""

MAX_INDEXES = 512
"""Held contents whose lines are remembered."""

MIN_CHARS = 40
"""A block with fewer characters, line ends included, is as short as the reference to it."""

MAX_DIGITS = 7
"""A longer run of digits at the beginning of a line is no line number."""

_BEHIND_NUMBER = ("→", "\t", ":", "|", "-")

MIN_MOVED_CHARS = 4
"""Shorter numbered lines, a number and a bracket, are no beginning of a moved block."""

MIN_REPEATS = 3
"""So many equal lines in a row are written as one and a count; fewer only where they are long."""


class _Place(NamedTuple):
    """A line that stands literally: in which held content, or -1 for this text, and its index there."""

    source: int
    line: int


class Repeats(LosslessStrategy):
    """Replaces blocks of lines by references to where they stand word for word.

    Args:
        within: Whether the text's own lines may be referred to as well as held contents.
        moved: Whether blocks whose line numbers all differ by the same may be referred to; their new numbers then
            follow from the reference and are no longer written out.
    """

    def __init__(self, *, within: bool = True, moved: bool = False) -> None:
        self.within = within
        self.moved = moved

    name = "repeats"

    def encode(self, text: str, item: Item, query: Query) -> str | None:  # noqa: ARG002  (lines decide)
        """Return the text with references, or `None` where nothing repeats."""
        lines = text.split("\n")
        mark = free_mark(text)
        if mark is None or (not item.held and (not self.within or len(lines) < 3)):
            return None
        finder = _Finder(lines, [_index_of(held.content) for held in item.held], within=self.within, moved=self.moved)
        parts: list[str] = []
        position, changed = 0, False
        while position < len(lines):
            run = finder.run(position) if self.within else 1
            match = finder.longest(position)
            if run > 1 and run >= match.length:
                finder.add(position)
                parts += (lines[position], f"{mark}x{run - 1}")
                position += run
            elif match.length:
                parts.append(mark + "=" + _spell(match, item.held))
                position += match.length
            else:
                finder.add(position)
                parts.append(lines[position])
                position += 1
                continue
            changed = True
        return f"[repeats: {mark}=message:lines, {mark}x times]\n" + "\n".join(parts) if changed else None

    def decode(self, form: str, held: Sequence[Held]) -> str:
        """Return the lines, each reference replaced by what it points to."""
        head, body = split_form(form, "repeats:")
        mark = head.partition("=")[0]
        sources = {each.label: each for each in held}
        cache: dict[str, list[str]] = {}
        lines: list[str] = []
        for line in body.split("\n"):
            if line.startswith(mark + "x"):
                lines += [lines[-1]] * int(line[len(mark) + 1 :])
            elif line.startswith(mark + "="):
                label, first, last, by = _read(line[len(mark) + 1 :])
                if label and label not in cache:
                    cache[label] = _index_of(sources[label].content).lines
                lines += [_shifted(each, by) for each in (cache[label] if label else lines)[first - 1 : last]]
            else:
                lines.append(line)
        return "\n".join(lines)


class _Match(NamedTuple):
    """A block of lines that stands elsewhere, its numbers lower by `by`."""

    place: _Place
    length: int
    by: int = 0


_NO_MATCH = _Match(_Place(-1, 0), 0)


def _spell(match: _Match, held: Sequence[Held]) -> str:
    label = "" if match.place.source < 0 else f"{held[match.place.source].label}:"
    first = match.place.line + 1
    span = f"{label}{first}" if match.length == 1 else f"{label}{first}-{first + match.length - 1}"
    return f"{span} {match.by:+d}" if match.by else span


def _read(reference: str) -> tuple[str, int, int, int]:
    place, _, by = reference.partition(" ")
    label, _, span = place.rpartition(":")
    first, _, last = span.partition("-")
    return label, int(first), int(last or first), int(by or 0)


class _Numbered(NamedTuple):
    """A line that begins with its number."""

    number: int
    text: str

    @classmethod
    def read(cls, line: str) -> _Numbered | None:
        end = 0
        while end < MAX_DIGITS and end < len(line) and line[end] in "0123456789":
            end += 1
        numbered = end and line[0] != "0" and line[end : end + 1] in _BEHIND_NUMBER and line[end : end + 1]
        return cls(int(line[:end]), line[end:]) if numbered else None


def _shifted(line: str, by: int) -> str:
    """Return a line with another number in front; a line without one stays."""
    numbered = _Numbered.read(line) if by else None
    return f"{numbered.number + by}{numbered.text}" if numbered else line


class _Index:
    """The lines of a content and where each stands, also by what stands behind its number.

    Args:
        content: The content; bytes that are not UTF-8 match nothing.
    """

    def __init__(self, content: bytes) -> None:
        self.lines = content.decode("utf-8", "replace").split("\n")
        self.places: dict[str, list[int]] = {}
        self.numbered: dict[str, list[int]] = {}
        for number, line in enumerate(self.lines):
            _note(self.places, line, number)
            numbered = _Numbered.read(line)
            if numbered and len(numbered.text) >= MIN_MOVED_CHARS:
                _note(self.numbered, numbered.text, number)


@lru_cache(maxsize=MAX_INDEXES)
def _index_of(content: bytes) -> _Index:
    """Return the index of a held content; it is asked for again with each message."""
    return _Index(content)


def _note(places: dict[str, list[int]], line: str, number: int) -> None:
    known = places.setdefault(line, [])
    if len(known) < MAX_PLACES:
        known.append(number)


class _Finder:
    """Finds where lines stand already.

    Args:
        lines: The text.
        sources: What the receiver holds.
        within: Whether lines of the text that have been added count as well.
        moved: Whether lines with other numbers count as well.
    """

    def __init__(self, lines: Sequence[str], sources: Sequence[_Index], *, within: bool, moved: bool) -> None:
        self._moved = moved
        self._lines = lines
        self._sources = sources
        self._within = within
        self._literal = [False] * len(lines)
        self._own: dict[str, list[int]] = {}

    def add(self, position: int) -> None:
        """Take note that a line of the text itself stands literally."""
        self._literal[position] = True
        if self._within:
            _note(self._own, self._lines[position], position)

    def run(self, position: int) -> int:
        """Return how many equal lines stand in a row, or 1 where a count would not be shorter."""
        lines, end = self._lines, position + 1
        while end < len(lines) and lines[end] == lines[position]:
            end += 1
        run = end - position
        return run if run > MIN_REPEATS or (run - 1) * (len(lines[position]) + 1) >= MIN_CHARS else 1

    def longest(self, position: int) -> _Match:
        """Return the longest block from a position on that stands elsewhere; of length 0 where that does not pay."""
        line = self._lines[position]
        best = _NO_MATCH
        for match in self._matches(position, line) if line else ():
            best = match if match.length > best.length else best
        chars = sum(len(line) + 1 for line in self._lines[position : position + best.length])
        return best if chars >= MIN_CHARS else _NO_MATCH

    def _matches(self, position: int, line: str) -> Iterator[_Match]:
        for there in self._own.get(line, ()):
            yield _Match(_Place(-1, there), self._own_length(position, there))
        numbered = _Numbered.read(line) if self._moved else None
        for source, index in enumerate(self._sources):
            for there in index.places.get(line, ()):
                yield _Match(_Place(source, there), self._length(position, index.lines, there, 0))
            for there in index.numbered.get(numbered.text, ()) if numbered else ():
                other = _Numbered.read(index.lines[there])
                by = numbered.number - other.number if numbered and other else 0
                if by:
                    yield _Match(_Place(source, there), self._length(position, index.lines, there, by), by)

    def _own_length(self, position: int, there: int) -> int:
        lines, start = self._lines, position
        while position < len(lines) and self._literal[there] and lines[position] == lines[there]:
            position, there = position + 1, there + 1
        return position - start

    def _length(self, position: int, other: Sequence[str], there: int, by: int) -> int:
        lines, start = self._lines, position
        while position < len(lines) and there < len(other):
            if lines[position] != (_shifted(other[there], by) if by else other[there]):
                break
            position, there = position + 1, there + 1
        return position - start
