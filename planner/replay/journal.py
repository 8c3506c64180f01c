"""What of an agent run's prompt was not sent whole: what was done, why, and how many tokens that saved."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apportion.planner.replay.results import ActionFigures, add_pairs
from apportion.records import Action

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SAME_BYTES = "the prompt holds the same bytes already"
"""Why a piece is sent as a reference."""

REPAYS = "what that saves repays the expansions that it risks"
"""Why parts of a new result are left out behind a handle."""

TOKENS_SHORT = "tokens are short, and this does not cost more than sending it"
NOTHING_CACHED = "the cache was cold: nothing had to be written anew"
NOTHING_BEHIND = "nothing behind it was in the cache"
LATER_CALLS = "later calls repay what is written anew behind it"
"""Why an old result is masked, where no hard limit forces it."""


@dataclass(slots=True)
class Entry:
    """One piece of context that is not sent whole, from one call on.

    Attributes:
        position: Position of the piece in the log.
        action: What was done.
        reason: Why.
        call: Call of the run, counted from 0, at which it was done.
        tokens: Visible tokens of the piece.
        sent_tokens: Visible tokens of what is sent in its place.
        calls: Calls in which that was sent; `None` while it stands.
        fetched: Whether a later output quoted what was left out, so that it was charged as fetched back.
    """

    position: int
    action: Action
    reason: str
    call: int
    tokens: int
    sent_tokens: int
    calls: int | None = None
    fetched: bool = False

    @property
    def saved_tokens(self) -> int:
        """Visible tokens that it saved in all calls, before expansions are charged."""
        return (self.tokens - self.sent_tokens) * (self.calls or 0)

    def end(self, call: int) -> None:
        """Note that it stands no longer from a call on; what has ended stays ended."""
        if self.calls is None:
            self.calls = max(0, call - self.call)


class Journal:
    """The entries of one agent run, by the rows of its planned prompt."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._standing: dict[int, Entry] = {}

    def note(self, row: int, entry: Entry) -> None:
        """Add an entry; one that stood for the same row ends."""
        before = self._standing.pop(row, None)
        if before is not None:
            before.end(entry.call)
        self.entries.append(entry)
        self._standing[row] = entry

    def fetched(self, row: int, call: int) -> None:
        """Note that a call's output needed what stands at a row: the whole piece is sent from the next call on."""
        entry = self._standing.pop(row, None)
        if entry is not None:
            entry.fetched = True
            entry.end(call + 1)

    def truncate(self, rows: int, call: int) -> None:
        """Let all rows but the first ones go, before a call."""
        for row in [row for row in self._standing if row >= rows]:
            self._standing.pop(row).end(call)

    def close(self, calls: int) -> None:
        """End all that stands, after so many calls."""
        self.truncate(0, calls)

    def left_out(self) -> list[Entry]:
        """Return the entries that left something out behind a handle."""
        return [entry for entry in self.entries if entry.action in {Action.MASK, Action.SELECT}]


def figures_of(entries: Iterable[Entry]) -> dict[tuple[str, str], ActionFigures]:
    """Add entries up by action and reason."""
    sums: defaultdict[tuple[str, str], ActionFigures] = defaultdict(lambda: ActionFigures(0, 0, 0, 0, 0))
    for entry in entries:
        key = (str(entry.action), entry.reason)
        one = (1, entry.tokens, entry.sent_tokens, entry.saved_tokens, int(entry.fetched))
        sums[key] = ActionFigures(*add_pairs(sums[key], one))
    return dict(sums)


def why_masked(rows: Sequence[int], cached: int, *, forced: str | None, short: bool) -> str:
    """Say why results are masked before a call.

    Args:
        rows: Their rows in the prompt.
        cached: Leading rows of the prompt that the cache holds.
        forced: The hard limit that leaves no choice, or `None`.
        short: Whether tokens are short.
    """
    if forced is not None:
        return forced
    if short:
        return TOKENS_SHORT
    if cached == 0:
        return NOTHING_CACHED
    return NOTHING_BEHIND if not rows or min(rows) >= cached else LATER_CALLS


def how_shortened(steps: Iterable[str]) -> str:
    """Say how a result was written in fewer tokens without loss."""
    return f"the same in fewer tokens: {', '.join(dict.fromkeys(steps)) or 'a shorter notation'}"
