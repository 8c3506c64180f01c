"""The text form of a delta: short enough to save tokens, plain enough that a model can read what is new.

    =1-14                            sections 1 to 14 of the base, as they are
    +tool_result:read 812            a new section of 812 bytes; they follow, and a line feed
    ~15 =40-3"print()...             a section built of parts, reading at the beginning of the base's section 15
    {16 , 2                          a new state of JSON section 16: two lines, each a path and its new value

What is not named is left out; sections that moved are named where they now are. The parts of a `~` section are

    =N  copy N lines         -N  pass over N lines
    .N  copy N bytes         !N  pass over N bytes; behind new bytes N alone
    @S:L  go on reading at line L of section S of the base
    'new text     up to the line feed, which does not belong to it
    "a new line   up to the line feed, which does
    +N            N new bytes follow, behind a blank

A line goes up to its end (LF, CR LF or CR), wherever in it one is. Sections and lines are counted from 1. Every number
is checked against what is there, and what is built against the size that was announced.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from apportion.compression.diff.json_edits import apply_edits, is_style
from apportion.compression.diff.text_edits import Base, Place
from apportion.compression.diff.types import MAX_NAME, Context, Reason, Section, is_word
from apportion.errors import DeltaError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apportion.compression.diff.json_edits import JsonEdits
    from apportion.compression.diff.text_edits import Part

MAX_DIGITS = 12
"""Digits of the largest number; more is no number of ours."""

MAX_SECTIONS = 1_000_000
"""Sections of the largest context that is rebuilt: an empty one costs memory too."""

MAX_HEAD = 12 * MAX_NAME + 200
"""Bytes of the longest first line of a section, its name escaped."""

_DIGITS: Final = frozenset(b"0123456789")
_NEW: Final = frozenset({b"+", b"'", b'"'})
_decoder: Final = json.JSONDecoder()


def write_kept(first: int, last: int) -> bytes:
    """Return the line that keeps the base's sections from `first` up to, not including, `last`, counted from 0."""
    return b"=%d\n" % last if last == first + 1 else b"=%d-%d\n" % (first + 1, last)


def write_new(section: Section) -> bytes:
    """Return a new section."""
    return b"+%b %d\n%b\n" % (_head(section), len(section.content), section.content)


def write_whole(context: Context) -> bytes:
    """Return a context as a delta against the empty one."""
    return b"".join(map(write_new, context.sections))


def write_built(section: Section, parts: Sequence[Part], base: Base, old: Sequence[Section]) -> bytes:
    """Return a section that is built of parts.

    Args:
        section: The section.
        parts: What its content consists of; at least one place.
        base: The contents of the base.
        old: The sections of the base.
    """
    at = next(part.section for part in parts if isinstance(part, Place))
    writer = _Writer(base, at)
    for part in parts:
        writer.add(part)
    return b"~%d%b %b\n" % (at + 1, _changed_head(section, old[at]), b"".join(writer.ops))


def write_json(section: Section, edits: JsonEdits, at: int, old: Section) -> bytes:
    """Return a JSON section as edits of the base's section `at`, counted from 0."""
    lines = b"".join(line + b"\n" for line in edits.lines)
    head = _changed_head(section, old)
    return b"{%d%b %b %d\n%b" % (at + 1, head, edits.style.encode(), len(edits.lines), lines)


def rebuild(delta: bytes, base: Context, *, max_bytes: int) -> Context:
    """Return the context that a delta gives.

    Args:
        delta: The text form.
        base: What it is against.
        max_bytes: Bytes of all contents of the result; a delta that gives more is refused as soon as that shows.

    Raises:
        DeltaError: The delta is damaged, or its result too large.
    """
    return _Reader(delta, base, max_bytes).read()


def _head(section: Section) -> bytes:
    if not section.name:
        return section.kind.encode()
    name = section.name if is_word(section.name) else json.dumps(section.name)
    return f"{section.kind}:{name}".encode()


def _changed_head(section: Section, old: Section) -> bytes:
    same = (section.kind, section.name) == (old.kind, old.name)
    return b"" if same else b" " + _head(section)


def _new_bytes(part: bytes) -> bytes:
    """Write new bytes; where they are one line or less, their length need not be told."""
    feed = part.find(b"\n")
    if feed < 0:
        return b"'%b\n" % part
    return b'"' + part if feed == len(part) - 1 else b"+%d %b" % (len(part), part)


