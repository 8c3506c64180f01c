"""What of a text stands in a base already: first by lines, then by finer and finer pieces of what is left.

The result is a list of parts. A part is either new bytes, or a place in the base. Places may come in any order, so text
that moved or was quoted is found as well. A place costs tokens itself, so short ones are not used.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import cached_property
from itertools import accumulate
from operator import add
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_INNER = 24
"""Bytes of the shortest place amid new text. To leave and go on costs about seven tokens, so many bytes of text."""

MIN_EDGE = 10
"""Bytes of the shortest place at an end of a text; that costs about three tokens."""

MIN_ELSEWHERE = 40
"""Bytes of the shortest place that is not ahead in the same section; to go there costs ten tokens."""

MAX_PLACES = 3
"""How many places of one piece are tried, the nearest ones further down; and one elsewhere."""

SEPARATORS = ((b",", 1), (b" ", 2))
"""Where text that lines do not explain is split, one after the other, and how many pieces in a row are searched for."""

MAX_BY_WORDS = 1_500
"""Bytes of the longest text that is compared word by word: a longer one that shares no line, and nothing between two
commas, is another text rather than another version."""

MAX_TIMES_AS_LONG = 4
"""A text that is so many times as long as the new one is no earlier version of it."""

MAX_WORD = 24
"""Bytes of the longest word that is not cut in two."""

MIN_START = 5
"""Bytes of the shortest piece with which a search begins; blank lines and brackets stand everywhere."""


_WORD = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") | frozenset(range(0x80, 0x100))


class Place(NamedTuple):
    """Bytes of a base's section, from `start` up to, not including, `end`."""

    section: int
    start: int
    end: int


Part = Place | bytes
"""A place in the base, or new bytes."""


class Base:
    """The contents of a base's sections, split into lines when that is first asked for.

    Args:
        contents: The content of each section.
    """

    def __init__(self, contents: Sequence[bytes]) -> None:
        self.contents = contents
        self._ends: dict[int, list[int]] = {}
        self._first_lines: list[int] = []

    def ends(self, section: int) -> list[int]:
        """Return where the lines of a section end, in bytes; the last one is its size unless it is empty."""
        found = self._ends.get(section)
        if found is None:
            found = list(accumulate(map(len, lines_of(self.contents[section]))))
            self._ends[section] = found
        return found

    def line_at(self, section: int, offset: int) -> int:
        """Return the number of the line, counted from 0, to which a byte belongs; the size belongs to the next one."""
        return bisect_right(self.ends(section), offset)

    def line_start(self, section: int, line: int) -> int:
        """Return where a line begins; the line after the last one begins at the end."""
        return self.ends(section)[line - 1] if line else 0

    @cached_property
    def lines(self) -> list[bytes | None]:
        """The lines of all sections, `None` after each section."""
        flat: list[bytes | None] = []
        for content in self.contents:
            self._first_lines.append(len(flat))
            flat += lines_of(content)
            flat.append(None)
        return flat

    def place(self, first: int, last: int) -> Place:
        """Return the place of some of `lines`, from `first` up to, not including, `last`; all of one section."""
        section = bisect_right(self._first_lines, first) - 1
        begin = self._first_lines[section]
        return Place(section, self.line_start(section, first - begin), self.line_start(section, last - begin))


def lines_of(content: bytes) -> list[bytes]:
    r"""Return the lines of a content with their ends: LF, CR LF or CR.

    >>> lines_of(b"a\nb\r\nc")
    [b'a\n', b'b\r\n', b'c']
    """
    return content.splitlines(keepends=True)


