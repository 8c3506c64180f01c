"""Looks again at what a recorded session was given: facts, meaning, the way back, and the bill.

    found = revalidate(read_events(database, workflow="release notes"), originals)
    for piece in found.pieces:
        print(piece.step, piece.action, piece.state, piece.reasons)

A session tells of each piece that it sent otherwise than whole: handles of the original, and, where it keeps that too,
of what stood in its place. Both are read from the store of originals, whose digests are checked, and compared as they
were before sending. Nothing is taken on trust but the record itself.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import re2

from apportion.compression.markers import Markers
from apportion.compression.pipeline import Lossless, apply, restore
from apportion.compression.store import Handle
from apportion.compression.strategies.types import Gap, Item, Outcome, Query, Span
from apportion.compression.validation.check import check
from apportion.errors import ApportionError
from apportion.records import Action
from apportion.telemetry.sessions import summarise_events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from apportion.compression.store import HandleStore
    from apportion.compression.validation.check import Check
    from apportion.telemetry.live_events import LiveEvent
    from apportion.telemetry.sessions import LiveSummary

_WHOLLY_BEHIND = frozenset({Action.MASK, Action.REFERENCE})
"""Actions that leave a note in the place of the whole piece: constraints may hide behind its handle."""


_HOLDS_ALL = frozenset({Action.STRUCTURE, Action.REFERENCE})
"""Actions whose result shows all of a piece, or where it stands: nothing is lost where the original is not kept."""


class State(StrEnum):
    """What became of a piece."""

    ACCEPTED = "accepted"
    """What stood in its place was compared with it: it loses nothing that cannot be had back, and makes nothing up."""
    REJECTED = "rejected"
    """What stood in its place lost a fact or constraint for good, or made a fact up."""
    RECOVERABLE = "recoverable"
    """The original can be had back byte for byte; what stood in its place was not kept, or is in other words."""
    GONE = "gone"
    """The original cannot be had back from this store."""
    UNCHECKED = "unchecked"
    """Nothing was kept: such a form was proved to hold all of the original when it was made."""


BAD = frozenset({State.REJECTED, State.GONE})
"""States that are failures."""


class Piece(NamedTuple):
    """A piece that was sent otherwise than whole.

    Attributes:
        step: Number of the step within the session, or `None`.
        run_id: The agent run, or `None`.
        action: What was done with it.
        state: What was found.
        facts: Distinct facts of the original; `None` where it was not compared.
        visible_facts: How many of them were shown.
        recoverable_facts: How many were shown or could be had back.
        similarity: Mean coverage of its meaning, in [0, 1]; `None` where it was not measured.
        reasons: Why it was rejected, or what is missing.
    """

    step: int | None
    run_id: str | None
    action: str
    state: State
    facts: int | None = None
    visible_facts: int | None = None
    recoverable_facts: int | None = None
    similarity: float | None = None
    reasons: tuple[str, ...] = ()


class Revalidation(NamedTuple):
    """What was found about a session.

    Attributes:
        pieces: The pieces that it sent otherwise than whole, in their order.
        summary: What it told of itself: tokens, bill, decisions.
    """

    pieces: tuple[Piece, ...]
    summary: LiveSummary

    @property
    def sound(self) -> bool:
        """Whether nothing was rejected and nothing is gone."""
        return not any(piece.state in BAD for piece in self.pieces)


def revalidate(
    events: Iterable[LiveEvent | None],
    originals: HandleStore | None,
    *,
    compare: Callable[[bytes, bytes], float] | None = None,
) -> Revalidation:
    """Look again at what a session was given.

    Args:
        events: What it told of itself; `None` in place of damaged ones.
        originals: Where its originals are; `None` where there is no such store.
        compare: Measures how much of the meaning of an original a text covers, in [0, 1]; `None`: not measured.
    """
    kept = list(events)
    actions = [event for event in kept if event is not None and event.kind == "action"]
    pieces = tuple(_piece(event, originals, compare) for event in actions)
    return Revalidation(pieces, summarise_events(kept))


def _piece(event: LiveEvent, originals: HandleStore | None, compare: Callable[[bytes, bytes], float] | None) -> Piece:
    step, action = event.data.get("number"), str(event.data.get("action"))
    piece = Piece(step if isinstance(step, int) else None, event.run_id, action, State.UNCHECKED)
    handle, shown_handle = event.data.get("original"), event.data.get("shown")
    if not isinstance(handle, str):
        return piece
    gone = State.UNCHECKED if action in _HOLDS_ALL else State.GONE
    if originals is None:
        return piece._replace(state=gone, reasons=("there is no store of originals",))
    try:
        original = originals.expand(handle)
    except ApportionError as error:
        return piece._replace(state=gone, reasons=(error.message,))
    if not isinstance(shown_handle, str):
        return piece._replace(state=State.RECOVERABLE)
    try:
        shown = originals.expand(shown_handle)
    except ApportionError as error:
        return piece._replace(state=State.RECOVERABLE, reasons=(f"what was sent: {error.message}",))
    wholly = action in _WHOLLY_BEHIND
    shown = _undone(shown, event.data.get("strategy"))
    if action == Action.STRUCTURE and (shown == original or _made_again(original) == shown):  # with proof by inverse
        found = check(original, shown, proved=True)
    elif (gaps := _gaps(original, shown)) is not None:
        found = check(original, shown, gaps=gaps, recoverable=original)
    else:
        markers = (shown,) if wholly else _markers(original, shown)
        found = check(original, shown, markers=markers, recoverable=original, constraints_may_hide=wholly)
    return piece._replace(
        state=_state(found, wholly=wholly),
        facts=found.facts,
        visible_facts=found.visible_facts,
        recoverable_facts=found.visible_facts + found.hidden_facts,
        similarity=None if compare is None or wholly else compare(original, shown),
        reasons=found.reasons,
    )


def _state(found: Check, *, wholly: bool) -> State:
    if found.proved or not (found.lost or found.new or found.lost_constraints):
        return State.ACCEPTED if found or wholly else State.RECOVERABLE
    return State.REJECTED


def _undone(shown: bytes, strategy: object) -> bytes:
    """Return what was shown, written as it was before the steps that lose nothing: they are undone from it alone."""
    leaves = Lossless().leaves
    steps = tuple(step for step in strategy.split("+") if step in leaves) if isinstance(strategy, str) else ()
    try:
        return restore(Outcome(shown, shown, 0, 0, steps), leaves.values())
    except Exception:  # noqa: BLE001  (it was not made by these steps, whatever the record says: it is taken as it is)
        return shown


def _gaps(original: bytes, shown: bytes) -> tuple[Gap, ...] | None:
    """Return the gaps of which markers tell, or `None` where filling them in would not give the original again."""
    markers = Markers.for_content(original)
    if markers is None:
        return None
    says = re2.compile(rf"\[{markers.nonce}: lines? (\d{{1,9}})(?:-(\d{{1,9}}))? left out[^\]\n]*\] *".encode())
    starts = [0, *accumulate(len(line) + 1 for line in original.split(b"\n"))]
    handle = Handle.of(original)
    gaps: list[Gap] = []
    filled: list[bytes] = []
    for line in shown.split(b"\n"):
        told = says.fullmatch(line)
        if told is None:
            filled.append(line)
            continue
        first, last = int(told[1]), int(told[2] or told[1])
        if not 1 <= first <= last < len(starts):
            return None
        span = Span(starts[first - 1], min(starts[last], len(original)))
        gaps.append(Gap(span, handle, "", told[0]))
        filled.append(original[span.start : span.end].removesuffix(b"\n"))
    return tuple(gaps) if gaps and b"\n".join(filled) == original else None


def _made_again(original: bytes) -> bytes:
    """Return the form that says all of an original in fewer tokens, proved anew."""
    return apply(Lossless(), Item(original), Query()).content


def _markers(original: bytes, shown: bytes) -> tuple[bytes, ...]:
    """Return the markers in what was shown: they begin with a nonce that the original does not hold."""
    markers = Markers.for_content(original)
    if markers is None:
        return ()
    starts = (f"[{markers.nonce}:".encode(), f"[{markers.nonce}]".encode())
    found, position = [], 0
    while (begin := min((at for mark in starts if (at := shown.find(mark, position)) >= 0), default=-1)) >= 0:
        end = shown.find(b"]", begin)
        if end < 0:
            break
        found.append(shown[begin : end + 1])
        position = end + 1
    return tuple(found)
