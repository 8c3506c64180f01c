"""A cache in memory: least recently used goes first, nothing is older than it may be, and nobody works twice.

One lock guards everything; it is never held while a value is worked out or a second level is asked. A key stands for
one value: who wants another value asks for another key.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import OrderedDict
from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

from apportion.compression.cache.types import DamagedError
from apportion.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from apportion.compression.cache.types import Found, SecondLevel

ENTRY_BYTES = 200
"""What an entry takes beyond its key and value, about; it counts too, so that many small ones do not add up."""

RETRY_S = 1.0
"""A second level that failed is left alone for so long: a server that hangs must not delay every call."""


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """What a cache was asked, and what it did.

    Attributes:
        hits: Answered from memory.
        second_hits: Answered by the second level.
        waited: Answered by what another thread was working out at that moment.
        misses: Not answered.
        evictions: Entries that made room for others.
        expired: Entries that became too old.
        refused: Values that are larger than the whole cache.
        damaged: Entries of the second level that were not what was put there.
        failures: Times that the second level failed.
    """

    hits: int = 0
    second_hits: int = 0
    waited: int = 0
    misses: int = 0
    evictions: int = 0
    expired: int = 0
    refused: int = 0
    damaged: int = 0
    failures: int = 0

    @property
    def asked(self) -> int:
        """How often the cache was asked."""
        return self.hits + self.second_hits + self.waited + self.misses

    @property
    def hit_ratio(self) -> float | None:
        """Share of the questions that were answered, in [0, 1]; `None` where nobody asked."""
        return 1 - self.misses / self.asked if self.asked else None

    def __add__(self, other: CacheCounts) -> CacheCounts:
        return CacheCounts(*map(sum, zip(astuple(self), astuple(other), strict=True)))


class _Entry(NamedTuple):
    value: bytes
    size: int
    expires: float | None
    number: int  # tells an entry from a later one of the same key


class _Flight:
    """A value that a thread is working out, and for which others wait."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.done = threading.Event()
        self.value: bytes | None = None
        self.error: Exception | None = None


