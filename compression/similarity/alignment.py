"""Which part of a compressed text stands for which chunk of its original, where nobody tells what was left out.

    chunks_with_rest(original, compressed)    # [("text of a chunk", "what stands for it"), ...]

Lines and sentences that both texts hold once, in the same order, hold them together; equal neighbours of these join
(patience sorting, as in patience diff). What stands between two of them in the compressed text is taken to stand for
what is between them in the original, so a passage put in other words is compared with its own original, and a chunk
between whose neighbours nothing stands has nothing. A passage that was moved elsewhere counts as left out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from apportion.compression.similarity.chunks import chunks_of
from apportion.compression.similarity.vectors import chunk_text
from apportion.compression.strategies._pieces import pieces_of

if TYPE_CHECKING:
    from collections.abc import Sequence


class ChunkAndRest(NamedTuple):
    """A chunk of an original, and what stands for it in a compressed text; empty where nothing does."""

    original: str
    rest: str


def chunks_with_rest(original: bytes, compressed: bytes) -> list[ChunkAndRest]:
    """Return the chunks of an original that hold anything, each with what stands for it.

    Bytes that are not UTF-8 count as replacement characters.

    >>> chunks_with_rest(b"One is here. Two is there.", b"One is here.")
    [ChunkAndRest(original='One is here. Two is there.', rest='One is here.')]
    """
    before, after = (content.decode("utf-8", "replace") for content in (original, compressed))
    pieces, others = pieces_of(before), pieces_of(after)
    keys, other_keys = ([" ".join(piece.text.split()) for piece in some] for some in (pieces, others))
    pairs = [(-1, -1), *_pairs(keys, other_keys), (len(pieces), len(others))]
    olds = [old for old, _ in pairs]
    starts = list(accumulate((piece.size for piece in pieces), initial=0))
    content = before.encode()
    found = []
    for chunk in chunks_of(content):
        text = chunk_text(content[chunk.start : chunk.end])
        first, last = bisect_left(starts, chunk.start), bisect_left(starts, chunk.end) - 1
        if text:
            rest = _between(pairs, olds, first, last)
            found.append(ChunkAndRest(text, "".join(piece.text for piece in others[slice(*rest)]).strip()))
    return found


def _between(pairs: Sequence[tuple[int, int]], olds: Sequence[int], first: int, last: int) -> tuple[int, int]:
    """Return which pieces of the compressed text stand for some of the original: from where, and up to where not."""
    at = bisect_left(olds, first)
    start = pairs[at][1] if pairs[at][0] == first else pairs[at - 1][1] + 1
    at = bisect_left(olds, last)
    end = pairs[at][1] + (pairs[at][0] == last)
    return start, end


def _pairs(one: Sequence[str], other: Sequence[str]) -> list[tuple[int, int]]:
    """Return which pieces are the same, in the order of both."""
    times, other_times = Counter(one), Counter(other)
    place = {key: number for number, key in enumerate(other) if key and other_times[key] == 1}
    unique = [(number, place[key]) for number, key in enumerate(one) if times[key] == 1 and key in place]
    pairs: list[tuple[int, int]] = []
    ends = (len(one), len(other))
    for old, new in _longest_rising(unique):
        if pairs and (old <= pairs[-1][0] or new <= pairs[-1][1]):
            continue  # joined as a neighbour already
        floor = (pairs[-1][0] + 1, pairs[-1][1] + 1) if pairs else (0, 0)
        back = _equal(one, other, (old - 1, new - 1), -1, (floor[0] - 1, floor[1] - 1))
        ahead = _equal(one, other, (old, new), 1, ends)
        pairs += [(old - step, new - step) for step in range(back, 0, -1)]
        pairs += [(old + step, new + step) for step in range(ahead)]
    if not pairs:  # nothing stands once in both: what is equal from the beginning and from the end
        ahead = _equal(one, other, (0, 0), 1, ends)
        back = _equal(one, other, (len(one) - 1, len(other) - 1), -1, (ahead - 1, ahead - 1))
        pairs = [(step, step) for step in range(ahead)]
        pairs += [(len(one) - step, len(other) - step) for step in range(back, 0, -1)]
    return pairs


def _equal(one: Sequence[str], other: Sequence[str], start: tuple[int, int], step: int, stop: tuple[int, int]) -> int:
    """Return how many pieces in a row are the same, in one direction."""
    count = 0
    for old, new in zip(range(start[0], stop[0], step), range(start[1], stop[1], step), strict=False):
        if one[old] != other[new]:
            break
        count += 1
    return count


def _longest_rising(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the most pairs whose second numbers rise; the first ones rise already."""
    tails: list[int] = []
    last: list[int] = []
    before: list[int] = []
    for number, (_, new) in enumerate(pairs):
        at = bisect_left(tails, new)
        tails[at : at + 1] = [new]
        last[at : at + 1] = [number]
        before.append(last[at - 1] if at else -1)
    found: list[tuple[int, int]] = []
    number = last[-1] if last else -1
    while number >= 0:
        found.append(pairs[number])
        number = before[number]
    return found[::-1]