class _Writer:
    """Writes parts as operations, from where the last one ended.

    Args:
        base: The contents of the base.
        section: Where reading begins.
    """

    def __init__(self, base: Base, section: int) -> None:
        self.ops: list[bytes] = []
        self._base = base
        self._section = section
        self._offset = 0

    def add(self, part: Part) -> None:
        """Write one part."""
        if isinstance(part, bytes):
            self.ops.append(_new_bytes(part))
            return
        if part.section != self._section or part.start < self._offset:
            line = self._base.line_at(part.section, part.start)
            self.ops.append(b"@%d:%d" % (part.section + 1, line + 1))
            self._section, self._offset = part.section, self._base.line_start(part.section, line)
        self._move(part.start, b"-", b"!")
        self._move(part.end, b"=", b".")

    def _move(self, offset: int, by_lines: bytes, by_bytes: bytes) -> None:
        """Go to an offset further down: whole lines first, and the rest in bytes."""
        if offset == self._offset:
            return
        here, there = (self._base.line_at(self._section, each) for each in (self._offset, offset))
        if there > here:
            self.ops.append(b"%b%d" % (by_lines, there - here))
            self._offset = self._base.line_start(self._section, there)
        if offset > self._offset:
            passed = by_bytes == b"!" and bool(self.ops) and self.ops[-1][:1] in _NEW
            self.ops.append(b"%b%d" % (b"" if passed else by_bytes, offset - self._offset))
            self._offset = offset