class Finder:
    """Finds the parts of texts in a base.

    Args:
        base: Where to look.
        targets: All texts that are going to be asked for; lines of others are not found.
    """

    def __init__(self, base: Base, targets: Sequence[bytes]) -> None:
        self._base = base
        wanted = {line for target in targets for line in lines_of(target) if len(line) >= MIN_START}
        self._places = _places(base.lines, wanted)

    def parts(self, target: bytes, pair: int | None) -> list[Part]:
        """Return the parts of a text.

        Args:
            target: The text.
            pair: The section of which it may be a new version, or `None`.
        """
        lines = lines_of(target)
        runs = _runs(lines, lines, self._base.lines, self._places)
        parts: list[Part] = []
        position = 0
        for run in (*runs, _Run(len(lines), 0, 0)):
            if run.target > position:
                parts.append(b"".join(lines[position : run.target]))
            if run.length:
                parts.append(self._base.place(run.base, run.base + run.length))
            position = run.target + run.length
        return self._grown(_joined(self._refined(parts, pair)))

    def _refined(self, parts: list[Part], pair: int | None) -> list[Part]:
        """Replace new text between two places by what is really new in it."""
        refined: list[Part] = []
        for number, part in enumerate(parts):
            if isinstance(part, Place):
                refined.append(part)
                continue
            gap = self._gap(parts, number, pair)
            refined += [part] if gap is None else self._finer(part, gap)
        return refined

    def _grown(self, parts: list[Part]) -> list[Part]:
        """Let each place take in what stands before it, where that is as in the target: it costs nothing."""
        for number in range(1, len(parts)):
            before, place = parts[number - 1], parts[number]
            if not isinstance(before, bytes) or not isinstance(place, Place):
                continue
            last = parts[number - 2] if number > 1 else None
            first = last.end if isinstance(last, Place) and last.section == place.section else 0
            lowest = max(0, place.start - len(before), first if first <= place.start else 0)
            size = common_end(self._base.contents[place.section][lowest : place.start], before)
            if size:
                parts[number - 1] = before[: len(before) - size]
                parts[number] = Place(place.section, place.start - size, place.end)
        return _joined(parts)

    def _gap(self, parts: list[Part], number: int, pair: int | None) -> Place | None:
        """Return what stands in the base where the new text stands in the target."""
        before = parts[number - 1] if number else None
        after = parts[number + 1] if number + 1 < len(parts) else None
        section, start, end = pair, 0, None
        if isinstance(before, Place):
            section, start = before.section, before.end
        if isinstance(after, Place):
            if before is None and section != after.section:
                section, start = after.section, 0
            if after.section == section:
                end = after.start
        if section is None:
            return None
        size = len(self._base.contents[section])
        end = size if end is None else end
        return Place(section, start, end) if start < end else None

    def _finer(self, target: bytes, gap: Place) -> list[Part]:
        old = self._base.contents[gap.section][gap.start : gap.end]
        similar = len(old) <= MAX_TIMES_AS_LONG * len(target) + MAX_BY_WORDS
        if similar and len(target) > MAX_BY_WORDS and len(old) == len(self._base.contents[gap.section]):
            similar = max(common_start(old, target), common_end(old, target)) >= MIN_EDGE
        found = _edits(old, target, SEPARATORS if similar else ())
        return [
            part if isinstance(part, bytes) else Place(gap.section, gap.start + part.start, gap.start + part.end)
            for part in found
        ]


class _Run(NamedTuple):
    """Pieces that stand in a row both in the target and in the base."""

    target: int
    base: int
    length: int


def _places(pieces: Sequence[bytes | None], wanted: set[bytes]) -> dict[bytes, list[int]]:
    found: dict[bytes, list[int]] = {}
    common = wanted.intersection(pieces) if wanted else wanted
    if common:
        for number, piece in enumerate(pieces):
            if piece in common and piece is not None:
                found.setdefault(piece, []).append(number)
    return found


def _runs(
    keys: Sequence[bytes],
    target: Sequence[bytes],
    base: Sequence[bytes | None],
    places: dict[bytes, list[int]],
) -> list[_Run]:
    """Return runs in the order of the target, without overlap there.

    Args:
        keys: By what each piece of the target is looked up.
        target: Pieces of the target.
        base: Pieces of the base.
        places: Where keys stand in the base.
    """
    runs: list[_Run] = []
    if not places:
        return runs
    position = free = expected = 0
    while position < len(keys):
        known = places.get(keys[position])
        if known is None:
            position += 1
            continue
        best = _Run(position, 0, 0)
        for there in _tried(known, expected):
            length = _length(target, position, base, there)
            if length > best.length:
                best = _Run(position, there, length)
        best = _backwards(target, base, best, free)
        size = sum(map(len, target[best.target : best.target + best.length]))
        if size >= (MIN_INNER if best.base >= expected else MIN_ELSEWHERE):
            runs.append(best)
            position = free = best.target + best.length
            expected = best.base + best.length
        else:
            position += 1
    return runs


def _tried(known: list[int], expected: int) -> list[int]:
    """Return the places that are tried: the nearest ones further down, then the first of all."""
    if len(known) <= MAX_PLACES:
        return known
    ahead = bisect_left(known, expected)
    return [*known[ahead : ahead + MAX_PLACES], known[0]]


def _length(target: Sequence[bytes], position: int, base: Sequence[bytes | None], there: int) -> int:
    start, last, end = position, len(target), len(base)
    while position < last and there < end and target[position] == base[there]:
        position, there = position + 1, there + 1
    return position - start


def _backwards(target: Sequence[bytes], base: Sequence[bytes | None], run: _Run, free: int) -> _Run:
    """Make a run longer at its beginning, over pieces with which no search begins."""
    first, there = run.target, run.base
    while first > free and there > 0 and target[first - 1] == base[there - 1]:
        first, there = first - 1, there - 1
    return _Run(first, there, run.length + run.target - first)


