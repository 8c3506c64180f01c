"""What a context holds that a later step may need, as numbers: facts, and windows of text that are quoted.

A window is `WINDOW` consecutive characters. Windows are compared by a 64-bit hash of every position, without sampling.
Two different windows share a hash by chance only: with a million windows of outputs against a hundred million of
pieces, once in about 200,000 workflows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from apportion.compression.validation.facts import extract_facts, missing_facts
from apportion.records import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

WINDOW = 30
"""Characters of the shortest quote that counts as evidence."""

_BLOCK = 1 << 18
"""Characters hashed at a time; bounds the memory of a long piece to some ten megabytes."""

_BASE = 0x9E3779B97F4A7C15
_MIX = 0xD6E8FEB86659FD93

_SIEVE_BITS = 22
"""Size of the table that rejects most windows by their leading bits before they are searched."""


class ShortForm(NamedTuple):
    """A shorter form in which a piece may be sent.

    Attributes:
        piece: Index of the piece.
        text: What is sent.
        shown: The part of the piece that it shows; all of it where nothing is left out, whatever notation it is in.
    """

    piece: int
    text: str
    shown: str


@dataclass(frozen=True, eq=False, slots=True)
class Evidence:
    """The evidence in the pieces and outputs of one workflow, as sorted arrays of distinct ids.

    Attributes:
        piece_facts: Facts of each piece.
        output_facts: Facts of each output that occur in some piece.
        piece_windows: Windows of each piece that occur in some output.
        output_windows: Windows of each output that occur in some piece.
        facts: The fact behind each fact id.
        window_count: Number of window ids.
        shared: Finds the windows of further texts.
    """

    piece_facts: list[NDArray[np.int32]]
    output_facts: list[NDArray[np.int32]]
    piece_windows: list[NDArray[np.int32]]
    output_windows: list[NDArray[np.int32]]
    facts: tuple[str, ...]
    window_count: int
    shared: _Shared

    @classmethod
    def build(cls, pieces: Sequence[str], outputs: Sequence[str], forms: Sequence[ShortForm] = ()) -> Evidence:
        """Find the evidence of one workflow; equal texts are read once and share their arrays.

        Args:
            pieces: Texts that a prompt may hold.
            outputs: Texts that the model wrote.
            forms: Shorter forms in which a prompt may hold some of the pieces; they follow these, in their order.
        """
        distinct_pieces, distinct_outputs = dict.fromkeys(pieces), dict.fromkeys(outputs)
        numbers: dict[str, int] = {}
        facts = {text: _numbered(extract_facts(text), numbers) for text in distinct_pieces}
        for text in distinct_outputs:
            if text not in facts:
                facts[text] = _known(extract_facts(text), numbers)
        distinct_shown = distinct_pieces | dict.fromkeys(form.shown for form in forms)
        windows, shared = _shared_windows(distinct_shown, distinct_outputs)
        names = tuple(numbers)
        return cls(
            piece_facts=[facts[text] for text in pieces]
            + [_shown_facts(facts[pieces[form.piece]], names, form.text) for form in forms],
            output_facts=[facts[text] for text in outputs],
            piece_windows=[windows[text] for text in pieces] + [windows[form.shown] for form in forms],
            output_windows=[windows[text] for text in outputs],
            facts=names,
            window_count=shared.count,
            shared=shared,
        )

    def add_form(self, piece: int, text: str, shown: str | None = None) -> int:
        """Add a form of a piece and return its index.

        Args:
            piece: Index of the piece.
            text: What is sent.
            shown: The part of the piece that it shows; `None`: all of it, here or where it refers to.
        """
        self.piece_facts.append(_shown_facts(self.piece_facts[piece], self.facts, text))
        self.piece_windows.append(self.piece_windows[piece] if shown is None else self.shared.of(shown))
        return len(self.piece_facts) - 1


def quotable(kind: Kind, content: str) -> str:
    """Return the text in which quotes are looked for.

    Tool calls are logged as JSON, where a quoted text is escaped; for them it is all string and number values,
    unescaped, one per line. Anything else is taken as it is.
    """
    if kind not in {Kind.TOOL_CALL, Kind.HANDOFF}:
        return content
    try:
        value = json.loads(content, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return content
    return "\n".join(_strings(value)) if isinstance(value, dict | list) else content


def _strings(value: Any) -> Iterator[str]:
    """Yield the strings within a JSON value in order; without recursion, because depth is the writer's choice."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting.extend(reversed(value.values()))
        elif isinstance(value, list):
            waiting.extend(reversed(value))


