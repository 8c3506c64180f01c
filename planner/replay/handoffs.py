"""What travels to a sub-agent that somebody else in the workflow holds already: saved on the way, not in any prompt.

When an agent run begins, its first prompt goes to a machine that may hold what the parent's prompt held. Then a delta
against that is enough on the way; the model still has to read all of it, since nothing stands in its prompt yet. So
what is counted here is in none of the five ledgers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion.compression.diff.envelope import Form, enclose
from apportion.compression.diff.types import Context, Reason, Section
from apportion.compression.strategies.types import count_bytes
from apportion.planner.replay.results import Diffs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apportion.telemetry.events import Event


def hand_off(events: Sequence[Event], entering: Iterable[int], held: Iterable[int]) -> Diffs:
    """Return what a delta would save on the way to a run that begins.

    Args:
        events: The workflow.
        entering: The pieces of its first prompt.
        held: The pieces that its parent's prompt holds.
    """
    target = _context(events[position] for position in entering)
    base = _context(events[position] for position in held)
    whole = target.tokens(count_bytes)
    if not whole:
        return Diffs()
    envelope = enclose(target, base if base.sections else None, reason=Reason.NO_BASE)
    found = Diffs(handoffs=1, handoff_tokens=whole)
    if envelope.form is not Form.DELTA:
        found.handoff_fallbacks[str(envelope.reason)] += 1
        return found
    found.checks = 1  # `enclose` has tried the delta
    found.handoff_deltas = 1
    found.transport_only_tokens = max(0, whole - count_bytes(envelope.data))
    return found


def _context(events: Iterable[Event]) -> Context:
    pieces = (event for event in events if event.content and not event.kind.written_by_model)
    return Context.of(Section(str(event.kind), content=_bytes(event.content)) for event in pieces)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
