"""Search results grouped by file, as `rg --heading` prints them.

    [grep by file, paths behind @]
    @src/app.py
    12:def main():
    40:    main()

stands for `src/app.py:12:def main():` and `src/app.py:40:    main()`. Context lines (`src/app.py-13-...`) and results
without line numbers (`src/app.py:text`, shown as `:text`) are grouped too; any other line stays as it was.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from apportion.compression.strategies.lossless import LosslessStrategy, free_mark, split_form

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
        parts: list[str] = []
        position = grouped = 0
        for path, found in groupby(hits, key=lambda hit: hit.path if hit else None):
            count = len(group := list(found))
            if path is not None and count >= MIN_GROUP_LINES:
                parts += [mark + path, *(hit.rest for hit in group if hit)]
                grouped += count
            else:
                parts += [_escaped(line, mark) for line in lines[position : position + count]]
            position += count
        return f"[grep by file, paths behind {mark}]\n" + "\n".join(parts) if grouped else None

    def decode(self, form: str, held: Sequence[Held]) -> str:  # noqa: ARG002  (the form says it all)
        """Return the lines with their paths."""
        head, body = split_form(form, "grep")
        mark, path, lines = head.rpartition(" ")[2], "", []
        for line in body.split("\n"):
            if line.startswith(mark + _AS_IT_WAS):
                lines.append(line[len(mark) + 1 :])
            elif line.startswith(mark):
                path = line[len(mark) :]
            else:
                sign = _sign(line)
                lines.append(path + sign + line.removeprefix(":") if sign else line)
        return "\n".join(lines)


def _escaped(line: str, mark: str) -> str:
    return f"{mark}{_AS_IT_WAS}{line}" if _sign(line) else line


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
    if end < 0:
        return None
    path, rest = line[:end], line[end + 1 :]
    if _sign(rest) == ":" and not rest.startswith(":"):
        return _Hit(path, rest) if _is_path(path) else None
    return _Hit(path, ":" + rest) if "/" in path and _is_path(path) else None


def _is_path(path: str) -> bool:
    return ("/" in path or "." in path or "\\" in path) and not path.startswith(_AS_IT_WAS) and " " not in path
