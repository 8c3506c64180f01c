"""What a session tells of itself while it runs: a bounded queue that never holds the session up, and never raises.

    with Telemetry.to_store(path) as telemetry:
        telemetry.record({"kind": "usage", "workflow": "release notes", "agent": "writer", "output_tokens": 210})

Whoever would rather lose telemetry than have it change the work is right: a full queue drops the event, a store that
fails loses a batch. Every loss is counted, and the counts are written with the next batch, so that `apportion status`
shows them. What events are, and what is kept of them, says `live_events`.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import weakref
from collections import deque
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from apportion.telemetry.live_events import Cleaner, LiveEvent, loss_event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

QUEUE_EVENTS = 2048
"""Events that wait to be written at most, as OpenTelemetry's batch processor has it."""

BATCH_EVENTS = 512
"""Events that are written in one go; so many wake the writer at once."""

DELAY_S = 1.0
"""Longest time that an event waits for others, in seconds."""

EXIT_S = 2.0
"""Longest time that the end of the process waits for the last events, in seconds."""


class Sink(Protocol):
    """Where events go; called from the writer's thread only."""

    def write(self, events: Sequence[LiveEvent]) -> None:
        """Write some events; whatever it raises counts as their loss."""

    def close(self) -> None:
        """End the work."""


class Counts(NamedTuple):
    """What became of the events that were recorded.

    Attributes:
        accepted: Events that found a place in the queue.
        dropped: Events that did not, because it was full or closed.
        malformed: Events that were none.
        written: Events that every sink took.
        failed: Events that a sink lost.
        waiting: Events in the queue.
        problem: Type and message of a sink's last failure, or `None`.
    """

    accepted: int
    dropped: int
    malformed: int
    written: int
    failed: int
    waiting: int
    problem: str | None


