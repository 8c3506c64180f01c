"""Originals in one SQLite file, for handles that outlive the process and are shared by several.

    with SqliteHandleStore(path, max_bytes=500_000_000, max_age_days=30) as store:
        handle = store.put(content)
        store.expand(str(handle), 0, 4000)

A store with limits forgets: originals that were given out too long ago, and the oldest where there is no room. Only
whole originals go, an account of each remains, and who asks for one is told when it went and why. Contents are
compressed, not encrypted: that is for the file system. The file has mode 0600, a folder made for it 0700.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, Self

import zstandard

from apportion.compression.store import Handle, HandleStore, free_prefix
from apportion.errors import InputError, StoreError
from apportion.telemetry._database import Database
from apportion.telemetry._migrations import Schema

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

ACCOUNTS = 100_000
"""Evicted originals of which it is known when they went; of older ones the handle is unknown again."""

PAUSE_S = 1.0
"""After a failure of a store that is not waited for, nothing is put for so long."""

LEVEL = 3
"""Level of zstd: fast, and what is left out is mostly text that shrinks well at any level."""

_DAY_US = 86_400_000_000
_APPLICATION_ID = int.from_bytes(b"apph", "big")

_SCHEMA = Schema(
    "store of originals",
    _APPLICATION_ID,
    (
        (
            f"PRAGMA application_id = {_APPLICATION_ID}",
            """
            CREATE TABLE originals (
                key INTEGER PRIMARY KEY,
                digest BLOB NOT NULL UNIQUE,     -- SHA-256 of the content
                short TEXT NOT NULL UNIQUE,      -- as it was given out
                size INTEGER NOT NULL,           -- bytes of the content
                stored_bytes INTEGER NOT NULL,   -- bytes of the column content
                given_us INTEGER NOT NULL,       -- when it was last given out; microseconds since 1970, UTC
                content BLOB NOT NULL            -- a frame of zstd
            )
            """,
            "CREATE INDEX originals_by_age ON originals (given_us, key)",
            """
            CREATE TABLE evicted (
                key INTEGER PRIMARY KEY,
                digest BLOB NOT NULL UNIQUE,
                short TEXT NOT NULL UNIQUE,
                evicted_us INTEGER NOT NULL,
                reason TEXT NOT NULL
            )
            """,
            """
            CREATE TABLE totals (
                contents INTEGER NOT NULL,
                bytes INTEGER NOT NULL,
                stored_bytes INTEGER NOT NULL,
                evictions INTEGER NOT NULL
            )
            """,
            "INSERT INTO totals VALUES (0, 0, 0, 0)",
        ),
    ),
    "",
)

_RECOUNT = (
    "UPDATE totals SET (contents, bytes, stored_bytes) = "
    "(SELECT count(*), coalesce(sum(size), 0), coalesce(sum(stored_bytes), 0) FROM originals)"
)
_COUNTED = "SELECT count(*), coalesce(sum(size), 0), coalesce(sum(stored_bytes), 0) FROM originals"
_NOTED = "SELECT contents, bytes, stored_bytes FROM totals"


class StoreTotals(NamedTuple):
    """What a store of originals holds.

    Attributes:
        contents: Distinct originals.
        bytes: Their bytes.
        stored_bytes: The bytes that they take, compressed.
        evictions: Originals that were ever evicted.
    """

    contents: int
    bytes: int
    stored_bytes: int
    evictions: int


class SqliteHandleStore(HandleStore):
    """Content-addressed originals in a file; safe to share between threads and processes.

    Every original is checked against its digest when it is read: a damaged one is refused, and putting it again mends
    it.

    Args:
        path: The file; it is created where it does not exist.
        max_bytes: Bytes that originals may take, compressed; the oldest go first. `None` for no limit.
        max_age_days: Originals that were last given out longer ago go, whenever another is put or the store is opened.
            `None` for no limit.
        wait_s: How long `put` waits for other writers, in seconds; where it fails, the next ones fail at once for a
            second: for those who can go on with the whole content. `None`: 5 seconds each time.
        clock: Tells the time in seconds since 1970; for tests.
        timer: Tells seconds that never go back; for tests.

    Raises:
        InputError: A limit is negative.
        StoreError: The file is not a store of originals, too new, damaged, or cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int | None = None,
        max_age_days: float | None = None,
        wait_s: float | None = None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(max_bytes=max_bytes)
        if (max_bytes is not None and max_bytes < 0) or (max_age_days is not None and not max_age_days >= 0):
            raise InputError("a limit of the store of originals is negative", hint="Leave it out for no limit.")
        self.max_age_days = max_age_days
        self._clock = clock
        self._waits = wait_s is None
        self._timer = timer
        self._failure: tuple[float, str] | None = None
        self._database = Database(path, _SCHEMA, busy_seconds=wait_s)
        self.path = self._database.path
        if max_age_days is not None:
            with self._database.writing() as connection:
                self._evict_old(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self.totals().contents

    @property
    def size(self) -> int:
        """Bytes of content held, before compression."""
        return self.totals().bytes

    def totals(self) -> StoreTotals:
        """Return what the store holds.

        Raises:
            StoreError: The file cannot be read.
        """
        with self._database.reading() as connection:
            return StoreTotals(*connection.execute("SELECT * FROM totals").fetchone())

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._database.close()

    def check(self) -> list[str]:
        """Return what is wrong with the file, in words; nothing where all is well.

        Checks SQLite's structures, every original against its digest, and the counts.

        Raises:
            StoreError: The file is damaged so much that SQLite cannot check it.
        """
        with self._database.reading() as connection:
            lines = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
            problems = [] if lines == ["ok"] else lines
            rows = connection.execute("SELECT short, digest, size, CAST(content AS BLOB) AS content FROM originals")
            for row in rows:
                if not _is_sound(row):
                    problems.append(f"the original of {row['short']!r} is damaged")
            if tuple(connection.execute(_COUNTED).fetchone()) != tuple(connection.execute(_NOTED).fetchone()):
                problems.append("its counts are not those of its originals")
        return problems

    def recount(self) -> bool:
        """Count again what the store holds; return whether the counts were wrong.

        Raises:
            StoreError: The file cannot be written.
        """
        with self._database.writing() as connection:
            before = tuple(connection.execute(_NOTED).fetchone())
            connection.execute(_RECOUNT)
            return before != tuple(connection.execute(_NOTED).fetchone())

    def put(self, content: bytes) -> Handle:
        """Keep a content and return its handle; the same content has the same handle, also after it was evicted.

        Raises:
            StoreError: The content alone is larger than the store may be, or the file cannot be written.
        """
        if not self._waits and self.failure is not None:
            raise StoreError(
                f"the store of originals {self.path} could not be written a moment ago",
                hint=f"It is tried again after {PAUSE_S:g} s; until then contents are sent whole.",
            )
        try:
            handle = self._put(content)
        except StoreError as error:
            self._failure = self._timer(), error.message
            raise
        self._failure = None
        return handle

    @property
    def failure(self) -> str | None:
        """Why the last content could not be kept, within the last second; `None` where it was."""
        if self._failure is None or self._timer() - self._failure[0] >= PAUSE_S:
            return None
        return self._failure[1]

    def _put(self, content: bytes) -> Handle:
        handle = Handle.of(content)
        digest = bytes.fromhex(handle.digest)
        frame = zstandard.ZstdCompressor(level=LEVEL).compress(content)
        if self.max_bytes is not None and len(frame) > self.max_bytes:
            raise StoreError(
                f"{len(frame)} bytes do not fit the store of originals: it may hold {self.max_bytes}",
                hint="Raise max_bytes, or keep the content in the prompt.",
            )
        with self._database.writing() as connection:
            handle = replace(handle, short=_short_of(connection, digest))
            if _holds(connection, digest, handle.size, frame):
                connection.execute("UPDATE originals SET given_us = ? WHERE digest = ?", (self._now_us(), digest))
                self._evict_old(connection)
                return handle
            connection.execute("DELETE FROM evicted WHERE digest = ?", (digest,))
            if connection.execute("DELETE FROM originals WHERE digest = ?", (digest,)).rowcount:  # it was damaged
                connection.execute(_RECOUNT)
            connection.execute(
                "INSERT INTO originals (digest, short, size, stored_bytes, given_us, content) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (digest, handle.short, handle.size, len(frame), self._now_us(), frame),
            )
            connection.execute(
                "UPDATE totals SET contents = contents + 1, bytes = bytes + ?, stored_bytes = stored_bytes + ?",
                (handle.size, len(frame)),
            )
            self._evict_old(connection)
            self._evict_overflow(connection, digest)
        return handle

    def renew(self, handle: Handle) -> bool:
        """Count a handle as given out again, and say whether its original is there.

        Raises:
            StoreError: The file cannot be written.
        """
        with self._database.writing() as connection:
            found = connection.execute(
                "UPDATE originals SET given_us = ? WHERE digest = ? AND short = ?",
                (self._now_us(), bytes.fromhex(handle.digest), handle.short),
            )
            return found.rowcount == 1

    def _look_up(self, handle: Handle | str) -> bytes:
        short = handle.short if isinstance(handle, Handle) else handle.strip().removeprefix("h:")
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT digest, size, CAST(content AS BLOB) AS content FROM originals WHERE short = ?",
                (_storable(short),),
            ).fetchone()
            gone = None if row else _account(connection, short)
        if row is None and gone is not None:
            raise StoreError(
                f"the original of {short!r} was evicted on {_date(gone['evicted_us'])}: {gone['reason']}",
                hint="Read its source again; raise the limits of the store to keep originals longer.",
            )
        if row is None or (isinstance(handle, Handle) and row["digest"].hex() != handle.digest):
            raise StoreError(
                f"unknown handle {short!r}",
                hint="Spell a handle as it was given out, for example h:3fa9c2d1; another store's handles are unknown.",
            )
        content = _content(row["content"], row["size"])
        if content is None or hashlib.sha256(content).digest() != row["digest"]:
            raise StoreError(
                f"the original of {short!r} is damaged in {self.path}", hint="Read its source again; that mends it."
            )
        return content

    def _evict_old(self, connection: sqlite3.Connection) -> None:
        if self.max_age_days is None:
            return
        oldest = self._now_us() - round(self.max_age_days * _DAY_US)
        self._evict(connection, "given_us < ?", (oldest,), f"it was older than {self.max_age_days:g} days")

    def _evict_overflow(self, connection: sqlite3.Connection, kept: bytes) -> None:
        """Make room, the oldest first; never by what has just been given out."""
        if self.max_bytes is None:
            return
        surplus = connection.execute("SELECT stored_bytes FROM totals").fetchone()[0] - self.max_bytes
        reason = f"the store was full ({self.max_bytes:,} bytes)"
        rows = connection.execute(
            "SELECT key, stored_bytes FROM originals WHERE digest <> ? ORDER BY given_us, key", (kept,)
        )
        keys = []
        for key, size in rows:
            if surplus <= 0:
                break
            keys.append(key)
            surplus -= size
        rows.close()
        for key in keys:
            self._evict(connection, "key = ?", (key,), reason)

    def _evict(self, connection: sqlite3.Connection, where: str, values: tuple[object, ...], reason: str) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO evicted (digest, short, evicted_us, reason) "  # noqa: S608  (fixed conditions)
            f"SELECT digest, short, ?, ? FROM originals WHERE {where} ORDER BY given_us, key",
            (self._now_us(), reason, *values),
        )
        count = self._drop(connection, where, values)
        if count:
            connection.execute("UPDATE totals SET evictions = evictions + ?", (count,))
            connection.execute("DELETE FROM evicted WHERE key <= (SELECT max(key) FROM evicted) - ?", (ACCOUNTS,))

    def _drop(self, connection: sqlite3.Connection, where: str, values: tuple[object, ...]) -> int:
        """Delete originals, and say how many."""
        count, size, stored = connection.execute(
            "SELECT count(*), coalesce(sum(size), 0), coalesce(sum(stored_bytes), 0) "  # noqa: S608  (fixed conditions)
            f"FROM originals WHERE {where}",
            values,
        ).fetchone()
        if count:
            connection.execute(f"DELETE FROM originals WHERE {where}", values)  # noqa: S608  (fixed conditions)
            connection.execute(
                "UPDATE totals SET contents = contents - ?, bytes = bytes - ?, stored_bytes = stored_bytes - ?",
                (count, size, stored),
            )
        return int(count)

    def _now_us(self) -> int:
        return round(self._clock() * 1e6)


