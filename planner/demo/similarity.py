"""How much of the meaning of what would have been sent stands in what was sent."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from apportion.compression.similarity.gate import Gate
from apportion.records import Action

if TYPE_CHECKING:
    from apportion.planner.live import SentItem


class Similarity:
    """Mean similarity of pieces with their originals, weighted by length; needs the extra `semantic`.

    Each chunk of an original is compared with what stands in its place. A lossless form and a reference to a piece that
    is sent in the same prompt cover all; of a piece behind a handle, only what its stub says counts.
    """

    def __init__(self) -> None:
        gate = Gate()
        self._compare = cache(lambda original, sent: gate.compare(original, sent).mean)
        self._weight = 0
        self._sum = 0.0

    @property
    def mean(self) -> float:
        """The mean so far, in [0, 1]; 1 if nothing was sent."""
        return self._sum / self._weight if self._weight else 1.0

    def add(self, original: str, sent: SentItem) -> None:
        """Add a piece of a prompt."""
        weight = len(original)
        self._weight += weight
        if sent.action in (Action.KEEP, Action.STRUCTURE, Action.REFERENCE):
            self._sum += weight
        else:
            self._sum += weight * self._compare(original.encode(), sent.content.encode())
