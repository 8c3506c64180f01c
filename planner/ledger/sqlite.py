"""The books in one SQLite file, for threads and processes on one machine."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, TypeVar

from apportion.errors import StoreError
from apportion.planner.ledger.schema import APPLICATION_ID, SQLITE_STEPS
from apportion.planner.ledger.stores import NOTHING_THERE, WAIT_S
from apportion.telemetry._database import Database, Format

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from apportion.planner.ledger.stores import Transaction

T = TypeVar("T")

FORMAT = Format("ledger", APPLICATION_ID, SQLITE_STEPS, "start with new accounts")
"""What makes a file a ledger."""


class _SqliteTransaction:
    """A transaction that holds the write lock of the whole file, or reads a snapshot of it."""

    def __init__(self, connection: sqlite3.Connection, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._clock = clock

    def execute(self, statement: str, parameters: Sequence[Any] = (), /) -> sqlite3.Cursor:
        """Run one statement."""
        return self._connection.execute(statement, parameters)

    def lock(self, _root: str, /) -> int:
        """Return the time; the file is locked already."""
        return int(self._clock() * 1e6)

    def now(self) -> int:
        """Return the time in microseconds since 1970."""
        return int(self._clock() * 1e6)


class SqliteStore:
    """The books in one SQLite file.

    Args:
        path: The file; it is created with mode 0600 where it does not exist.
        clock: Tells the time in seconds since 1970; that of the machine by default.
        wait_s: How long a writer waits for another one, in seconds.
        power_safe: Whether each booking waits until it is on the disk.
        create: Whether to make the file where there is none.

    Raises:
        StoreError: The file is no ledger, too new, damaged, or cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] | None = None,
        wait_s: float = WAIT_S,
        power_safe: bool = False,
        create: bool = True,
    ) -> None:
        if not (create or path.expanduser().exists()):
            raise StoreError(f"there is no ledger {path}", hint=NOTHING_THERE)
        form = FORMAT._replace(synchronous="FULL") if power_safe else FORMAT
        self._clock = clock or time.time
        self._database = Database(path, form, busy_seconds=wait_s)
        self._file = self._identity()

    @property
    def name(self) -> str:
        """The path of the file."""
        return str(self._database.path)

    def write(self, body: Callable[[Transaction], T]) -> T:
        """Run a body in one write transaction."""
        self._refuse_another_file()
        with self._database.writing() as connection:
            return body(_SqliteTransaction(connection, self._clock))

    def read(self, body: Callable[[Transaction], T]) -> T:
        """Run a body on one consistent snapshot."""
        with self._database.reading() as connection:
            return body(_SqliteTransaction(connection, self._clock))

    def check(self) -> list[str]:
        """Return what SQLite itself finds wrong with the file."""
        try:
            with self._database.reading() as connection:
                lines = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
                broken = connection.execute("PRAGMA foreign_key_check").fetchall()
        except StoreError as error:
            return [error.message]
        lines = [] if lines == ["ok"] else lines
        return lines + [f"a row of {row[0]} refers to a missing row of {row[2]}" for row in broken]

    def _identity(self) -> tuple[int, int]:
        found = os.stat(self._database.path)  # noqa: PTH116  (in the hot path, and half as slow)
        return found.st_dev, found.st_ino

    def _refuse_another_file(self) -> None:
        """Refuse to book into a file that was deleted or replaced: nobody else would ever see it."""
        try:
            same = self._identity() == self._file
        except OSError:
            same = False
        if not same:
            raise StoreError(
                f"the ledger {self.name} was deleted or replaced while it was open",
                hint="Put the file back, or open the ledger again",
            )

    def close(self) -> None:
        """Close the file."""
        self._database.close()
