"""Search results grouped by file, as `rg --heading` prints them.

    [grep by file, paths behind @]
    @src/app.py
    12:def main():
    40:    main()

stands for `src/app.py:12:def main():` and `src/app.py:40:    main()`. Context lines (`src/app.py-13-...`) and results
without line numbers (`src/app.py:text`, shown as `:text`) are grouped too; any other line stays as it was, and so does
one that reports an error. Where some
paths are relative and some have a root in front, `+` marks the lines that lack the root.
"""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from apportion.compression.strategies.lossless import LosslessStrategy, free_mark, split_form
from apportion.compression.validation.facts import MAX_ERROR_LINE, error_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apportion.compression.strategies.types import Held, Item, Query

MIN_GROUP_LINES = 2
"""A path that stands once needs no heading."""

MAX_PATH_CHARS = 400
"""A longer beginning of a line is no path."""

_AS_IT_WAS = "="
"""Follows the mark where a line of the content would be read as a result."""


class _Hit(NamedTuple):
    """A line of a search result: where, and what stands there, its number included."""

    path: str
    rest: str


class GrepGroups(LosslessStrategy):
    """Writes the path of consecutive results once."""

    name = "grep_groups"

    def encode(self, text: str, item: Item, query: Query) -> str | None:  # noqa: ARG002  (the text says it all)
        """Return the text with headings, or `None` where no path repeats."""
        lines = text.split("\n")
        mark = free_mark(text)
        if mark is None:
            return None
        hits = _hits(lines)
        if max(Counter(hit.path for hit in hits if hit).values(), default=0) < MIN_GROUP_LINES:
            return None
        errors = error_lines(text)
        hits = [None if line.strip()[:MAX_ERROR_LINE] in errors else hit for line, hit in zip(lines, hits, strict=True)]
        root = _root(hits)
        whole = {hit.path for hit in hits if hit}
        hits = [
            _Hit(root + hit.path, "+" + hit.rest) if hit and root and root + hit.path in whole else hit for hit in hits
        ]
        parts: list[str] = []
        position, shown = 0, None
        for path, found in groupby(hits, key=lambda hit: hit.path if hit else None):
            count = len(group := list(found))
            if path is not None and (path == shown or count >= MIN_GROUP_LINES):
                parts += [mark + path] if path != shown else []
                parts += [hit.rest for hit in group if hit]
                shown = path
            else:
                parts += [_escaped(line, mark, root) for line in lines[position : position + count]]
            position += count
        rooted = f", + without {root}" if root else ""
        return f"[grep by file{rooted}, paths behind {mark}]\n" + "\n".join(parts) if shown else None

    def decode(self, form: str, held: Sequence[Held]) -> str:  # noqa: ARG002  (the form says it all)
        """Return the lines with their paths."""
        head, body = split_form(form, "grep")
        mark, path, lines = head.rpartition(" ")[2], "", []
        root = head.partition(" + without ")[2].rpartition(", paths behind ")[0]
        for line in body.split("\n"):
            if line.startswith(mark + _AS_IT_WAS):
                lines.append(line[len(mark) + 1 :])
            elif line.startswith(mark):
                path = line[len(mark) :]
            else:
                rest = line.removeprefix("+") if root else line
                sign = _sign(rest)
                shown = path.removeprefix(root) if rest != line else path
                lines.append(shown + sign + rest.removeprefix(":") if sign else line)
        return "\n".join(lines)


def _escaped(line: str, mark: str, root: str) -> str:
    return f"{mark}{_AS_IT_WAS}{line}" if _sign(line.removeprefix("+") if root else line) else line


def _sign(rest: str) -> str:
    """Return what stood between the path and this rest of a result; empty where it is none."""
    if rest.startswith(":"):
        return ":"
    digits = _digits(rest, 0)
    sign = rest[digits : digits + 1]
    return sign if digits and sign and sign in ":-" else ""


def _digits(text: str, start: int) -> int:
    """Return how many ASCII digits stand at a position; more than a line number has are none."""
    end = start
    while end < len(text) and text[end] in "0123456789" and end - start < 10:
        end += 1
    return end - start


def _hits(lines: Sequence[str]) -> list[_Hit | None]:
    hits: list[_Hit | None] = []
    above = ""
    for line in lines:
        hit = _hit(line, above)
        hits.append(hit)
        above = hit.path if hit else above if line == "--" else ""
    return hits


def _hit(line: str, above: str) -> _Hit | None:
    """Read a line as a search result; `above` is the path of the line before, which may hold the sign itself."""
    if above and line.startswith(above + "-") and _sign(line[len(above) + 1 :]) == "-":
        return _Hit(above, line[len(above) + 1 :])
    end = line.find(":", 2, MAX_PATH_CHARS)
    if end > 0 and _sign(line[end + 1 : end + 12]) == ":" and line[end + 1] != ":":
        return _Hit(line[:end], line[end + 1 :]) if _is_path(line[:end]) else None
    context = _context(line)
    if context or end < 0:
        return context
    return _Hit(line[:end], line[end:]) if "/" in line[:end] and _is_path(line[:end]) else None


def _context(line: str) -> _Hit | None:
    """Read a line as one of context, `path-12-text`: the first place where a number stands between dashes."""
    end = line.find("-", 2, MAX_PATH_CHARS)
    while end > 0:
        if _sign(line[end + 1 : end + 12]) == "-" and "." in line[:end]:
            return _Hit(line[:end], line[end + 1 :]) if _is_path(line[:end]) else None
        end = line.find("-", end + 1, MAX_PATH_CHARS)
    return None


def _root(hits: Sequence[_Hit | None]) -> str:
    """Return what some paths have in front of what others are, as agents' tools show matches and their context."""
    paths = dict.fromkeys(hit.path for hit in hits if hit)
    absolute = [path for path in paths if path.startswith("/")]
    for path in paths:
        if not path.startswith("/"):
            for longer in absolute:
                if longer.endswith("/" + path):
                    return longer[: -len(path)]
    return ""


def _is_path(path: str) -> bool:
    return ("/" in path or "." in path or "\\" in path) and not path.startswith(_AS_IT_WAS) and " " not in path
