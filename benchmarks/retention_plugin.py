"""A selection as a function of text, query and budget, for programs that measure what selections keep.

    compress(text, "when was the bridge built?", 300)

The receiver of such a program can neither expand nor ask, so markers name no handle.
"""

from __future__ import annotations

from apportion.compression.strategies.extractive import Extractive
from apportion.compression.strategies.types import Item, Query


def compress(text: str, query: str | None, target_tokens: int) -> str:
    """Return a text shortened to a number of tokens, markers included."""
    return _shortened(text, query, target_tokens, can_expand=False)


def compress_behind_handles(text: str, query: str | None, target_tokens: int) -> str:
    """Return the same for a receiver that can have back what was left out: its markers are longer."""
    return _shortened(text, query, target_tokens, can_expand=True)


def _shortened(text: str, query: str | None, target_tokens: int, *, can_expand: bool) -> str:
    strategy = Extractive()
    strategy.cuts_for_good = True
    outcome = strategy.execute(Item(text.encode()), target_tokens, Query(task=query or "", can_expand=can_expand))
    return outcome.content.decode()
