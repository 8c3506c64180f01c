"""Contents in chunks that fit the window of an embedding model, cut where passages and sentences end.

A chunk is known by its bytes, so that what survived of it can be told from the gaps of an outcome.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion.compression.strategies._pieces import pieces_of
from apportion.compression.strategies.types import Span

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_WEIGHT = 800
"""Size of a chunk: letters of English, about 200 tokens of a window of 256; other characters weigh more."""

MIN_CHUNK_WEIGHT = 200
"""A chunk ends with its passage if it has this size."""

OTHER_WEIGHT = 3
"""What a character beyond ASCII weighs, beside a letter: one of Chinese is a token of its own."""

SIGN_WEIGHT = 2
"""What a digit or mark weighs."""


def chunks_of(content: bytes) -> list[Span]:
    """Return the chunks of a content, in their order and without gaps; none has more than the window holds, or nearly.

    >>> chunks_of(b"A sentence. Another one.")
    [Span(start=0, end=24)]
    """
    try:
        text = content.decode()
    except UnicodeDecodeError:
        size = CHUNK_WEIGHT // OTHER_WEIGHT
        return [Span(start, min(start + size, len(content))) for start in range(0, len(content), size)]
    return list(_gathered(text))


def _gathered(text: str) -> Iterator[Span]:
    start = end = 0
    gathered, passage = 0, 0
    for piece in pieces_of(text):
        weight = _weight(piece.text)
        full = gathered + weight > CHUNK_WEIGHT or (piece.passage != passage and gathered >= MIN_CHUNK_WEIGHT)
        if gathered and full:
            yield Span(start, end)
            start, gathered = end, 0
        end += piece.size
        gathered, passage = gathered + weight, piece.passage
    if end > start:
        yield Span(start, end)


def _weight(text: str) -> int:
    if not text.isascii():
        beyond = len(text.encode()) - len(text)  # bytes above one per character: at least 1 for each beyond ASCII
        return len(text) + (OTHER_WEIGHT - 1) * min(beyond, len(text))
    letters = sum(map(len, text.split())) and sum(map(str.isalpha, text))
    return letters + SIGN_WEIGHT * (len(text) - letters - text.count(" ")) + text.count(" ")
