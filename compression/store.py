"""Originals kept by content hash, so that whatever a plan leaves out can be had back byte for byte.

`HandleStore` keeps them in memory, as long as it lives; `SqliteHandleStore` (`compression/sqlite_store.py`) in a file.
Contents are kept as they are; who must not read them must not be able to read the file.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from apportion.errors import InputError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from apportion.compression.markers import Lines

SHORT_DIGITS = 8
"""Hexadecimal digits of a short handle; more where two contents would share it."""


@dataclass(frozen=True, slots=True)
class Handle:
    """Names one stored original.

    Attributes:
        short: Shortest prefix of the digest that was free when the content was stored; it never changes meaning.
        digest: SHA-256 of the content, 64 hexadecimal digits.
        size: Length of the content in bytes.
    """

    short: str
    digest: str
    size: int

    def __str__(self) -> str:
        return f"h:{self.short}"

    @classmethod
    def of(cls, content: bytes) -> Handle:
        """Return the handle that a content gets where no other content has the same prefix."""
        digest = hashlib.sha256(content).hexdigest()
        return cls(digest[:SHORT_DIGITS], digest, len(content))


class HandleStore:
    """Content-addressed originals in memory; safe to share between threads.

    Nothing is ever evicted: a handle that was given out stays good. A full store refuses new contents instead.

    Args:
        max_bytes: Bytes of content that fit, or `None` for no limit.
        max_entries: Distinct contents that fit, or `None` for no limit.
    """

    def __init__(self, *, max_bytes: int | None = None, max_entries: int | None = None) -> None:
        self.max_bytes = max_bytes
        self.max_entries = max_entries
        self._lock = threading.Lock()
        self._by_digest: dict[str, Handle] = {}
        self._by_short: dict[str, tuple[Handle, bytes]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._by_digest)

    @property
    def failure(self) -> str | None:
        """Why the last content could not be kept, or `None` where it was."""
        return None

    @property
    def size(self) -> int:
        """Bytes of content held."""
        return self._bytes

    def put(self, content: bytes) -> Handle:
        """Keep a content and return its handle; the same content has the same handle.

        Raises:
            StoreError: The store is full.
        """
        handle = Handle.of(content)
        with self._lock:
            known = self._by_digest.get(handle.digest)
            if known is not None:
                return known
            self._refuse_overflow(handle.size)
            handle = replace(handle, short=self._free_prefix(handle.digest))
            self._by_digest[handle.digest] = handle
            self._by_short[handle.short] = (handle, content)
            self._bytes += handle.size
            return handle

    def expand(self, handle: Handle | str, start: int | None = None, end: int | None = None) -> bytes:
        """Return the original, or its bytes from `start` up to, not including, `end`.

        Args:
            handle: A handle, or its spelling with or without the leading `h:`.
            start: First byte, counted from 0; `None` is the beginning.
            end: Byte after the last one; `None` and anything beyond the content is its end.

        Raises:
            StoreError: The handle was never given out by this store.
            InputError: The range is negative or ends before it starts.
        """
        content = self._look_up(handle)
        first, last = start or 0, len(content) if end is None else end
        if first < 0 or last < first:
            raise InputError(f"range {start}..{end} is not within 0..{len(content)}", hint="Count bytes from 0.")
        return content[first:last]

    def expand_lines(self, handle: Handle | str, lines: Lines) -> bytes:
        """Return lines of the original, as markers count them: from 1, both ends included, split after line feeds.

        Args:
            handle: A handle, or its spelling with or without the leading `h:`.
            lines: Which lines; what lies beyond the last one is left out.

        Raises:
            StoreError: The handle was never given out by this store.
            InputError: The original has none of these lines.
        """
        content = self._look_up(handle)
        start = _start_of_line(content, lines.first) if 1 <= lines.first <= lines.last else -1
        if start < 0:
            count = content.count(b"\n") + (not content.endswith(b"\n") and bool(content))
            raise InputError(f"the original has no lines {lines}, it has {count}", hint="Count lines from 1.")
        end = _start_of_line(content, lines.last - lines.first + 2, start)
        return content[start:] if end < 0 else content[start:end]

    def renew(self, handle: Handle) -> bool:
        """Count a handle as given out again, and say whether its original is there."""
        with self._lock:
            return self._by_digest.get(handle.digest) == handle

    def write_out(self, handle: Handle | str, directory: Path) -> Path:
        """Write an original into a directory, where an agent that reads files finds it without another tool.

        Args:
            handle: A handle, or its spelling.
            directory: Where to; it is created if it is missing.

        Returns:
            The file: the directory, and the handle without its leading `h:`.

        Raises:
            StoreError: The handle was never given out by this store, or the file cannot be written.
        """
        content = self._look_up(handle)
        short = handle.short if isinstance(handle, Handle) else handle.strip().removeprefix("h:")
        target = directory / short
        try:
            directory.mkdir(parents=True, exist_ok=True)
            partial = target.with_suffix(".partial")
            partial.write_bytes(content)
            partial.replace(target)
        except OSError as error:
            raise StoreError(f"cannot write an original to {target}: {error}", hint="Name another directory") from error
        return target

    def _look_up(self, handle: Handle | str) -> bytes:
        short = handle.short if isinstance(handle, Handle) else handle.strip().removeprefix("h:")
        with self._lock:
            entry = self._by_short.get(short)
        if entry is None or (isinstance(handle, Handle) and entry[0] != handle):
            raise StoreError(
                f"unknown handle {short!r}",
                hint="Spell a handle as it was given out, for example h:3fa9c2d1; another store's handles are unknown.",
            )
        return entry[1]

    def _refuse_overflow(self, size: int) -> None:
        if self.max_entries is not None and len(self._by_digest) >= self.max_entries:
            raise StoreError(f"the handle store is full: {self.max_entries} contents", hint="Raise max_entries.")
        if self.max_bytes is not None and self._bytes + size > self.max_bytes:
            raise StoreError(
                f"{size} bytes do not fit the handle store: {self._bytes} of {self.max_bytes} bytes are used",
                hint="Raise max_bytes, or keep the content in the prompt.",
            )

    def _free_prefix(self, digest: str) -> str:
        return free_prefix(digest, self._by_short.__contains__)


def free_prefix(digest: str, taken: Callable[[str], bool]) -> str:
    """Return the shortest prefix of a digest, of `SHORT_DIGITS` or more, that is not taken."""
    for digits in range(SHORT_DIGITS, len(digest)):
        if not taken(digest[:digits]):
            return digest[:digits]
    return digest


def _start_of_line(content: bytes, number: int, start: int = 0) -> int:
    """Return where a line begins, counted from 1 at `start`; negative where there is no such line."""
    for _ in range(number - 1):
        start = content.find(b"\n", start) + 1
        if not start:
            return -1
    return start if start < len(content) else -1
