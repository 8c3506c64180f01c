"""Loading ahead: what an agent needs is read in the background when it is likely enough to come next.

    with Preloader(registry) as preloader:
        preloader.expect("code-reviewer", 0.83)      # from a forecast of the next agent; returns at once
        loaded = preloader.take("code-reviewer")     # from memory, or read now

Only this machine works: files are read, hashed, counted and shortened. No model is called, and no token is spent.
Contents are kept by the registry, within its limit of bytes. What comes without having been expected is read on demand,
and nobody waits for a file that another thread is reading already: both get it when it is there.
"""

from __future__ import annotations

import queue
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from apportion.compression.loading.forms import brief_form
from apportion.compression.loading.types import Entry, EntryKind
from apportion.errors import ApportionError, InputError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from apportion.compression.loading.registry import Registry

LEAST_CONFIDENCE = 0.7
"""A forecast has to be surer than this: of ten files that are read ahead, seven are then needed."""

MAX_WAITING = 64
"""Agents that may wait to be read; more are forgotten, and read on demand."""

MAX_FAILURES = 100
"""Reasons of failures that are kept."""


@dataclass(frozen=True, slots=True)
class PreloadCounts:
    """What came of loading ahead.

    Attributes:
        expected: Forecasts that were sure enough.
        unsure: Forecasts that were not.
        loaded: Agents that were loaded ahead.
        hits: Agents that were asked for and had been loaded ahead.
        misses: Agents that were asked for and had not, or were no longer in memory.
        wasted: Agents that were loaded ahead and have not been asked for.
        wasted_bytes: Bytes that were read for them.
        dropped: Forecasts that found too many others waiting.
        failures: Agents that could not be loaded ahead.
        loaded_ms: Milliseconds spent in the background.
        waited_ms: Milliseconds for which callers of `take` waited.
        bytes: Bytes in memory now.
        peak_bytes: Most bytes that were in memory.
    """

    expected: int = 0
    unsure: int = 0
    loaded: int = 0
    hits: int = 0
    misses: int = 0
    wasted: int = 0
    wasted_bytes: int = 0
    dropped: int = 0
    failures: int = 0
    loaded_ms: float = 0.0
    waited_ms: float = 0.0
    bytes: int = 0
    peak_bytes: int = 0


class Loaded(NamedTuple):
    """What an agent needs: the contents of its file, its tools and its skills.

    Attributes:
        contents: By entry, the agent first.
        ahead: Whether all of it had been loaded ahead.
        missing: Tools and skills that it names and that could not be loaded.
        forms: Shorter forms, by entry, of those that have one.
    """

    contents: dict[Entry, bytes]
    ahead: bool
    missing: tuple[str, ...] = ()
    forms: Mapping[Entry, bytes] = MappingProxyType({})