class Cache:
    """Values by keys, both bytes, within limits of bytes, entries and age; safe to share between threads.

    Args:
        max_bytes: Bytes of all keys and values, with `ENTRY_BYTES` for each entry; a larger value is not kept.
        max_entries: Entries that are kept.
        ttl_s: Seconds after which a value is forgotten; `None` for never.
        second: Asked for what is not in memory, and given what is new.
        timer: Tells the time in seconds; it must not go backwards.

    Raises:
        InputError: A limit is negative.
    """

    def __init__(
        self,
        *,
        max_bytes: int = 64 * 2**20,
        max_entries: int = 10_000,
        ttl_s: float | None = None,
        second: SecondLevel | None = None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_bytes < 0 or max_entries < 0 or (ttl_s is not None and not ttl_s >= 0):
            raise InputError("a limit of the cache is negative", hint="0 keeps nothing; leave out ttl_s for no limit.")
        self.max_bytes = max_bytes
        self.max_entries = max_entries
        self.ttl_s = ttl_s
        self._second = second
        self._timer = timer
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()  # the least recently used one first
        self._expiries: list[tuple[float, int, bytes]] = []  # a heap; holds entries that are gone, too
        self._flights: dict[bytes, _Flight] = {}
        self._numbers = itertools.count()
        self._bytes = 0
        self._changes = 0  # how often something was to be forgotten
        self._second_rests_until: float | None = None
        self._counts = {each.name: 0 for each in fields(CacheCounts)}

    def __len__(self) -> int:
        """Return the number of entries, without those that are too old."""
        with self._lock:
            self._forget_old()
            return len(self._entries)

    @property
    def size(self) -> int:
        """Bytes that count against `max_bytes`."""
        with self._lock:
            self._forget_old()
            return self._bytes

    def counts(self) -> CacheCounts:
        """Return what the cache was asked, and what it did, so far."""
        with self._lock:
            return CacheCounts(**self._counts)

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, or `None`; never raises."""
        with self._lock:
            value = self._recent(key)
            if value is not None:
                self._counts["hits"] += 1
                return value
        value = self._from_second(key)
        with self._lock:
            self._counts["misses" if value is None else "second_hits"] += 1
        return value

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value; what is larger than the whole cache is not kept in memory. Never raises."""
        with self._lock:
            self._flights.pop(key, None)  # what is being worked out must not replace it
            self._keep(key, value, self.ttl_s)
        self._to_second(key, value)

    def get_or_compute(self, key: bytes, compute: Callable[[], bytes]) -> bytes:
        """Return the value of a key, worked out where it is not known: once, however many threads ask for it.

        Args:
            key: The key.
            compute: Works the value out; what it raises reaches all that wait for it, and is not kept.
        """
        while True:
            with self._lock:
                value = self._recent(key)
                if value is not None:
                    self._counts["hits"] += 1
                    return value
                flight = self._flights.get(key)
                if flight is None:
                    mine = self._flights[key] = _Flight()
            if flight is None:
                return self._fly(key, mine, compute)
            if flight.thread == threading.get_ident():  # computing a value asks for the value itself
                return compute()
            flight.done.wait()
            if flight.error is not None:
                raise flight.error
            if flight.value is not None:
                with self._lock:
                    self._counts["waited"] += 1
                return flight.value
            # who worked it out was interrupted: somebody else has to

    def discard(self, key: bytes) -> None:
        """Forget the value of a key, if there is one; what is being worked out will not be kept. Never raises."""
        with self._lock:
            self._changes += 1
            self._flights.pop(key, None)
            self._remove(key)
        self._try_second(lambda second: second.discard(key))

    def clear(self) -> None:
        """Forget everything, also what is being worked out. Never raises."""
        with self._lock:
            self._changes += 1
            self._flights.clear()
            self._entries.clear()
            self._expiries.clear()
            self._bytes = 0
        self._try_second(lambda second: second.clear())

    def close(self) -> None:
        """Give the second level what was counted, and end it. Never raises."""
        second, self._second = self._second, None
        if second is not None:
            try:
                second.close(self.counts())
            except Exception:  # noqa: BLE001  (a cache is never needed)
                with self._lock:
                    self._counts["failures"] += 1

    def _fly(self, key: bytes, flight: _Flight, compute: Callable[[], bytes]) -> bytes:
        """Work a value out, for oneself and for those that wait."""
        try:
            value = self._from_second(key)
            known = value is not None
            with self._lock:
                self._counts["second_hits" if known else "misses"] += 1
            if value is None:
                value = compute()
            flight.value = value
            with self._lock:
                wanted = self._flights.get(key) is flight
                if wanted and not known:
                    self._keep(key, value, self.ttl_s)
            if wanted and not known:
                self._to_second(key, value)
        except Exception as error:
            flight.error = error
            raise
        else:
            return value
        finally:
            with self._lock:
                if self._flights.get(key) is flight:
                    del self._flights[key]
            flight.done.set()

    # What is done under the lock.

    def _recent(self, key: bytes) -> bytes | None:
        self._forget_old()
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry.value

    def _keep(self, key: bytes, value: bytes, ttl_s: float | None) -> None:
        self._forget_old()
        self._remove(key)
        size = len(key) + len(value) + ENTRY_BYTES
        if size > self.max_bytes or not self.max_entries:
            self._counts["refused"] += 1
            return
        while self._bytes + size > self.max_bytes or len(self._entries) >= self.max_entries:
            self._remove(next(iter(self._entries)))
            self._counts["evictions"] += 1
        expires = None if ttl_s is None else self._timer() + ttl_s
        entry = self._entries[key] = _Entry(value, size, expires, next(self._numbers))
        self._bytes += size
        if expires is not None:
            heapq.heappush(self._expiries, (expires, entry.number, key))
            if len(self._expiries) > 2 * len(self._entries) + 100:
                self._expiries = [
                    (each.expires, each.number, name)
                    for name, each in self._entries.items()
                    if each.expires is not None
                ]
                heapq.heapify(self._expiries)

    def _remove(self, key: bytes) -> bool:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.size
        return entry is not None

    def _forget_old(self) -> None:
        if not self._expiries:
            return
        now = self._timer()
        while self._expiries and self._expiries[0][0] <= now:
            _, number, key = heapq.heappop(self._expiries)
            entry = self._entries.get(key)
            if entry is not None and entry.number == number:
                self._remove(key)
                self._counts["expired"] += 1

    # The second level, never under the lock.

    def _from_second(self, key: bytes) -> bytes | None:
        """Return what the second level holds, and keep it in memory for as long as it may still be kept."""
        changes = self._changes
        found = self._try_second(lambda second: second.get(key))
        if found is None:
            return None
        left = None if self.ttl_s is None else self.ttl_s - found.age_s
        if left is not None and left <= 0:
            return None
        with self._lock:
            if changes == self._changes and key not in self._entries:
                self._keep(key, found.value, left)
        return found.value

    def _to_second(self, key: bytes, value: bytes) -> None:
        self._try_second(lambda second: second.put(key, value, self.ttl_s))

    def _try_second(self, use: Callable[[SecondLevel], Found | None]) -> Found | None:
        """Use the second level; where that fails, count it, and leave it alone for a while."""
        second, rests_until = self._second, self._second_rests_until
        if second is None or (rests_until is not None and self._timer() < rests_until):
            return None
        try:
            return use(second)
        except DamagedError:
            with self._lock:
                self._counts["damaged"] += 1
        except Exception:  # noqa: BLE001  (a server may fail in any way)
            with self._lock:
                self._counts["failures"] += 1
                self._second_rests_until = self._timer() + RETRY_S
        return None
