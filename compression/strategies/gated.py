"""The base of strategies that may also cut for receivers who cannot have back what was left out.

Behind a handle nothing is lost. Without one the similarity gate decides: what it refuses, or cannot judge because the
extra `semantic` is not installed, goes back to the original, byte for byte, and the outcome says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion.compression.similarity.gate import Gate
from apportion.compression.strategies.cutting import CutStrategy
from apportion.compression.strategies.types import Outcome
from apportion.embeddings import EXTRA, SentenceModel, is_installed
from apportion.errors import MissingExtraError

if TYPE_CHECKING:
    from apportion.compression.store import HandleStore
    from apportion.compression.strategies.types import Item, Query

ATTEMPTS = 3
"""Times that a cut for good is tried, each half as deep as the one before."""


class GatedStrategy(CutStrategy):
    """Cuts behind handles, or as far as the similarity gate lets it.

    Args:
        store: Keeps the originals; one of its own where none is given.
        gate: Judges what is cut for good; the default one where none is given.
    """

    cuts_for_good = True

    def __init__(self, store: HandleStore | None = None, gate: Gate | None = None) -> None:
        super().__init__(store)
        self.gate = Gate() if gate is None else gate

    def execute(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:
        """Leave out what can be had back, or what the gate accepts, or send the original and say why; never raises."""
        if query.can_expand:
            return super().execute(item, target_tokens, query)
        tokens = query.count(item.content)
        if isinstance(self.gate.vectors.embedder, SentenceModel) and not is_installed():
            error = MissingExtraError("leaving out text that cannot be had back", extra=EXTRA)
            return Outcome.unchanged(item.content, tokens, f"{self.name}: refused: {error}")
        reasons: list[str] = []
        target = target_tokens
        for _ in range(ATTEMPTS):
            outcome = super().execute(item, target, query)
            if not outcome.changed:
                return Outcome.unchanged(item.content, tokens, *(reasons or outcome.reasons))
            verdict, _coverage = self.gate.check(outcome)
            if verdict:
                return Outcome(
                    outcome.content,
                    item.content,
                    outcome.tokens,
                    tokens,
                    outcome.steps,
                    tuple(reasons),
                    (),
                    outcome.gaps,
                )
            reasons.append(f"{self.name}: refused: {verdict.reason} (at {outcome.tokens} tokens)")
            if "mean" not in (verdict.reason or ""):
                break
            target = (tokens + outcome.tokens) // 2
        return Outcome.unchanged(item.content, tokens, *reasons)
