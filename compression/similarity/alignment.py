"""Which part of a compressed text stands for which chunk of its original, where nobody tells what was left out.

    chunks_with_rest(original, compressed)    # [("text of a chunk", "what stands for it"), ...]

Lines and sentences that are the same in both texts hold them together (`equal_pieces`). What stands between two of them
in the compressed text is taken to stand for what is between them in the original, so a passage put in other words is
compared with its own original, and a chunk between whose neighbours nothing stands has nothing. A passage that was
moved elsewhere counts as left out.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from apportion.compression.equal_pieces import equal_pieces
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
    pairs = [(-1, -1), *equal_pieces(keys, other_keys), (len(pieces), len(others))]
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
