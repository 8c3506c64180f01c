"""Lines that stand somewhere already: further up in the same text, or in what the receiver holds.

    [repeats: behind @, a line (x times again) or lines to be read again, counted from 1, here or in the message named]
    @=#12:3-40
    a line
    @x5

A reference points to lines that stand literally where it says, never to another reference. `@=3-9` are lines of this
text itself, as restored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from apportion.compression.strategies.lossless import LosslessStrategy, free_mark, split_form

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apportion.compression.strategies.types import Held, Item, Query

MAX_PLACES = 6
"""How many places of one line are tried, of those that stand longest."""

MIN_CHARS = 40
"""A block with fewer characters, line ends included, is as short as the reference to it."""

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
    """

    def __init__(self, *, within: bool = True) -> None:
        self.within = within

    name = "repeats"

    def encode(self, text: str, item: Item, query: Query) -> str | None:  # noqa: ARG002  (lines decide)
        """Return the text with references, or `None` where nothing repeats."""
        lines = text.split("\n")
        mark = free_mark(text)
        if mark is None or (not item.held and (not self.within or len(lines) < 3)):
            return None
        finder = _Finder(lines, [_lines_of(held) for held in item.held], within=self.within)
        parts, position, changed = [], 0, False
        while position < len(lines):
            run = finder.run(position) if self.within else 1
            place, length = finder.longest(position)
            if run > 1 and run >= length:
                finder.add(position)
                parts += (lines[position], f"{mark}x{run - 1}")
                position += run
            elif length:
                parts.append(mark + "=" + _spell(place, length, item.held))
                position += length
            else:
                finder.add(position)
                parts.append(lines[position])
                position += 1
                continue
            changed = True
        return f"[repeats: {mark}= {_HINT} {mark}x]\n" + "\n".join(parts) if changed else None

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
                label, first, last = _read(line[len(mark) + 1 :])
                if label and label not in cache:
                    cache[label] = _lines_of(sources[label])
                lines += (cache[label] if label else lines)[first - 1 : last]
            else:
                lines.append(line)
        return "\n".join(lines)


_HINT = "repeats lines of the message named, or of this text; so many times again:"


def _lines_of(held: Held) -> list[str]:
    return held.content.decode("utf-8", "replace").split("\n")


def _spell(place: _Place, length: int, held: Sequence[Held]) -> str:
    label = "" if place.source < 0 else f"{held[place.source].label}:"
    first = place.line + 1
    return f"{label}{first}" if length == 1 else f"{label}{first}-{first + length - 1}"


def _read(reference: str) -> tuple[str, int, int]:
    label, _, span = reference.rpartition(":")
    first, _, last = span.partition("-")
    return label, int(first), int(last or first)


class _Finder:
    """Finds where lines stand already.

    Args:
        lines: The text.
        sources: What the receiver holds.
        within: Whether lines of the text that have been added count as well.
    """

    def __init__(self, lines: Sequence[str], sources: Sequence[Sequence[str]], *, within: bool) -> None:
        self._lines = lines
        self._sources = sources
        self._within = within
        self._literal = [False] * len(lines)
        self._places: dict[str, list[_Place]] = {}
        wanted = set(lines) if sources else set()
        for source, held in enumerate(sources):
            for number, line in enumerate(held):
                if line in wanted and line:
                    self._note(line, _Place(source, number))

    def add(self, position: int) -> None:
        """Take note that a line of the text itself stands literally."""
        self._literal[position] = True
        if self._within and self._lines[position]:
            self._note(self._lines[position], _Place(-1, position))

    def run(self, position: int) -> int:
        """Return how many equal lines stand in a row, or 1 where a count would not be shorter."""
        lines, end = self._lines, position + 1
        while end < len(lines) and lines[end] == lines[position]:
            end += 1
        run = end - position
        return run if run > MIN_REPEATS or (run - 1) * (len(lines[position]) + 1) >= MIN_CHARS else 1

    def longest(self, position: int) -> tuple[_Place, int]:
        """Return where the longest block from a position on stands, and its length; 0 where that does not pay."""
        best, length = _Place(-1, 0), 0
        for place in self._places.get(self._lines[position], ()):
            found = self._match(position, place)
            if found > length:
                best, length = place, found
        chars = sum(len(line) + 1 for line in self._lines[position : position + length])
        return (best, length) if chars >= MIN_CHARS else (best, 0)

    def _match(self, position: int, place: _Place) -> int:
        lines, own = self._lines, place.source < 0
        other = lines if own else self._sources[place.source]
        limit = min(len(lines), position + len(other) - place.line)
        end, there = position, place.line
        while end < limit and lines[end] == other[there] and not (own and not self._literal[there]):
            end, there = end + 1, there + 1
        return end - position

    def _note(self, line: str, place: _Place) -> None:
        places = self._places.setdefault(line, [])
        if len(places) < MAX_PLACES:
            places.append(place)
