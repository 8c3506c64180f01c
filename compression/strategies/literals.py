"""Long literals that no reader reads, base64 above all, are kept behind handles.

They are recoverable, not visible: what is left out is had back by expanding its handle, so this is done only for
receivers that can expand, and counted apart from what is lossless in the visible text.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import re2

from apportion.compression.store import HandleStore
from apportion.compression.strategies.types import BaseStrategy, Estimate, Outcome, Verdict

if TYPE_CHECKING:
    from apportion.compression.store import Handle
    from apportion.compression.strategies.types import Item, Query

MIN_LITERAL_BYTES = 256
"""A shorter literal may be a token or hash that somebody must copy."""

MIN_KINDS = 3
"""Of capital letters, small letters and digits, all stand in a base64 text of that length."""


class Literals(BaseStrategy):
    """Replaces long unbroken runs of base64 characters by stubs that name their handles.

    Args:
        store: Keeps the originals; one of its own where none is given.
    """

    name = "literals"

    def __init__(self, store: HandleStore | None = None) -> None:
        self.store = HandleStore() if store is None else store

    def estimate(self, item: Item, query: Query) -> Estimate:
        """Say exactly what `execute` makes of an item, by doing it."""
        outcome = self.execute(item, None, query)
        return Estimate(outcome.tokens, outcome.original_tokens, lossless=False)

    def execute(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:  # noqa: ARG002  (folds all or none)
        """Fold the literals of an item, or send its original and say why; never raises."""
        tokens = query.count(item.content)
        if not query.can_expand:
            return Outcome.unchanged(item.content, tokens, f"{self.name}: the receiver cannot expand")
        try:
            content, handles = self._fold(item)
        except Exception as error:  # noqa: BLE001  (a full store, or whatever a content provokes)
            return Outcome.unchanged(item.content, tokens, f"{self.name}: {type(error).__name__}: {error}")
        if not handles:
            return Outcome.unchanged(item.content, tokens, f"{self.name}: does not apply")
        shorter = query.count(content)
        if shorter >= tokens:
            return Outcome.unchanged(item.content, tokens, f"{self.name}: saves no tokens")
        return Outcome(content, item.content, shorter, tokens, steps=(self.name,), handles=handles)

    def validate(self, original: Item, result: Outcome) -> Verdict:
        """Accept what the rules for all strategies accept, and what restores the original byte for byte."""
        return self._validate_restored(original, result, lambda: self.restore(result.content, result.handles))

    def restore(self, content: bytes, handles: tuple[Handle, ...]) -> bytes:
        """Return the original of a content whose literals were folded, from the stubs in their order.

        Raises:
            StoreError: The store does not hold them.
            ValueError: A stub is missing.
        """
        parts: list[bytes] = []
        position = 0
        for handle in handles:
            stub = _stub(handle)
            found = content.index(stub, position)
            parts += (content[position:found], self.store.expand(handle))
            position = found + len(stub)
        return b"".join([*parts, content[position:]])

    def _fold(self, item: Item) -> tuple[bytes, tuple[Handle, ...]]:
        content, position = item.content, 0
        parts: list[bytes] = []
        handles: list[Handle] = []
        for match in _pattern().finditer(content):
            start, end = match.span()
            if _reads_as_data(match[0]) and not any(pin.start < end and start < pin.end for pin in item.pinned):
                handles.append(self.store.put(match[0]))
                stub = _stub(handles[-1])
                if stub in content:
                    raise ValueError("the content holds the stub already")
                parts += (content[position:start], stub)
                position = end
        return b"".join([*parts, content[position:]]), tuple(handles)


def _stub(handle: Handle) -> bytes:
    return f"[{handle.size:,} bytes of base64 left out; expand {handle}]".encode()


def _reads_as_data(literal: bytes) -> bool:
    letters = set(literal)
    kinds = (range(0x41, 0x5B), range(0x61, 0x7B), range(0x30, 0x3A))
    return sum(any(code in letters for code in kind) for kind in kinds) >= MIN_KINDS and len(letters) > 20


@cache
def _pattern() -> Any:
    options = re2.Options()
    options.log_errors = False
    options.encoding = re2.Options.Encoding.LATIN1
    return re2.compile(rb"[A-Za-z0-9+/_-]{%d,}={0,2}" % MIN_LITERAL_BYTES, options)
