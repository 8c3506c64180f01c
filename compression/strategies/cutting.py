"""The base of strategies that leave out whole lines: what stays is word for word, what goes is behind a marker.

A subclass only chooses lines. That pins stay, that the markers cost less than what they stand for, and that the visible
parts and the store together give the original back, is seen to here, on every use.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

from apportion.compression.markers import Lines, Markers
from apportion.compression.store import HandleStore
from apportion.compression.strategies.types import BaseStrategy, Estimate, Gap, Outcome, Span, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apportion.compression.strategies.types import Item, Query


class Cut(NamedTuple):
    """Lines that are to be left out, and why, in a few words."""

    lines: Lines
    reason: str


class CutStrategy(BaseStrategy, ABC):
    """Leaves out whole lines and names the handle under which they can be had back.

    Args:
        store: Keeps the originals; one of its own where none is given.
    """

    cuts_for_good = False
    """Whether it also leaves out what the receiver cannot have back; `execute` then has to see that this is little."""

    def __init__(self, store: HandleStore | None = None) -> None:
        self.store = HandleStore() if store is None else store

    def split(self, content: bytes) -> list[bytes]:
        """Return what `choose` chooses among; joined, it is the content. Here: lines."""
        return _lines(content)

    def mark(self, markers: Markers, gap: Gap, lines: Lines, query: Query, *, first: bool) -> bytes:  # noqa: ARG002
        """Return the marker of a gap, without the line feed that may follow.

        Args:
            markers: Those of the content.
            gap: What is left out.
            lines: The same, counted in what `split` returned.
            query: What the content is for.
            first: Whether it is the first marker of the content.
        """
        return markers.gap(gap.handle, lines, gap.reason, first=first)

    def space(self, left_out: bytes) -> bytes:
        """Return the white space that follows the marker of a gap."""
        return b"\n" if left_out.endswith(b"\n") else b""

    @abstractmethod
    def choose(self, lines: Sequence[bytes], item: Item, target_tokens: int | None, query: Query) -> Sequence[Cut]:
        """Return the lines that can go, in their order and without overlap; none where it does not apply.

        Args:
            lines: The content, split after each line feed.
            item: The original.
            target_tokens: Size that suffices; `None`: as short as it can.
            query: What the content is for.
        """

    def estimate(self, item: Item, query: Query) -> Estimate:
        """Say exactly what `execute` makes of an item, by doing it."""
        outcome = self.execute(item, None, query)
        return Estimate(outcome.tokens, outcome.original_tokens, lossless=False)

    def execute(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:
        """Leave out lines, or send the original and say why; never raises."""
        tokens = query.count(item.content)
        try:
            outcome = self._cut(item, target_tokens, query, tokens)
        except Exception as error:  # noqa: BLE001  (a full store, or whatever a content provokes)
            outcome = f"{type(error).__name__}: {error}"
        return (
            outcome
            if isinstance(outcome, Outcome)
            else Outcome.unchanged(item.content, tokens, f"{self.name}: {outcome}")
        )

    def validate(self, original: Item, result: Outcome) -> Verdict:
        """Accept what the rules for all strategies accept, and what restores the original byte for byte."""
        return self._validate_restored(original, result, lambda: self.restore(result))

    def restore(self, result: Outcome) -> bytes:
        """Return the original, from the visible parts and from the store.

        Raises:
            StoreError: The store does not hold what was left out.
            ValueError: A visible part is not as it was.
        """
        parts: list[bytes] = []
        position, seen = 0, 0
        for gap in result.gaps:
            shown = self.store.expand(gap.handle, position, gap.span.start)
            seen = _after(result.content, shown, seen)
            parts += (shown, self.store.expand(gap.handle, *gap.span))
            position = gap.span.end
        if result.gaps:
            shown = self.store.expand(result.gaps[-1].handle, position)
            _after(result.content, shown, seen)
            parts.append(shown)
        return b"".join(parts) if result.gaps else result.content

    def _cut(self, item: Item, target_tokens: int | None, query: Query, tokens: int) -> Outcome | str:
        """Return what is sent, or why that is the original."""
        if not query.can_expand and not self.cuts_for_good:
            return "the receiver cannot expand"
        markers = Markers.for_content(item.content, nonce=query.nonce)
        if markers is None:
            return "the content holds the nonce of this session"
        lines = self.split(item.content)
        starts = _starts(lines)
        cuts = self.choose(lines, item, target_tokens, query)
        if not cuts:
            return "does not apply"
        handle = self.store.put(item.content)
        parts: list[bytes] = []
        gaps: list[Gap] = []
        position = 0
        for cut in cuts:
            span = Span(starts[cut.lines.first - 1], starts[cut.lines.last])
            left_out = item.content[span.start : span.end]
            gap = Gap(span, handle, cut.reason)
            marker = self.mark(markers, gap, cut.lines, query, first=not gaps)
            marker += self.space(left_out)
            if any(pin.start < span.end and span.start < pin.end for pin in item.pinned):
                continue
            if query.count(marker) >= query.count(left_out):
                continue
            parts += (item.content[position : span.start], marker)
            gaps.append(gap._replace(marker=marker))
            position = span.end
        if not gaps:
            return "does not apply"
        content = b"".join([*parts, item.content[position:]])
        shorter = query.count(content)
        if shorter >= tokens:
            return "saves no tokens"
        handles = (handle,) if query.can_expand else ()
        outcome = Outcome(content, item.content, shorter, tokens, (self.name,), handles=handles, gaps=tuple(gaps))
        return outcome if self.restore(outcome) == item.content else "would not restore the original"


def _after(content: bytes, shown: bytes, start: int) -> int:
    found = content.find(shown, start)
    if found < 0:
        raise ValueError("a visible part is not as it was")
    return found + len(shown)


def _lines(content: bytes) -> list[bytes]:
    """Split after each line feed, and nowhere else."""
    lines = [line + b"\n" for line in content.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


def _starts(lines: Sequence[bytes]) -> list[int]:
    """Return where each line starts, and where the last one ends."""
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    return starts
