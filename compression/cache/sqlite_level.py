"""A second level in one SQLite file: values outlive the process, and what was counted can be shown later.

Values are written as they are, with a checksum: nothing that is read can run. The file has mode 0600. Ages go by the
clock of the machine, because no other outlives a process: what was stored in the future, since the clock was put back,
is not used.
"""

from __future__ import annotations

import threading
import time
from dataclasses import astuple, fields
from typing import TYPE_CHECKING, NamedTuple

from apportion.compression.cache.memory import CacheCounts
from apportion.compression.cache.types import DamagedError, Found, checksum
from apportion.errors import InputError
from apportion.telemetry._database import Database
from apportion.telemetry._migrations import Schema

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

RUNS = 100
"""Runs of which the counts are kept."""

_APPLICATION_ID = int.from_bytes(b"appc", "big")
_NAMES = tuple(each.name for each in fields(CacheCounts))
_COLUMNS = ", ".join(f"{name} INTEGER NOT NULL" for name in _NAMES)

_SCHEMA = Schema(
    "cache",
    _APPLICATION_ID,
    (
        (
            f"PRAGMA application_id = {_APPLICATION_ID}",
            """
            CREATE TABLE entries (
                number INTEGER PRIMARY KEY,      -- the order in which they were stored
                key BLOB NOT NULL UNIQUE,
                value BLOB NOT NULL,
                size INTEGER NOT NULL,           -- bytes of key and value
                stored_us INTEGER NOT NULL,      -- microseconds since 1970, UTC
                expires_us INTEGER,
                checksum BLOB NOT NULL           -- of all of that
            )
            """,
            "CREATE INDEX entries_by_expiry ON entries (expires_us) WHERE expires_us IS NOT NULL",
            "CREATE TABLE totals (entries INTEGER NOT NULL, bytes INTEGER NOT NULL)",
            "INSERT INTO totals VALUES (0, 0)",
            f"CREATE TABLE runs (number INTEGER PRIMARY KEY, {_COLUMNS})",
        ),
    ),
    "",
)


class LevelSummary(NamedTuple):
    """What a cache file holds, and how useful it was.

    Attributes:
        entries: Values.
        bytes: Bytes of keys and values.
        runs: How many of the last runs are counted.
        last: What the last run counted.
        total: What these runs counted together.
    """

    entries: int
    bytes: int
    runs: int
    last: CacheCounts
    total: CacheCounts


