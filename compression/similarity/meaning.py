"""What an embedding says about the chunks of a content and a task, where the vectors are there already.

A selection then knows of likeness that shares no word. Nothing waits for it: while a vector is missing, words decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from apportion.compression.similarity.chunks import chunks_of
from apportion.compression.similarity.vectors import chunk_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apportion.compression.similarity.vectors import Vectors
    from apportion.compression.strategies.types import Span


class Likeness(NamedTuple):
    """How like a chunk is to a task, beside the other chunks: 0 for the middle one and less, 1 for the best."""

    span: Span
    share: float


def likeness(vectors: Vectors, content: bytes, task: str, *, wait: bool = False) -> Sequence[Likeness] | None:
    """Return how like each chunk of a content is to a task, or `None` where that is not known.

    Args:
        vectors: Where vectors come from.
        content: What is selected from.
        task: What it is selected for.
        wait: Whether to make what is missing; otherwise only the task itself is embedded, by a model that is loaded.
    """
    spans = [span for span in chunks_of(content) if chunk_text(content[span.start : span.end])]
    if not task.strip() or len(spans) < 2 or not (wait or vectors.embedder.ready):
        return None
    texts = [chunk_text(content[span.start : span.end]) for span in spans]
    known = [vectors.of(text) for text in texts] if wait else vectors.known(texts)
    asked = vectors.of(task)
    found = [float(vector @ asked) for vector in known if vector is not None]
    if len(found) < len(spans):
        return None
    middle, best = sorted(found)[len(found) // 2], max(found)
    scale = best - middle
    if scale <= 0:
        return None
    return [Likeness(span, max(0.0, (each - middle) / scale)) for span, each in zip(spans, found, strict=True)]