def _numbered(facts: frozenset[str], numbers: dict[str, int]) -> NDArray[np.int32]:
    """Return the ids of facts, giving new ones to those not seen before; sorting keeps the ids reproducible."""
    return _sorted(np.array([numbers.setdefault(fact, len(numbers)) for fact in sorted(facts)], dtype=np.int32))


def _known(facts: frozenset[str], numbers: dict[str, int]) -> NDArray[np.int32]:
    return _sorted(np.array([numbers[fact] for fact in facts if fact in numbers], dtype=np.int32))


def _shown_facts(facts: NDArray[np.int32], names: Sequence[str], text: str) -> NDArray[np.int32]:
    """Return those facts of a piece that a form of it shows."""
    missing = missing_facts((names[fact] for fact in facts), text)
    return np.array([fact for fact in facts if names[fact] not in missing], dtype=np.int32)


def _sorted(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    ids.sort()
    return ids


def _shared_windows(pieces: dict[str, None], outputs: dict[str, None]) -> tuple[dict[str, NDArray[np.int32]], _Shared]:
    """Return the ids of the windows that occur both in a piece and in an output, by text, and what finds them."""
    wanted = _Wanted(outputs)
    found = {text: wanted.positions_of(text) for text in pieces}
    used = np.zeros(wanted.size, dtype=np.bool_)
    for positions in found.values():
        used[positions] = True
    shared = _Shared(wanted, used)
    for text in outputs:
        if text not in found:
            positions = wanted.positions_of(text)
            found[text] = positions[used[positions]]
    return {text: shared.ids[positions] for text, positions in found.items()}, shared


class _Shared:
    """The windows that occur both in a piece and in an output."""

    def __init__(self, wanted: _Wanted, used: NDArray[np.bool_]) -> None:
        self.ids: NDArray[np.int32] = np.cumsum(used, dtype=np.int32) - 1
        self.count = int(np.count_nonzero(used))
        self._wanted = wanted
        self._used = used

    def of(self, text: str) -> NDArray[np.int32]:
        """Return the ids of those in a text."""
        positions = self._wanted.positions_of(text)
        return self.ids[positions[self._used[positions]]]

    def places(self, text: str, windows: NDArray[np.int32]) -> NDArray[np.intp]:
        """Return where in a text each of these windows that it holds begins, in characters, increasing.

        Of a window that stands in several places, the one nearest to the middle of all of them counts.
        """
        places: list[NDArray[np.intp]] = [np.zeros(0, dtype=np.intp)]
        names: list[NDArray[np.int32]] = [np.zeros(0, dtype=np.int32)]
        start = 0
        for block in _blocks(text) if self._wanted.size else ():
            hashes = _hashes(block)
            positions = self._wanted.nearest(hashes)
            known = (self._wanted.at(positions) == hashes) & self._used[positions]
            here = np.flatnonzero(known & np.isin(self.ids[positions], windows))
            places.append(start + here)
            names.append(self.ids[positions][here])
            start += len(hashes)
        where, which = np.concatenate(places), np.concatenate(names)
        nearest = np.argsort(np.abs(where - np.median(where)), kind="stable") if len(where) else where
        _, first = np.unique(which[nearest], return_index=True)
        found: NDArray[np.intp] = np.sort(where[nearest][first])
        return found


class _Wanted:
    """The windows of the outputs, sorted by hash, to look up those of the pieces."""

    def __init__(self, outputs: dict[str, None]) -> None:
        hashes = [_distinct(_hashes(block)[_telling(block)]) for text in outputs for block in _blocks(text)]
        self._hashes = _distinct(np.concatenate(hashes)) if hashes else np.zeros(0, dtype=np.uint64)
        self._sieve = np.zeros(1 << _SIEVE_BITS, dtype=np.bool_)
        self._sieve[_leading(self._hashes)] = True

    @property
    def size(self) -> int:
        return len(self._hashes)

    def positions_of(self, text: str) -> NDArray[np.int32]:
        """Return the positions of those windows of a text that are wanted, sorted and distinct."""
        found = [self._positions(_hashes(block)) for block in _blocks(text)] if self.size else []
        if len(found) == 1:
            return found[0]
        return np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int32)

    def nearest(self, hashes: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return for each hash the position at which it stands, if it is wanted at all."""
        positions = np.searchsorted(self._hashes, hashes)
        positions[positions == self.size] = 0
        return positions

    def at(self, positions: NDArray[np.intp]) -> NDArray[np.uint64]:
        """Return the hashes at some positions."""
        return self._hashes[positions]

    def _positions(self, hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
        candidates = _distinct(hashes[self._sieve[_leading(hashes)]])
        positions = self.nearest(candidates)
        found: NDArray[np.int32] = positions[self._hashes[positions] == candidates].astype(np.int32)
        return found


def _leading(hashes: NDArray[np.uint64]) -> NDArray[np.intp]:
    return (hashes >> np.uint64(64 - _SIEVE_BITS)).astype(np.intp)


def _distinct(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    hashes.sort()
    keep = np.ones(len(hashes), dtype=np.bool_)
    np.not_equal(hashes[1:], hashes[:-1], out=keep[1:])
    return hashes[keep]


def _blocks(text: str) -> Iterator[NDArray[np.uint32]]:
    """Yield the code points of a text in blocks that overlap so that each window lies in exactly one."""
    for start in range(0, len(text) - WINDOW + 1, _BLOCK):
        part = text[start : start + _BLOCK + WINDOW - 1]
        yield np.frombuffer(part.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _hashes(codes: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Return the polynomial hash modulo 2**64 of each window.

    Hashes of 2, 4, 8 and 16 characters come from doubling, and 30 = 16 + 8 + 4 + 2. Characters are mixed first, and
    the result again, because the low bits of a polynomial modulo a power of two are weak.
    """
    mixed = codes * np.uint64(_MIX)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(_BASE)
    count = len(codes) - WINDOW + 1
    powers = {length: np.uint64(pow(_BASE, length, 1 << 64)) for length in (1, 2, 4, 8)}
    two = mixed[:-1] * powers[1] + mixed[1:]
    four = two[:-2] * powers[2] + two[2:]
    eight = four[:-4] * powers[4] + four[4:]
    result = eight[:count] * powers[8]
    result += eight[8 : 8 + count]
    result *= powers[8]
    result += eight[16 : 16 + count]
    result *= powers[4]
    result += four[24 : 24 + count]
    result *= powers[2]
    result += two[28 : 28 + count]
    result ^= result >> np.uint64(32)
    result *= np.uint64(_MIX)
    return result


def _telling(codes: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Say for each window whether it is more than white space or one repeated character."""
    return ~(_all_true(codes[1:] == codes[:-1], WINDOW - 1) | _all_true(_is_space(codes), WINDOW))


def _all_true(flags: NDArray[np.bool_], length: int) -> NDArray[np.bool_]:
    total = np.concatenate(([0], np.cumsum(flags, dtype=np.int32)))
    every: NDArray[np.bool_] = np.equal(total[length:] - total[:-length], length)
    return every


def _is_space(codes: NDArray[np.uint32]) -> NDArray[np.bool_]:
    spaces: NDArray[np.bool_] = _SPACES[np.minimum(codes, len(_SPACES) - 1)]
    return spaces


_SPACES: NDArray[np.bool_] = np.array([chr(code).isspace() for code in range(0x3002)])
"""Whether a code point is white space; the last entry stands for all beyond."""
