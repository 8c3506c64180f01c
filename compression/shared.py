"""Who holds what: the contexts of one workflow, each section kept once, and which agent run has which in its prompt.

    shared = SharedContexts(ttl_s=300)
    shared.note_sent("sub:a1", context)
    offer = shared.offer("sub:a1", next_context)
    offer.base                          # the context to build a delta on, or None and offer.reason
    offer.references                    # section 3 of the new context stands as section 7 in the held one

Model APIs keep no state: a run holds what its last prompt held, and what it wrote since. A run that ended holds
nothing, one that was compacted only what the compaction left, and one that was quiet for too long what nobody should
count on. An offer is made only where it is true at this moment.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from apportion.compression.diff.envelope import Form, enclose
from apportion.compression.diff.types import Context, Reason
from apportion.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from apportion.compression.diff.envelope import Envelope
    from apportion.compression.diff.types import Section

MAX_BYTES = 256 * 2**20
"""Bytes of distinct sections that are kept by default."""

MAX_RUNS = 10_000
"""Agent runs that are remembered by default."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What can be sent to an agent run instead of a whole context.

    Attributes:
        base: What it holds and a delta may be built on; `None` where there is nothing.
        reason: Why there is no base; `None` where there is one.
        references: By number of the new section, counted from 0, the number of the held section with the same content.
    """

    base: Context | None
    reason: Reason | None = None
    references: Mapping[int, int] = field(default_factory=dict)


class Holding(NamedTuple):
    """What an agent run holds, and since when, in seconds of the clock."""

    context: Context
    since_s: float


class SharedContexts:
    """The contexts of one workflow; safe to share between threads. Workflows and tenants never share one.

    Where it is full, what was sent longest ago is given up: its run is then sent the whole, and told why.

    Args:
        ttl_s: Seconds after which a run that was sent nothing is taken to hold nothing; `None` for never.
        max_bytes: Bytes of distinct sections that are kept.
        max_runs: Agent runs that are remembered.
        timer: Tells the time in seconds; it never goes back.
    """

    def __init__(
        self,
        *,
        ttl_s: float | None = None,
        max_bytes: int = MAX_BYTES,
        max_runs: int = MAX_RUNS,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_bytes < 0 or max_runs < 1 or (ttl_s is not None and not ttl_s >= 0):
            raise InputError("a limit of shared contexts is negative", hint="Give limits of 0 or more.")
        self.ttl_s = ttl_s
        self.max_bytes = max_bytes
        self.max_runs = max_runs
        self._timer = timer
        self._lock = threading.RLock()
        self._holdings: dict[str, Holding] = {}
        self._gone: dict[str, Reason] = {}
        self._sections: dict[Section, Section] = {}
        self._uses: Counter[Section] = Counter()
        self._bytes = 0

    @property
    def size(self) -> int:
        """Bytes of the distinct sections that are kept."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._holdings)

    def note_sent(self, run: str, context: Context) -> None:
        """Take note that a context is now the prompt of a run, in place of what it had.

        That is the rule for an edited history too: what the new prompt lacks is no longer held.
        """
        now = self._timer()
        with self._lock:
            self._drop(run)
            if sum(len(section.content) for section in set(context.sections)) > self.max_bytes:
                self._give_up(run, Reason.BASE_EVICTED)
                return
            self._gone.pop(run, None)
            self._holdings[run] = Holding(self._kept(context), now)
            while self._bytes > self.max_bytes or len(self._holdings) > self.max_runs:
                oldest = next(iter(self._holdings))
                self._drop(oldest)
                self._give_up(oldest, Reason.BASE_EVICTED)

    def note_written(self, run: str, sections: tuple[Section, ...]) -> None:
        """Take note of what a run wrote itself, which now stands at the end of its context."""
        with self._lock:
            holding = self._current(run)
            if holding is not None:
                self.note_sent(run, Context(holding.context.sections + sections))

    def note_compacted(self, run: str, left: Context | None = None) -> None:
        """Take note that a run was compacted.

        Args:
            run: The run.
            left: What it holds now; `None` where that is not known, so that nothing can be built on it.
        """
        if left is not None:
            self.note_sent(run, left)
            return
        self._forget(run, Reason.BASE_EXPIRED)

    def note_ended(self, run: str) -> None:
        """Take note that a run has ended; whatever is its successor holds nothing of it."""
        self._forget(run, Reason.BASE_EXPIRED)

    def holding(self, run: str) -> Holding | None:
        """Return what a run holds at this moment, or `None`."""
        with self._lock:
            return self._current(run)

    def holders(self, section: Section) -> tuple[str, ...]:
        """Return the runs that hold a section at this moment, in the order in which they were last sent something."""
        with self._lock:
            current = {run: self._current(run) for run in tuple(self._holdings)}
            return tuple(run for run, held in current.items() if held and section in held.context.sections)

    def offer(self, run: str, target: Context) -> Offer:
        """Say what a run can be sent instead of a whole context."""
        with self._lock:
            holding = self._current(run)
            if holding is None:
                return Offer(None, self._gone.get(run, Reason.NO_BASE))
        places: dict[bytes, int] = {}
        for number, section in enumerate(holding.context.sections):
            places.setdefault(section.content, number)
        references = {
            number: places[section.content]
            for number, section in enumerate(target.sections)
            if section.content in places
        }
        return Offer(holding.context, None, references)

    def enclose(self, run: str, target: Context, *, form: Form = Form.DELTA, note: bool = True) -> Envelope:
        """Return the envelope of a context for a run: a delta if it holds a base, else the whole and why.

        Args:
            run: Who is to get it.
            target: The context.
            form: `Form.DELTA` for models, `Form.ZSTD` for machines, `Form.FULL` where the run knows no deltas.
            note: Whether it is sent at once, so that the run holds it from now on.
        """
        offer = self.offer(run, target)
        reason = Reason.NOT_UNDERSTOOD if form is Form.FULL else offer.reason or Reason.NO_BASE
        envelope = enclose(target, offer.base, reason=reason, form=form)
        if note:
            self.note_sent(run, target)
        return envelope

    def _current(self, run: str) -> Holding | None:
        holding = self._holdings.get(run)
        if holding is None or self.ttl_s is None or self._timer() - holding.since_s <= self.ttl_s:
            return holding
        self._drop(run)
        self._give_up(run, Reason.BASE_EXPIRED)
        return None

    def _forget(self, run: str, reason: Reason) -> None:
        with self._lock:
            self._drop(run)
            self._give_up(run, reason)

    def _give_up(self, run: str, reason: Reason) -> None:
        self._gone.pop(run, None)
        self._gone[run] = reason
        if len(self._gone) > self.max_runs:
            del self._gone[next(iter(self._gone))]

    def _drop(self, run: str) -> None:
        holding = self._holdings.pop(run, None)
        for section in holding.context.sections if holding else ():
            self._uses[section] -= 1
            if not self._uses[section]:
                del self._uses[section], self._sections[section]
                self._bytes -= len(section.content)

    def _kept(self, context: Context) -> Context:
        """Return the context made of the sections that are kept already where they are equal."""
        for section in context.sections:
            if section not in self._sections:
                self._sections[section] = section
                self._bytes += len(section.content)
            self._uses[section] += 1
        return Context(tuple(self._sections[section] for section in context.sections))