def _edits(base: bytes, target: bytes, separators: Sequence[tuple[bytes, int]]) -> list[Part]:
    """Return the parts of a text that replaces another, as places of section 0."""
    first = common_start(base, target)
    first = first if first >= MIN_EDGE or first == len(target) else 0
    last = min(common_end(base, target), len(base) - first, len(target) - first)
    last = last if last >= MIN_EDGE or last == len(target) - first else 0
    old, new = base[first : len(base) - last], target[first : len(target) - last]
    parts: list[Part] = [Place(0, 0, first)] if first else []
    if old and len(new) > MIN_INNER and separators:
        parts += _moved(_split_edits(old, new, separators), first)
    elif new:
        parts.append(new)
    if last:
        parts.append(Place(0, len(base) - last, len(base)))
    return parts


def _split_edits(base: bytes, target: bytes, separators: Sequence[tuple[bytes, int]]) -> list[Part]:
    (separator, width), *finer = separators
    if width > 1 and max(len(base), len(target)) > MAX_BY_WORDS:
        return [target]
    there, here = _split(base, separator), _split(target, separator)
    searched, keys = (there, here) if width == 1 else (_in_rows(there), _in_rows(here))
    runs = _runs(keys, here, there, _places(searched, {key for key in keys if len(key) >= MIN_START}))
    if not runs:
        return _edits(base, target, finer) if finer else [target]
    ends = [0, *accumulate(map(len, there))]
    parts: list[Part] = []
    position = past = 0
    for run in (*runs, _Run(len(here), len(there), 0)):
        new = b"".join(here[position : run.target])
        if new:
            old = base[ends[past] : ends[run.base]] if run.base > past else b""
            parts += _moved(_edits(old, new, finer), ends[past]) if old else [new]
        if run.length:
            parts.append(Place(0, ends[run.base], ends[run.base + run.length]))
        position, past = run.target + run.length, run.base + run.length
    return parts


def _in_rows(pieces: list[bytes]) -> list[bytes]:
    """Return each piece with the one after it: two words in a row say more than one."""
    return list(map(add, pieces, pieces[1:]))


def _moved(parts: list[Part], by: int) -> list[Part]:
    return [part if isinstance(part, bytes) else Place(part.section, part.start + by, part.end + by) for part in parts]


def _split(content: bytes, separator: bytes) -> list[bytes]:
    pieces = content.split(separator)
    last = pieces.pop()
    pieces = [piece + separator for piece in pieces]
    if last:
        pieces.append(last)
    return pieces


def _joined(parts: list[Part]) -> list[Part]:
    """Join neighbours that belong together, and drop empty ones."""
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, bytes):
            if isinstance(last, bytes):
                joined[-1] = last + part
            elif part:
                joined.append(part)
        elif isinstance(last, Place) and (last.section, last.end) == (part.section, part.start):
            joined[-1] = Place(part.section, last.start, part.end)
        elif part.start < part.end:
            joined.append(part)
    return joined


def common_start(one: bytes, other: bytes) -> int:
    """Return how many bytes two contents have in common at their beginning, whole words only.

    >>> common_start("so naïve".encode(), "so naîve".encode())
    3
    """
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    if low == len(one) == len(other):
        return low
    for back in range(min(low, MAX_WORD) + 1):
        at = low - back
        if not (_within_word(one, at) or _within_word(other, at)):
            return at
    return _character(one if low < len(one) else other, low, -1)


def common_end(one: bytes, other: bytes) -> int:
    """Return how many bytes two contents have in common at their end, whole words only.

    >>> common_end(b"it was here", b"this is here")
    5
    """
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[len(one) - middle : len(one) - low] == other[len(other) - middle : len(other) - low]:
            low = middle
        else:
            high = middle - 1
    if low == len(one) == len(other):
        return low
    for back in range(min(low, MAX_WORD) + 1):
        size = low - back
        if not (_within_word(one, len(one) - size) or _within_word(other, len(other) - size)):
            return size
    return len(one) - _character(one, len(one) - low, 1)


def _within_word(content: bytes, offset: int) -> bool:
    """Say whether the bytes before and behind an offset belong to one word or one UTF-8 character."""
    if not 0 < offset < len(content):
        return False
    before, behind = content[offset - 1], content[offset]
    return (before in _WORD and behind in _WORD) or behind & 0xC0 == 0x80


def _character(content: bytes, offset: int, step: int) -> int:
    """Return the nearest beginning of a character; in bytes that are not UTF-8 any offset near by will do."""
    for _ in range(3):
        if not 0 < offset < len(content) or content[offset] & 0xC0 != 0x80:
            break
        offset += step
    return offset