class Preloader:
    """Loads ahead in one background thread; safe to share between threads. `close` ends and joins it.

    Args:
        registry: Knows agents, tools and skills, and keeps what is loaded.
        least_confidence: A forecast has to be surer than this, in [0, 1].
        warm: Makes a shorter form of a content, kept beside it; `None` makes the brief form of tools.
        timer: Tells the time in seconds.

    Raises:
        InputError: The confidence is not within [0, 1].
    """

    def __init__(
        self,
        registry: Registry,
        *,
        least_confidence: float = LEAST_CONFIDENCE,
        warm: Callable[[Entry, bytes], bytes | None] | None = None,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        if not 0.0 <= least_confidence <= 1.0:
            raise InputError(f"a confidence of {least_confidence} is not within [0, 1]", hint="0.7 is seven in ten.")
        self.registry = registry
        self.least_confidence = least_confidence
        self._warm = warm or _brief_tool
        self._timer = timer
        self._lock = threading.Lock()
        self._waiting: queue.Queue[str | None] = queue.Queue()
        self._asked: set[str] = set()
        self._ahead: dict[str, int] = {}
        self._failures: dict[str, None] = {}
        self._counts: dict[str, float] = {each.name: 0 for each in fields(PreloadCounts)}
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="apportion-preload", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def failures(self) -> tuple[str, ...]:
        """Why agents could not be loaded ahead; the first `MAX_FAILURES` reasons."""
        with self._lock:
            return tuple(self._failures)

    def expect(self, agent: str, confidence: float) -> bool:
        """Say that an agent comes next with a confidence, and return whether it is loaded ahead; reads nothing.

        An agent that waits already, or was loaded and not yet taken, is not loaded twice. After `close` nothing is.
        """
        with self._lock:
            if not confidence > self.least_confidence:  # NaN is not either
                self._counts["unsure"] += 1
                return False
            self._counts["expected"] += 1
            if self._closed or self.registry.find(agent, EntryKind.AGENT) is None:
                return False
            if agent in self._asked or agent in self._ahead:
                return True
            if len(self._asked) >= MAX_WAITING:
                self._counts["dropped"] += 1
                return False
            self._asked.add(agent)
            self._waiting.put(agent)
            return True

    def take(self, agent: str) -> Loaded:
        """Return what an agent needs: from memory where it was loaded ahead, else read and shortened now.

        Raises:
            StoreError: The agent is unknown, or its file cannot be read.
        """
        began = self._timer()
        with self._lock:
            ahead = agent in self._ahead or agent in self._asked
        loaded, fresh = self._load(agent, current=True)
        forms = {}
        for entry, content in loaded.contents.items():
            with suppress(Exception):  # a form is a convenience: the content is there
                form = self._form(entry, content)
                if form:
                    forms[entry] = form
        with self._lock:
            hit = ahead and not fresh
            self._ahead.pop(agent, None)
            self._counts["hits" if hit else "misses"] += 1
            self._counts["waited_ms"] += (self._timer() - began) * 1e3
            self._note_size()
        return loaded._replace(ahead=hit, forms=forms)

    def counts(self) -> PreloadCounts:
        """Return what came of loading ahead so far."""
        with self._lock:
            values = self._counts | {"wasted": len(self._ahead), "wasted_bytes": sum(self._ahead.values())}
            values["bytes"] = self.registry.size
        whole: dict[str, Any] = {name: value if name.endswith("_ms") else int(value) for name, value in values.items()}
        return PreloadCounts(**whole)

    def settle(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing waits to be loaded, and return whether that is so."""
        ends = None if timeout_s is None else self._timer() + timeout_s
        with self._waiting.all_tasks_done:
            while self._waiting.unfinished_tasks:
                left = None if ends is None else ends - self._timer()
                if left is not None and left <= 0:
                    return False
                self._waiting.all_tasks_done.wait(left)
        return True

    def close(self) -> None:
        """Stop loading ahead and wait for the thread to end; `take` still loads on demand. May be called twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _work(self) -> None:
        while True:
            agent = self._waiting.get()
            try:
                if agent is None:
                    return
                if not self._closed:
                    self._load_ahead(agent)
            finally:
                self._waiting.task_done()

    def _load_ahead(self, agent: str) -> None:
        began = self._timer()
        size, failure = 0, ""
        try:
            loaded, _ = self._load(agent, current=False)
            size = sum(entry.size for entry in loaded.contents)
            for entry, content in loaded.contents.items():
                self._form(entry, content)
        except Exception as error:  # noqa: BLE001  (whatever fails here is tried again on demand)
            failure = f"{agent}: {error}"
        with self._lock:
            self._asked.discard(agent)
            self._counts["loaded_ms"] += (self._timer() - began) * 1e3
            self._note_size()
            if not failure:
                self._counts["loaded"] += 1
                self._ahead[agent] = size
                return
            self._counts["failures"] += 1
            if len(self._failures) < MAX_FAILURES:
                self._failures[failure] = None

    def _form(self, entry: Entry, content: bytes) -> bytes:
        """Return the shorter form of a content, made where it is not kept; empty where there is none."""
        key = entry.digest.encode()
        form = self.registry.kept(key)
        if form is None:
            form = self._warm(entry, content) or b""
            self.registry.keep(key, form)
        return form

    def _load(self, agent: str, *, current: bool) -> tuple[Loaded, bool]:
        """Return what an agent needs, and whether any of it had to be read."""
        look = self.registry.current if current else self.registry.find
        entry = look(agent, EntryKind.AGENT)
        if entry is None:
            raise StoreError(f"there is no agent {agent!r}", hint="See what there is: apportion registry list PATH")
        content, fresh = self.registry.fetch(entry)
        contents, missing = {entry: content}, []
        for name in entry.words:
            other = look(name, EntryKind.TOOL) or look(name, EntryKind.SKILL)
            if other is None:
                continue
            try:
                contents[other], read = self.registry.fetch(other)
                fresh = fresh or read
            except ApportionError as error:
                missing.append(f"{name}: {error.message}")
        return Loaded(contents, False, tuple(missing)), fresh

    def _note_size(self) -> None:
        self._counts["peak_bytes"] = max(self._counts["peak_bytes"], self.registry.size)


def _brief_tool(entry: Entry, content: bytes) -> bytes | None:
    return brief_form(content) if entry.kind is EntryKind.TOOL else None
