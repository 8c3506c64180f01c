"""Markers: the lines that stand where parts of a content were left out, and name the way to have them back.

    markers = Markers.for_content(content, nonce="731")
    markers.gap(handle, Lines(40, 97), "58 passing tests")
    # b"[731: lines 40-97 left out: 58 passing tests; expand h:3fa9c2d1 40-97]"

A marker begins with a nonce that the content does not hold, so text that imitates a marker is a text. Nothing is ever
restored by reading markers: what was left out is known from the record of who left it out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apportion.compression.store import Handle

NONCE_DIGITS = 3
"""Decimal digits of a nonce: one token."""

MAX_NOTE = 80
"""Characters that a marker says about what was left out."""


class Lines(NamedTuple):
    """Lines of a content, counted from 1; both ends belong to it."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class Markers:
    """Writes the markers of one content.

    Attributes:
        nonce: What every marker begins with.
    """

    nonce: str

    @classmethod
    def for_content(cls, content: bytes, *, nonce: str = "", others: Iterable[bytes] = ()) -> Markers | None:
        """Return the markers of a content, or `None` where it holds the nonce, so that it could imitate them.

        Args:
            content: What is to be shortened.
            nonce: Agreed for the whole session; empty: a free one is derived from the content.
            others: Further texts that must not hold it.
        """
        texts = (content, *others)
        if nonce:
            return None if _holds(texts, nonce) else cls(nonce)
        seed = hashlib.sha256(content).hexdigest()
        for start in range(0, len(seed) - 4, 4):
            candidate = f"{int(seed[start : start + 4], 16) % 10**NONCE_DIGITS:0{NONCE_DIGITS}}"
            if not _holds(texts, candidate):
                return cls(candidate)
        return None

    def gap(self, handle: Handle, lines: Lines, note: str = "", *, first: bool = True) -> bytes:
        """Return the marker that stands for lines of an original; those that follow the first one say less.

        Args:
            handle: Where the original is.
            lines: What was left out.
            note: What that holds, in a few words; cut to `MAX_NOTE` characters and one line.
            first: Whether it is the first marker of a content, which names the handle for all of them.
        """
        said = "".join(mark if mark.isprintable() and mark not in "[]" else " " for mark in note)[:MAX_NOTE].strip()
        what = f"line{'' if lines.first == lines.last else 's'} {lines} left out"
        way = f"; expand {handle} {lines}" if first else ""
        return f"[{self.nonce}: {what}{': ' + said if said else ''}{way}]".encode()

    def part(self, handle: Handle | None, start: int, end: int, *, first: bool) -> bytes:
        """Return the marker that stands for bytes of an original; those that follow the first one say less.

        Args:
            handle: Where the original is; `None` where the receiver cannot have it back.
            start: First byte that was left out, counted from 0.
            end: Byte after the last one.
            first: Whether it is the first marker of a content, which tells how all of them are to be read.
        """
        if handle is None:
            return f"[{self.nonce}: left out]".encode() if first else f"[{self.nonce}]".encode()
        where = f"b{start}-{end}"
        said = f"{end - start} bytes left out; expand {handle} {where}" if first else where
        return f"[{self.nonce}: {said}]".encode()


def _holds(texts: Iterable[bytes], nonce: str) -> bool:
    marks = (f"[{nonce}:".encode(), f"[{nonce}]".encode())
    return any(mark in text for text in texts for mark in marks)