class _Reader:
    """Reads a delta, once, from its beginning to its end."""

    def __init__(self, delta: bytes, base: Context, max_bytes: int) -> None:
        self._delta = delta
        self._sections = base.sections
        self._base = Base([section.content for section in base.sections])
        self._at = 0
        self._left = max_bytes
        self._result: list[Section] = []
        self._edited: set[int] = set()

    def read(self) -> Context:
        handlers = {b"=": self._kept, b"+": self._new, b"~": self._built, b"{": self._json}
        while self._at < len(self._delta):
            handler = handlers.get(self._delta[self._at : self._at + 1])
            if handler is None:
                raise self._damaged("no such operation")
            self._at += 1
            handler()
        return Context(tuple(self._result))

    def _kept(self) -> None:
        first = last = self._number()
        if self._next(b"-"):
            last = self._number()
        self._expect(b"\n")
        if not 1 <= first <= last <= len(self._sections):
            raise self._damaged(f"sections {first} to {last} of {len(self._sections)}")
        if len(self._result) + last - first >= MAX_SECTIONS:
            raise DeltaError(f"more than {MAX_SECTIONS} sections", reason=Reason.TOO_LARGE)
        for section in self._sections[first - 1 : last]:
            self._take(len(section.content))
            self._result.append(section)

    def _new(self) -> None:
        kind, name = self._read_head()
        self._expect(b" ")
        size = self._number()
        self._expect(b"\n")
        content = self._raw(size)
        self._take(size)
        self._expect(b"\n")
        self._add(kind, name, content)

    def _built(self) -> None:
        old, kind, name = self._old_and_head()
        parts = _Cursor(self._base, old)
        taken = 0
        while not self._next(b"\n"):
            sign = self._delta[self._at : self._at + 1]
            self._at += 1
            self._operation(sign, parts)
            self._take(parts.size - taken)
            taken = parts.size
        self._add(kind, name, parts.content())

    def _operation(self, sign: bytes, parts: _Cursor) -> None:
        if sign in {b"'", b'"'}:
            feed = self._delta.find(b"\n", self._at)
            if feed < 0:
                raise self._damaged("ends too early")
            parts.add(self._raw(feed - self._at) if sign == b"'" else self._raw(feed + 1 - self._at))
            self._at += sign == b"'"
            return
        if sign.isdigit():  # behind new bytes a number alone says how many old ones they replace
            self._at -= 1
        elif sign not in {b"=", b"-", b".", b"!", b"@", b"+"}:
            raise self._damaged("no such part")
        number = self._number()
        if sign == b"+":
            self._expect(b" ")
            parts.add(self._raw(number))
        elif sign == b"@":
            self._expect(b":")
            line = self._number()
            if not 1 <= number <= len(self._sections) or not parts.go(number - 1, line - 1):
                raise self._damaged(f"there is no line {line} of section {number}")
        elif not parts.move(number, by_lines=sign in b"=-", copy=sign in b"=."):
            raise self._damaged("beyond the end of a section")

    def _json(self) -> None:
        old, kind, name = self._old_and_head()
        style = self._delta[self._at : self._at + 1].decode("ascii", "replace")
        self._at += 1
        self._expect(b" ")
        count = self._number()
        self._expect(b"\n")
        if not is_style(style) or count > len(self._delta):
            raise self._damaged("not an edit of JSON")
        if old in self._edited:  # each time costs as much as reading all of it, however short the delta is
            raise self._damaged("JSON that is edited twice")
        self._edited.add(old)
        lines: list[bytes] = []
        for _ in range(count):
            end = self._delta.find(b"\n", self._at)
            if end < 0:
                raise self._damaged("ends too early")
            lines.append(self._delta[self._at : end])
            self._at = end + 1
        content = apply_edits(self._sections[old].content, lines, style)
        self._take(len(content))
        self._add(kind, name, content)

    def _old_and_head(self) -> tuple[int, str, str]:
        """Read which section of the base is meant, and kind and name where they are others."""
        number = self._number()
        self._expect(b" ")
        if not 1 <= number <= len(self._sections):
            raise self._damaged(f"there is no section {number}")
        old = self._sections[number - 1]
        if not self._delta[self._at : self._at + 1].isalpha():
            return number - 1, old.kind, old.name
        kind, name = self._read_head()
        self._expect(b" ")
        return number - 1, kind, name

    def _read_head(self) -> tuple[str, str]:
        head = self._delta[self._at : self._at + MAX_HEAD].decode("latin-1")
        kind, colon, rest = head.partition(":")
        if not colon or " " in kind:
            kind, name = head.partition(" ")[0], ""
            size = len(kind)
        elif rest.startswith('"'):
            try:
                name, end = _decoder.raw_decode(rest)
            except ValueError:
                raise self._damaged("an unreadable name") from None
            size = len(kind) + 1 + end
        else:
            name = rest.partition(" ")[0]
            size = len(kind) + 1 + len(name)
            if not is_word(name):
                raise self._damaged("an unreadable name")
        self._at += size
        return kind, name

    def _add(self, kind: str, name: str, content: bytes) -> None:
        if len(self._result) >= MAX_SECTIONS:
            raise DeltaError(f"more than {MAX_SECTIONS} sections", reason=Reason.TOO_LARGE)
        try:
            self._result.append(Section(kind, name, content))
        except InputError:
            raise self._damaged("an unusable kind or name") from None

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise DeltaError("a delta gives more bytes than it announced", reason=Reason.TOO_LARGE)

    def _number(self) -> int:
        start = end = self._at
        while end < len(self._delta) and self._delta[end] in _DIGITS and end - start <= MAX_DIGITS:
            end += 1
        if not 0 < end - start <= MAX_DIGITS:
            raise self._damaged("a number is missing or too large")
        self._at = end
        return int(self._delta[start:end])

    def _raw(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._delta):
            raise self._damaged("ends too early")
        raw = self._delta[self._at : end]
        self._at = end
        return raw

    def _next(self, mark: bytes) -> bool:
        found = self._delta.startswith(mark, self._at)
        self._at += len(mark) if found else 0
        return found

    def _expect(self, mark: bytes) -> None:
        if not self._next(mark):
            raise self._damaged(f"{mark!r} is missing")

    def _damaged(self, what: str) -> DeltaError:
        return DeltaError(f"damaged delta, byte {self._at}: {what}", reason=Reason.MALFORMED)


class _Cursor:
    """A place in the base that is read, and what was read so far."""

    def __init__(self, base: Base, section: int) -> None:
        self.size = 0
        self._base = base
        self._section = section
        self._offset = 0
        self._read: list[bytes] = []

    def content(self) -> bytes:
        """Return all that was copied and added."""
        return b"".join(self._read)

    def add(self, content: bytes) -> None:
        """Add new bytes."""
        self._read.append(content)
        self.size += len(content)

    def go(self, section: int, line: int) -> bool:
        """Go to the beginning of a line; false where there is none."""
        if not 0 <= line <= len(self._base.ends(section)):
            return False
        self._section, self._offset = section, self._base.line_start(section, line)
        return True

    def move(self, number: int, *, by_lines: bool, copy: bool) -> bool:
        """Go on by lines or bytes and copy them if asked to; false where the section is shorter."""
        content = self._base.contents[self._section]
        end = self._offset + number
        if by_lines:
            line = self._base.line_at(self._section, self._offset) + number
            if line > len(self._base.ends(self._section)):
                return False
            end = self._base.line_start(self._section, line)
        if end > len(content):
            return False
        if copy:
            self.add(content[self._offset : end])
        self._offset = end
        return True