class Telemetry:
    """Takes events from any thread at once, and writes them in a thread of its own.

    `record` takes no lock and waits for nothing, so it may be called from a signal handler too. A process made by a
    fork begins with an empty queue.

    Args:
        sinks: Where the events go.
        cleaner: Takes out what must not be kept; by default, names and numbers stay.
        capacity: Events that wait at most.
        batch: Events that are written in one go.
        delay_s: Longest time that an event waits for others, in seconds.
        clock: Gives the time of an event, in nanoseconds since 1970.
    """

    def __init__(
        self,
        sinks: Sequence[Sink] = (),
        *,
        cleaner: Cleaner | None = None,
        capacity: int = QUEUE_EVENTS,
        batch: int = BATCH_EVENTS,
        delay_s: float = DELAY_S,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._sinks = tuple(sinks)
        self._cleaner = cleaner or Cleaner()
        self._capacity = capacity
        self._batch = min(batch, capacity)
        self._delay_s = delay_s
        self._clock = clock
        self._closed = False
        self._woken = self._ended = False
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._reset()
        _instances.add(self)

    @classmethod
    def to_store(cls, path: Path, *, sinks: Sequence[Sink] = (), capture_content: bool = False) -> Self:
        """Return telemetry that is written to a telemetry store.

        Args:
            path: The file of the store; it is created where it does not exist.
            sinks: Where events go besides, for example `otel.OpenTelemetrySink()`.
            capture_content: Keep texts, secrets taken out, beside names and numbers.

        Raises:
            StoreError: The store cannot be opened. Later failures raise nothing.
        """
        from apportion.telemetry.sessions import StoreSink

        sink = StoreSink(path)
        return cls((sink, *sinks), cleaner=Cleaner(sink.hasher, capture_content=capture_content))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def record(self, event: Mapping[str, object]) -> bool:
        """Take an event, or drop it where there is no room; never raises and never waits.

        Args:
            event: Its kind under `kind`, and its fields; see `live_events`. Values must not be changed afterwards.

        Returns:
            Whether it found a place.
        """
        try:
            entry = (self._clock(), dict(event))
        except Exception:  # noqa: BLE001  (telemetry never stands in the way of the work)
            _count(self._malformed)
            return False
        try:
            (_NO_PLACES if self._closed else self._places).pop()  # atomic: the queue never exceeds its capacity
        except IndexError:
            _count(self._dropped)
            return False
        self._waiting.append(entry)
        if self._thread is None:
            self._start()
        elif not self._woken and len(self._waiting) >= self._batch:
            self._woken = True
            self._wake.put(None)
        return True

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until all that was recorded before is written or lost; return whether that was in time."""
        if self._ended or (self._thread is None and not self._waiting):
            return not self._waiting
        done = threading.Event()
        self._start()
        self._wake.put(done)
        return done.wait(timeout_s)

    def close(self, timeout_s: float = 5.0) -> bool:
        """Write what waits, and end; return whether that was in time. Closing twice is fine."""
        self._closed = True
        with self._starting:
            thread, unused = self._thread, self._thread is None and not self._ended
            self._ended = True
        if unused:  # nobody else writes
            self._write_all()
            self._close_sinks()
        elif thread is not None and thread is not threading.current_thread():
            self._wake.put(None)
            thread.join(timeout_s)
            return not thread.is_alive()
        return True

    @property
    def counts(self) -> Counts:
        """What became of the events so far."""
        dropped, malformed = _total(self._dropped), _total(self._malformed)
        waiting = len(self._waiting)
        return Counts(
            self._taken + waiting,
            dropped,
            malformed + self._unusable,
            self._written,
            self._failed,
            waiting,
            self._problem,
        )

    def _reset(self) -> None:
        """Begin with an empty queue and no thread."""
        self._places: deque[None] = deque([None] * self._capacity)
        self._waiting: deque[tuple[int, dict[str, object]]] = deque()
        self._wake: SimpleQueue[threading.Event | None] = SimpleQueue()
        self._woken = self._ended = False
        self._thread = None
        self._starting = threading.Lock()
        self._dropped: dict[int, int] = {}
        self._malformed: dict[int, int] = {}
        self._taken = self._unusable = self._written = self._failed = 0
        self._told = (0, 0, 0)
        self._problem: str | None = None

    def _start(self) -> None:
        """Start the writer, unless another thread is doing so or it runs."""
        if self._thread is not None or self._ended or not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is None and not self._ended:
                thread = threading.Thread(target=self._run, name="apportion-telemetry", daemon=True)
                thread.start()
                self._thread = thread
        except RuntimeError:  # no more threads, or the process ends: `close` writes what waits
            pass
        finally:
            self._starting.release()

    def _run(self) -> None:
        while True:
            flushed: list[threading.Event] = []
            with contextlib.suppress(Empty):
                asked = self._wake.get(timeout=self._delay_s)
                flushed += [asked] if asked is not None else []
            self._woken = False
            self._write_all()
            for done in flushed:
                done.set()
            if self._closed and not self._waiting and self._wake.empty():
                break
        self._close_sinks()

    def _write_all(self) -> None:
        """Write all that waits, batch by batch."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
            self._taken += len(batch)
            self._places.extend([None] * len(batch))
            self._write(self._cleaned(batch))
        self._write([])

    def _cleaned(self, batch: Sequence[tuple[int, dict[str, object]]]) -> list[LiveEvent]:
        events = []
        for at, fields in batch:
            try:
                events.append(self._cleaner.clean(at, fields))
            except Exception:  # noqa: BLE001  (whatever it was, it was no event)
                self._unusable += 1
        return events

    def _write(self, events: list[LiveEvent]) -> None:
        """Write a batch to every sink, with what was lost since the last one that was written."""
        lost = (_total(self._dropped), _total(self._malformed) + self._unusable, self._failed)
        news = [now - before for now, before in zip(lost, self._told, strict=True)]
        reason = self._problem.partition(":")[0] if self._problem is not None and news[2] else None
        extra = [loss_event(self._clock(), news[0], news[1], news[2], reason)] if any(news) else []
        if not events and not extra:
            return
        complete = True
        for sink in self._sinks:
            try:
                sink.write([*events, *extra])
            except Exception as error:  # noqa: BLE001  (a sink that fails loses its batch, and nothing else)
                complete = False
                self._problem = f"{type(error).__name__}: {error}"
        if complete:
            self._told = lost
            self._written += len(events)
        else:
            self._failed += len(events)

    def _close_sinks(self) -> None:
        for sink in self._sinks:
            try:
                sink.close()
            except Exception as error:  # noqa: BLE001  (nobody is left to be told)
                self._problem = f"{type(error).__name__}: {error}"


_NO_PLACES: deque[None] = deque()
"""What a queue that is closed has left."""


def _count(totals: dict[int, int]) -> None:
    """Add one to a count without a lock: each thread has its own."""
    mine = threading.get_ident()
    totals[mine] = totals.get(mine, 0) + 1


def _total(totals: dict[int, int]) -> int:
    return sum(list(totals.values()))


_instances: weakref.WeakSet[Telemetry] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    deadline = time.monotonic() + EXIT_S
    for telemetry in list(_instances):
        telemetry.close(max(0.0, deadline - time.monotonic()))


def _after_fork() -> None:
    for telemetry in list(_instances):
        telemetry._reset()  # noqa: SLF001  (the parent writes what waited there)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
