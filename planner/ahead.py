"""Work that is done ahead of time, in one thread beside the request path: shorter forms of new results, and plans."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PAUSE_S = 0.005
"""Seconds by which work is put off; a model takes many times that for its answer."""


class Ahead:
    """Runs one piece of work after the other, in the background; what fails there is as if it had not been done."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self.failures = 0
        """Pieces of work that failed."""

    def do(self, work: Callable[[], object]) -> None:
        """Do a piece of work soon; after `close` it is not done at all."""

        def safely() -> None:
            time.sleep(PAUSE_S)  # who gave the work is answered first: both share the interpreter
            try:
                work()
            except Exception:  # noqa: BLE001  (nobody waits for it; whoever needs the result makes it anew)
                self.failures += 1

        with self._lock, suppress(RuntimeError):  # the interpreter ends
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, thread_name_prefix="apportion-ahead")
            self._pool.submit(safely)

    def wait(self) -> None:
        """Wait until all work that was given so far is done."""
        with self._lock:
            pool = self._pool
        if pool is not None:
            pool.submit(lambda: None).result()

    def close(self) -> None:
        """Finish the piece that is being worked on, and drop the others."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