class SqliteLevel:
    """Values in a file; safe to share between threads and processes.

    The file is opened at its first use, so that a damaged one is a miss, like all else that fails here.

    Args:
        path: The file; it is created where it does not exist.
        max_bytes: Bytes of keys and values; what was stored first goes first.
        clock: Tells the time in seconds since 1970; for tests.

    Raises:
        InputError: The limit is negative.
    """

    def __init__(self, path: Path, *, max_bytes: int = 256 * 2**20, clock: Callable[[], float] = time.time) -> None:
        if max_bytes < 0:
            raise InputError("the limit of the cache file is negative", hint="0 keeps nothing.")
        self.path = path
        self.max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._database: Database | None = None

    def get(self, key: bytes) -> Found | None:
        """Return what is held for a key, or `None` where there is nothing or it is too old.

        Raises:
            StoreError: The file cannot be read.
            DamagedError: It is not what was put there; it is forgotten.
        """
        with self._opened().reading() as connection:
            row = connection.execute(
                "SELECT CAST(value AS BLOB), stored_us, expires_us, checksum FROM entries WHERE key = ?", (key,)
            ).fetchone()
        if row is None:
            return None
        value, stored, expires, found = row
        if not isinstance(stored, int) or found != _checksum(key, value, stored, expires):
            self.discard(key)
            raise DamagedError(f"a value in {self.path} is damaged")
        now = self._now_us()
        if stored > now or (expires is not None and expires <= now):
            return None
        return Found(value, (now - stored) / 1e6)

    def put(self, key: bytes, value: bytes, ttl_s: float | None) -> None:
        """Keep a value, for so many seconds at most; one that is larger than the whole file may be is not kept.

        Raises:
            StoreError: The file cannot be written.
        """
        size, now = len(key) + len(value), self._now_us()
        if size > self.max_bytes:
            return
        expires = None if ttl_s is None else now + round(ttl_s * 1e6)
        with self._opened().writing() as connection:
            _drop(connection, "key = ?", key)
            _drop(connection, "expires_us <= ?", now)
            _make_room(connection, self.max_bytes - size)
            connection.execute(
                "INSERT INTO entries (key, value, size, stored_us, expires_us, checksum) VALUES (?, ?, ?, ?, ?, ?)",
                (key, value, size, now, expires, _checksum(key, value, now, expires)),
            )
            connection.execute("UPDATE totals SET entries = entries + 1, bytes = bytes + ?", (size,))

    def discard(self, key: bytes) -> None:
        """Forget the value of a key, if there is one.

        Raises:
            StoreError: The file cannot be written.
        """
        with self._opened().writing() as connection:
            _drop(connection, "key = ?", key)

    def clear(self) -> None:
        """Forget all values; what was counted stays.

        Raises:
            StoreError: The file cannot be written.
        """
        with self._opened().writing() as connection:
            connection.execute("DELETE FROM entries")
            connection.execute("UPDATE totals SET entries = 0, bytes = 0")

    def close(self, counts: CacheCounts) -> None:
        """Keep what was counted in this run, where anything was asked, and close the file.

        Raises:
            StoreError: The file cannot be written.
        """
        if counts.asked:
            marks = ", ".join("?" * len(_NAMES))
            with self._opened().writing() as connection:
                connection.execute(
                    f"INSERT INTO runs ({', '.join(_NAMES)}) VALUES ({marks})",  # noqa: S608  (our own names)
                    astuple(counts),
                )
                connection.execute("DELETE FROM runs WHERE number <= (SELECT max(number) FROM runs) - ?", (RUNS,))
        with self._lock:
            if self._database is not None:
                self._database.close()

    def summary(self) -> LevelSummary:
        """Return what the file holds, and how useful it was in the last runs.

        Raises:
            StoreError: The file cannot be read.
        """
        with self._opened().reading() as connection:
            entries, size = connection.execute("SELECT entries, bytes FROM totals").fetchone()
            rows = connection.execute(
                f"SELECT {', '.join(_NAMES)} FROM runs ORDER BY number"  # noqa: S608  (our own names)
            ).fetchall()
        runs = [CacheCounts(*row) for row in rows]
        return LevelSummary(entries, size, len(runs), runs[-1] if runs else CacheCounts(), sum(runs, CacheCounts()))

    def check(self) -> list[str]:
        """Return what is wrong with the file, in words; nothing where all is well.

        Checks SQLite's structures, every value against its checksum, and the counts.

        Raises:
            StoreError: The file is damaged so much that SQLite cannot check it.
        """
        with self._opened().reading() as connection:
            lines = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
            problems = [] if lines == ["ok"] else lines
            rows = connection.execute("SELECT key, CAST(value AS BLOB), stored_us, expires_us, checksum FROM entries")
            damaged = sum(not _is_sound(*row) for row in rows)
            if damaged:
                problems.append(f"{damaged:,} of its values are damaged")
            held = connection.execute("SELECT count(*), coalesce(sum(size), 0) FROM entries").fetchone()
            if tuple(held) != tuple(connection.execute("SELECT entries, bytes FROM totals").fetchone()):
                problems.append("its counts are not those of its values")
        return problems

    def _opened(self) -> Database:
        with self._lock:
            if self._database is None:
                self._database = Database(self.path, _SCHEMA)
            return self._database

    def _now_us(self) -> int:
        return round(self._clock() * 1e6)


def _checksum(key: bytes, value: bytes, stored: int, expires: int | None) -> bytes:
    return checksum(key, value, b"%d" % stored, b"" if expires is None else str(expires).encode())


def _is_sound(key: object, value: bytes, stored: object, expires: object, found: object) -> bool:
    if not isinstance(key, bytes) or not isinstance(stored, int) or not isinstance(expires, int | None):
        return False
    return found == _checksum(key, value, stored, expires)


def _make_room(connection: sqlite3.Connection, room: int) -> None:
    """Forget what was stored first, until no more than `room` bytes are held."""
    surplus = connection.execute("SELECT bytes FROM totals").fetchone()[0] - room
    while surplus > 0:
        row = connection.execute("SELECT number, size FROM entries ORDER BY number LIMIT 1").fetchone()
        if row is None:
            return
        _drop(connection, "number = ?", row[0])
        surplus -= row[1]


def _drop(connection: sqlite3.Connection, where: str, value: object) -> None:
    rows = connection.execute(f"DELETE FROM entries WHERE {where} RETURNING size", (value,)).fetchall()  # noqa: S608  (ours)
    if rows:
        size = sum(row[0] for row in rows)
        connection.execute("UPDATE totals SET entries = entries - ?, bytes = bytes - ?", (len(rows), size))
