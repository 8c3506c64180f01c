"""A selection as a function of text, query and budget, for programs that measure what selections keep.

    compress(text, "when was the bridge built?", 300)

Such a program can neither expand nor ask, and wants to see what a budget costs. So `compress` cuts for good, with the
short markers of that case, and without the similarity gate, which would refuse to lose so much. What a receiver with
handles gets is `compress_behind_handles`: the same choice, with longer markers. `compress_by_meaning` also lets an
embedding model vote, as if all had been embedded at ingest; it needs the extra `semantic`.
"""

from __future__ import annotations

from functools import cache

from apportion.compression.similarity.meaning import likeness
from apportion.compression.similarity.vectors import Vectors
from apportion.compression.strategies.cutting import CutStrategy
from apportion.compression.strategies.extractive import Extractive
from apportion.compression.strategies.types import Item, Query
from apportion.embeddings import SentenceModel


def compress(text: str, query: str | None, target_tokens: int) -> str:
    """Return a text shortened to a number of tokens, markers included."""
    return _shortened(Extractive(), text, query, target_tokens, can_expand=False)


def compress_behind_handles(text: str, query: str | None, target_tokens: int) -> str:
    """Return the same for a receiver that can have back what was left out."""
    return _shortened(Extractive(), text, query, target_tokens, can_expand=True)


def compress_by_meaning(text: str, query: str | None, target_tokens: int) -> str:
    """Return the same as `compress`, chosen by words and by an embedding of each chunk."""
    likeness(_vectors(), text.encode(), query or "", wait=True)
    return _shortened(Extractive(vectors=_vectors()), text, query, target_tokens, can_expand=False)


@cache
def _vectors() -> Vectors:
    return Vectors(SentenceModel())


def _shortened(strategy: Extractive, text: str, query: str | None, target_tokens: int, *, can_expand: bool) -> str:
    asked = Query(task=query or "", can_expand=can_expand)
    outcome = CutStrategy.execute(strategy, Item(text.encode()), target_tokens, asked)  # past the gate
    return outcome.content.decode()