def _short_of(connection: sqlite3.Connection, digest: bytes) -> str:
    """Return the short handle that a content was given, or a free one; those of evicted originals are not free."""
    for table in ("originals", "evicted"):
        row = connection.execute(f"SELECT short FROM {table} WHERE digest = ?", (digest,)).fetchone()  # noqa: S608  (ours)
        if row is not None:
            return str(row[0])

    def taken(short: str) -> bool:
        query = "SELECT 1 FROM originals WHERE short = ? UNION ALL SELECT 1 FROM evicted WHERE short = ?"
        return connection.execute(query, (short, short)).fetchone() is not None

    return free_prefix(digest.hex(), taken)


def _holds(connection: sqlite3.Connection, digest: bytes, size: int, frame: bytes) -> bool:
    """Say whether a content is stored and undamaged: as it is compressed now."""
    query = "SELECT 1 FROM originals WHERE digest = ? AND size = ? AND content = ?"
    return connection.execute(query, (digest, size, frame)).fetchone() is not None


def _account(connection: sqlite3.Connection, short: str) -> sqlite3.Row | None:
    query = "SELECT evicted_us, reason FROM evicted WHERE short = ?"
    found: sqlite3.Row | None = connection.execute(query, (_storable(short),)).fetchone()
    return found


def _content(frame: bytes, size: int) -> bytes | None:
    """Return what a frame holds, or `None` where it is damaged; never makes more bytes than it may hold."""
    try:
        if zstandard.frame_content_size(frame) != size:
            return None
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=size)
    except (zstandard.ZstdError, MemoryError):
        return None


def _is_sound(row: sqlite3.Row) -> bool:
    """Say whether an original is the one that was stored, and is found by the handle that was given out."""
    try:
        content = _content(row["content"], row["size"])
        digest = None if content is None else hashlib.sha256(content)
        return digest is not None and digest.digest() == row["digest"] and digest.hexdigest().startswith(row["short"])
    except (TypeError, ValueError, OverflowError):  # a column of another type
        return False


def _storable(short: str) -> str:
    """Return a spelling that SQLite takes: what is no Unicode text names nothing."""
    return short if not any("\ud800" <= mark <= "\udfff" for mark in short) else ""


def _date(us: int) -> str:
    return f"{datetime.fromtimestamp(us / 1e6, UTC):%Y-%m-%d %H:%M} UTC"
