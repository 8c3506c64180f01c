"""Which pieces of two texts are the same, in the order of both; takes about as long as sorting them.

Pieces that stand once in both texts are anchors, as in patience diff; what is equal beside an anchor, or at either end,
joins it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def equal_pieces(before: Sequence[str], after: Sequence[str]) -> list[tuple[int, int]]:
    """Return numbers of equal pieces, from 0, in the order of both: those that are unique, and what adjoins them.

    >>> equal_pieces(["a", "x", "b", "b"], ["a", "b", "b"])
    [(0, 0), (2, 1), (3, 2)]
    """
    anchors = _longest_rising(_unique_pairs(before, after))
    pairs: list[tuple[int, int]] = []
    left = right = 0
    for one, other in [*anchors, (len(before), len(after))]:
        while left < one and right < other and before[left] == after[right]:
            pairs.append((left, right))
            left, right = left + 1, right + 1
        adjoining: list[tuple[int, int]] = []
        end, other_end = one - 1, other - 1
        while end >= left and other_end >= right and before[end] == after[other_end]:
            adjoining.append((end, other_end))
            end, other_end = end - 1, other_end - 1
        pairs += reversed(adjoining)
        if one < len(before):
            pairs.append((one, other))
        left, right = one + 1, other + 1
    return pairs


def _unique_pairs(before: Sequence[str], after: Sequence[str]) -> list[tuple[int, int]]:
    counts, other_counts = Counter(before), Counter(after)
    places = {piece: number for number, piece in enumerate(after) if other_counts[piece] == 1}
    return [(number, places[piece]) for number, piece in enumerate(before) if counts[piece] == 1 and piece in places]


def _longest_rising(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return as many pairs as possible whose second numbers rise like the first ones (patience sorting)."""
    ends: list[int] = []
    numbers: list[int] = []
    before: list[int | None] = []
    for number, (_, other) in enumerate(pairs):
        place = bisect_left(ends, other)
        before.append(numbers[place - 1] if place else None)
        ends[place : place + 1] = [other]
        numbers[place : place + 1] = [number]
    found: list[tuple[int, int]] = []
    last = numbers[-1] if numbers else None
    while last is not None:
        found.append(pairs[last])
        last = before[last]
    return found[::-1]
