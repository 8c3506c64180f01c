"""The facts of each line of a text, found in one pass: which line holds a fact that no other line holds.

    facts_of_lines(["port 8080 is open", "it is 8080"])    # (frozenset({"8080"}), frozenset({"8080"}))

Each line's facts are those that `extract_facts` finds in it alone.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from apportion.compression.validation.facts import (
    MAX_ERROR_LINE,
    MAX_RUN,
    _canonical,
    _facts_pattern,
    _quotes,
    _without_noise,
    _without_symbols,
    error_lines,
    extract_facts,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_CONTENTS = 1024
"""Contents whose facts are remembered."""

MAX_CHUNKS = 100_000
"""Distinct chunks of text whose facts are remembered."""

_NO_FACTS: frozenset[str] = frozenset()


def facts_of_lines(lines: Sequence[str]) -> tuple[frozenset[str], ...]:
    """Return the distinct facts of each line.

    Args:
        lines: Lines of a text, with or without the line feeds behind them.
    """
    found: list[frozenset[str]] = [_NO_FACTS] * len(lines)
    plain: list[int] = []
    for number, line in enumerate(lines):
        if _is_plain(line):
            plain.append(number)
        else:
            found[number] = _of_line(line)
    joined = "\n".join(lines[number].rstrip("\n") for number in plain)
    cleaned = _without_noise(joined.encode("utf-8", "surrogatepass")).split(b"\n") if plain else []
    errors = error_lines(b"\n".join(cleaned).decode("utf-8", "replace"))
    by_chunk = _facts_by_chunk({chunk for line in cleaned for chunk in line.split()})
    for number, data in zip(plain, cleaned, strict=True):
        facts = {fact for chunk in data.split() for fact in by_chunk.get(chunk, ())}
        if b'"' in data or b"`" in data or b"'" in data:
            facts.update(quote.decode("utf-8", "replace") for quote in _quotes(data))
        if errors:
            stripped = data.decode("utf-8", "replace").strip()[:MAX_ERROR_LINE]
            if stripped in errors:
                facts.add(stripped)
        found[number] = frozenset(facts) if facts else _NO_FACTS
    return tuple(found)


@lru_cache(maxsize=MAX_CONTENTS)
def facts_of_content(content: bytes) -> frozenset[str]:
    """Return the facts of a content; remembered, because what is held is asked for again with each message."""
    return extract_facts(content.decode("utf-8", "replace"))


@lru_cache(maxsize=16 * MAX_CONTENTS)
def _of_line(line: str) -> frozenset[str]:
    return extract_facts(line)


def _is_plain(line: str) -> bool:
    """Say whether a line is read as its chunks are: no escapes, no runs of data, and nothing that ends a line early."""
    return "\\" not in line and len(line) <= MAX_RUN and len(line.splitlines()) <= 1


def _facts_by_chunk(chunks: set[bytes]) -> dict[bytes, tuple[str, ...]]:
    """Return the facts in each run of characters without white space."""
    if len(_known) > MAX_CHUNKS:
        _known.clear()
    found = {chunk: _known[chunk] for chunk in chunks if chunk in _known}
    found |= _read_chunks(chunks - found.keys())
    _known.update(found)
    return found


_known: dict[bytes, tuple[str, ...]] = {}
"""Facts of chunks that were read before: most of a message stood in another one already."""


def _read_chunks(chunks: Iterable[bytes]) -> dict[bytes, tuple[str, ...]]:
    pieces: list[bytes] = []
    owners: list[bytes] = []
    for chunk in chunks:
        parts = (chunk,) if chunk.isascii() else _without_symbols({chunk})
        pieces.extend(parts)
        owners.extend([chunk] * len(parts))
    found: dict[bytes, set[bytes]] = {}
    joined = b"\n".join(pieces)
    number, end = -1, -1
    for match in _facts_pattern().finditer(joined):
        first, last = match.span()
        while first > end:
            number += 1
            end += 1 + len(pieces[number])
        found.setdefault(owners[number], set()).add(joined[first:last])
    return {
        chunk: tuple(fact.decode("utf-8", "replace") for fact in _canonical(found[chunk]) if fact)
        if chunk in found
        else ()
        for chunk in owners
    }
