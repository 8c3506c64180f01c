r"""Lines that the receiver holds already, whatever numbers stand before them: sent as where they stand.

    [held: @n=message:lines, numbered from n on as '%6d→']
    @1=#12:1-40
        41→    return parse(line)
    @42=#12:42-97

Tools show a file with a number before each line, and show it again after an edit: then most of it stands in the prompt
already, behind other numbers. It also stands in the call that wrote the file, behind none. `@42=#12:42-97` are lines 42
to 97 of what the receiver knows as #12, counted from 1, numbered anew from 42 on; `@-=#12:3-9` are these lines without
their numbers, and `@=#12:3-9` the lines as they stand. Every reference points to lines that stand literally where it
says. What was edited since stands there in full, between references to what was not: of a file that is read again, that
is what changed.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

from apportion.compression.strategies.lossless import LosslessStrategy, free_mark, split_form

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from apportion.compression.strategies.types import Held, Item, Query

MAX_DIGITS = 7
"""A longer run of digits at the beginning of a line is no line number."""

MAX_PLACES = 6
"""How many places of one line are tried, of those that stand first."""

MAX_TEXTS = 512
"""Texts whose lines are remembered."""

MIN_CHARS = 40
"""A block with fewer characters, line ends included, is as short as the reference to it."""

MIN_BODY = 4
"""Characters behind its number of the line with which a block begins."""

BEHIND_NUMBER = frozenset("→\t|: ")
"""What tools write behind a line number; a blank is what `white_space` leaves of it."""

BEFORE_BLANK = frozenset("|:")
"""Behind which of these a blank still belongs to the number."""


class Style(NamedTuple):
    """How a tool writes line numbers: least width, what fills it, and what follows."""

    width: int
    pad: str
    behind: str

    def spell(self, number: int) -> str:
        """Return what stands before a line of that number."""
        return str(number).rjust(self.width, self.pad) + self.behind

    def __str__(self) -> str:
        width = f"{'0' if self.pad == '0' else ''}{self.width}" if self.width else ""
        return f"%{width}d" + self.behind.replace("\t", "\\t")

    @classmethod
    def read(cls, spelled: str) -> Style:
        """Return the style of which `str` made a text.

        >>> Style.read("%05d| ")
        Style(width=5, pad='0', behind='| ')
        """
        width, _, behind = spelled.removeprefix("%").partition("d")
        pad = "0" if width.startswith("0") else " "
        return cls(int(width or 0), pad, behind.replace("\\t", "\t"))


class Numbered(NamedTuple):
    """A line that begins with its number."""

    number: int
    style: Style
    body: str

    @classmethod
    def read(cls, line: str) -> Numbered | None:
        r"""Return the parts of a line, or `None` where it has no number.

        >>> Numbered.read("    12→import os")
        Numbered(number=12, style=Style(width=6, pad=' ', behind='→'), body='import os')
        """
        end, start = _split(line)
        if not start:
            return None
        number = line[:end]
        padded = number[0] in " 0"
        style = Style(end if padded else 0, "0" if number[0] == "0" else " ", line[end:start])
        return cls(int(number), style, line[start:])


def _split(line: str) -> tuple[int, int]:
    """Return where the number ends with which a line begins, and where its text does; zeros where it has no number."""
    bare = line.lstrip(" ")
    behind = bare.lstrip("0123456789")
    digits = len(bare) - len(behind)
    if not 0 < digits <= MAX_DIGITS or (bare[0] == "0" and len(bare) < len(line)):  # nobody writes blanks before a zero
        return 0, 0
    end, first = len(line) - len(behind), behind[:1]
    if first not in BEHIND_NUMBER:
        return 0, 0
    return end, end + 1 + (first in BEFORE_BLANK and behind[1:2] == " ")


def body_of(line: str) -> str:
    """Return what stands behind the number of a line; all of it where it has none."""
    return line[_split(line)[1] :]


class Lines:
    """The lines of a text.

    Attributes:
        lines: The text, line by line.
        bodies: What stands behind their numbers.
    """

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.bodies = list(map(body_of, self.lines))

    @cached_property
    def places(self) -> Mapping[str, Sequence[int]]:
        """Where what stands behind a number stands: the first lines of it."""
        places: dict[str, list[int]] = {}
        for number, body in enumerate(self.bodies):
            known = places.setdefault(body, [])
            if len(known) < MAX_PLACES:
                known.append(number)
        return places


@lru_cache(maxsize=MAX_TEXTS)
def lines_of(text: str) -> Lines:
    """Return the lines of a text; of texts that were looked at lately they are known.

    Whoever has time before a text is needed asks for them then: a result is looked at when it arrives, when it is sent,
    and with each later message that may refer to it.
    """
    return Lines(text)


def _held(held: Held) -> Lines:
    return lines_of(held.content.decode("utf-8", "replace"))


class _Match(NamedTuple):
    """A block of lines that stands in a held content: from which line, how many, how numbered."""

    source: int
    line: int
    length: int
    chars: int
    number: str


_NO_MATCH = _Match(-1, 0, 0, 0, "")


class HeldLines(LosslessStrategy):
    """Replaces blocks of lines by references to where they stand in what the receiver holds, numbered or not."""

    name = "held_lines"

    def encode(self, text: str, item: Item, query: Query) -> str | None:  # noqa: ARG002  (lines decide)
        """Return the text with references, or `None` where nothing of it is held."""
        mark = free_mark(text)
        if mark is None or not item.held:
            return None
        finder = _Finder(lines_of(text), list(map(_held, item.held)))
        parts: list[str] = []
        position, changed = 0, False
        while position < len(finder.lines):
            match = finder.longest(position)
            if match.length:
                span = f"{match.line + 1}" if match.length == 1 else f"{match.line + 1}-{match.line + match.length}"
                parts.append(f"{mark}{match.number}={item.held[match.source].label}:{span}")
                changed = True
            else:
                parts.append(finder.lines[position])
            position += max(1, match.length)
        if not changed:
            return None
        rule = f"n=message:lines, numbered from n on as '{finder.style}'" if finder.style else "=message:lines"
        bare = f", {mark}- without numbers" if any(part.startswith(f"{mark}-=") for part in parts) else ""
        return f"[held: {mark}{rule}{bare}]\n" + "\n".join(parts)

    def decode(self, form: str, held: Sequence[Held]) -> str:
        """Return the lines, each reference replaced by what it points to."""
        head, body = split_form(form, "held:")
        mark = head[0]
        _, numbered, spelled = head.removesuffix(f", {mark}- without numbers").partition("numbered from n on as ")
        style = Style.read(spelled.strip("'")) if numbered else None
        sources = {each.label: each for each in held}
        lines: list[str] = []
        for line in body.split("\n"):
            if line.startswith(mark):
                number, _, place = line[len(mark) :].partition("=")
                label, _, span = place.rpartition(":")
                first, _, last = span.partition("-")
                index = _held(sources[label])
                block = slice(int(first) - 1, int(last or first))
                if number == "-":
                    lines += index.bodies[block]
                elif number and style is not None:
                    lines += [style.spell(int(number) + n) + each for n, each in enumerate(index.bodies[block])]
                else:
                    lines += index.lines[block]
            else:
                lines.append(line)
        return "\n".join(lines)


class _Finder:
    """Finds where lines are held.

    Attributes:
        lines: The text.
        style: How lines are numbered that are numbered anew; `None` as long as there are none.
    """

    def __init__(self, text: Lines, sources: Sequence[Lines]) -> None:
        self.lines = text.lines
        self.style: Style | None = None
        self._bodies = text.bodies
        self._sources = sources

    def longest(self, position: int) -> _Match:
        """Return the longest block from a position on that is held; of length 0 where that does not pay."""
        body = self._bodies[position]
        if len(body) < MIN_BODY:
            return _NO_MATCH
        best = max(self._matches(position, body), key=lambda match: match.chars, default=_NO_MATCH)
        if best.chars < MIN_CHARS:
            return _NO_MATCH
        if self.style is None and best.number.isdecimal():
            numbered = Numbered.read(self.lines[position])
            self.style = None if numbered is None else numbered.style
        return best

    def _matches(self, position: int, body: str) -> Iterator[_Match]:
        places = [
            (source, index, there) for source, index in enumerate(self._sources) for there in index.places.get(body, ())
        ]
        numbered = Numbered.read(self.lines[position]) if places else None
        for source, index, there in places:
            if self.lines[position] == index.lines[there]:
                yield self._match(position, source, there, index.lines, "")
            if numbered is None:
                yield self._match(position, source, there, index.bodies, "-")
            elif self.style in {None, numbered.style} or self._spells(position, numbered):
                yield self._renumbered(position, numbered, source, there, index.bodies)

    def _spells(self, position: int, numbered: Numbered) -> bool:
        return self.style is not None and self.lines[position] == self.style.spell(numbered.number) + numbered.body

    def _match(self, position: int, source: int, there: int, held: Sequence[str], number: str) -> _Match:
        """Return the block of lines that stand there just so."""
        lines, start, first, chars = self.lines, position, there, 0
        while position < len(lines) and there < len(held) and lines[position] == held[there]:
            chars += len(lines[position]) + 1
            position, there = position + 1, there + 1
        return _Match(source, first, position - start, chars, number)

    def _renumbered(self, position: int, begins: Numbered, source: int, there: int, held: Sequence[str]) -> _Match:
        """Return the block of lines that stand there behind any numbers, and are numbered one by one here."""
        style, first, start, chars = self.style or begins.style, there, position, 0
        while position < len(self.lines) and there < len(held):
            line = self.lines[position]
            if line != style.spell(begins.number + position - start) + held[there]:
                break
            chars += len(line) + 1
            position, there = position + 1, there + 1
        return _Match(source, first, position - start, chars, str(begins.number))
