"""One SQLite file of ours: created atomically, checked before use, shared by threads and processes.

A file that is not ours is refused by its header, before SQLite opens it, so it stays as it is to the last byte.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
import time
import weakref
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from apportion.errors import StoreError
from apportion.telemetry._migrations import APPLICATION_ID, MIGRATIONS, migrate, schema_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BUSY_SECONDS = 5.0
"""How long a writer waits for another one."""

_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100


class Format(NamedTuple):
    """What makes a SQLite file one of ours.

    Attributes:
        name: What messages call it.
        application_id: Marks the file (`PRAGMA application_id`).
        migrations: Steps of its schema, the oldest first.
        remedy: What to do besides moving a damaged file away.
        synchronous: NORMAL loses, with a write-ahead log, the last transactions in a power cut and nothing else; FULL
            loses nothing.
    """

    name: str
    application_id: int
    migrations: Sequence[Sequence[str]]
    remedy: str
    synchronous: Literal["NORMAL", "FULL"] = "NORMAL"


TELEMETRY = Format("telemetry store", APPLICATION_ID, MIGRATIONS, "import the logs again")


class Database:
    """A connection to one store file, safe from several threads.

    SQLite must not be carried over a fork: its locks stay behind, and writes are lost. So every connection is closed
    before a fork, and opened again at its next use, on both sides.

    Args:
        path: The file; it is created with mode 0600, its folder with mode 0700, where they do not exist.
        form: What the file holds.
        busy_seconds: How long to wait for another writer; `None` means `BUSY_SECONDS`.

    Raises:
        StoreError: The file is not ours, too new, damaged, or cannot be opened.
    """

    def __init__(self, path: Path, form: Format = TELEMETRY, *, busy_seconds: float | None = None) -> None:
        self.path = path.expanduser().absolute()
        self.lock = threading.RLock()
        self._form = form
        self._busy_seconds = BUSY_SECONDS if busy_seconds is None else busy_seconds
        self._closed = False
        with _store_errors(self.path, form):
            if not self.path.exists():
                _create(self.path, form, self._busy_seconds)
            self._connection: sqlite3.Connection | None = _open(self.path, form, self._busy_seconds)
        with _fork_lock:
            _databases.add(self)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give the connection within one consistent snapshot."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give the connection within one write transaction: all of it is stored, or, on any exception, nothing."""
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    def checkpoint(self) -> None:
        """Move what is in the write-ahead log into the main file, as far as other readers allow."""
        with self.lock, _store_errors(self.path, self._form):
            self._connected().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        with self.lock:
            self._closed = True
            self.disconnect()

    def disconnect(self) -> None:
        """Close the connection; the next use opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def size_bytes(self) -> int:
        """Return the bytes on disk, including the write-ahead log."""
        return sum(file.stat().st_size for file in (self.path, _wal(self.path)) if file.exists())

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self.lock, _store_errors(self.path, self._form):
            connection = self._connected()
            connection.execute(begin)
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _connected(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreError(f"the store {self.path} is closed", hint="Open it again")
        if self._connection is None:
            self._connection = _open(self.path, self._form, self._busy_seconds)
        return self._connection


_databases: weakref.WeakSet[Database] = weakref.WeakSet()
_fork_lock = threading.RLock()
_held: list[Database] = []


def _before_fork() -> None:
    _fork_lock.acquire()
    _held.extend(_databases)
    for database in _held:
        database.lock.acquire()
        database.disconnect()


def _after_fork() -> None:
    while _held:
        _held.pop().lock.release()
    _fork_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def _open(path: Path, form: Format, busy_seconds: float) -> sqlite3.Connection:
    _refuse_foreign(path, form)
    connection = _connect(path, form, busy_seconds)
    try:
        _refuse_newer(path, schema_version(connection), form)
        migrate(connection, form.migrations)
        _switch_to_wal(connection, busy_seconds)
    except BaseException:
        connection.close()
        raise
    return connection


def _create(path: Path, form: Format, busy_seconds: float) -> None:
    """Create an empty store, complete or not at all; another process that is faster wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    os.close(descriptor)
    new = Path(name)
    try:
        with closing(_connect(new, form, busy_seconds)) as connection:
            migrate(connection, form.migrations)
            _switch_to_wal(connection, busy_seconds)
        _publish(new, path)
    finally:
        new.unlink(missing_ok=True)


def _publish(new: Path, path: Path) -> None:
    try:
        os.link(new, path)
    except FileExistsError:
        return
    except OSError:  # no hard links on this file system: an empty file becomes a store in place, when it is opened
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def _connect(path: Path, form: Format, busy_seconds: float) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
        connection.execute(f"PRAGMA synchronous = {form.synchronous}")
    except BaseException:
        connection.close()
        raise
    return connection


def _switch_to_wal(connection: sqlite3.Connection, busy_seconds: float) -> None:
    """Use a write-ahead log; SQLite does not wait for others here by itself.

    Where the file system has no shared memory SQLite stays with a rollback journal: slower, as safe; `status` says so.
    """
    deadline = time.monotonic() + busy_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _refuse_foreign(path: Path, form: Format) -> None:
    if not path.is_file():
        what = "a directory" if path.is_dir() else "not a regular file"
        raise StoreError(f"the store {path} is {what}", hint="Give the path of a file")
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if not header:  # freshly created, or a creation that was interrupted
        return
    hint = f"It was left untouched. Give another path, or move the file away and {form.remedy}"
    if not header.startswith(_MAGIC) or len(header) < _HEADER_BYTES:
        raise StoreError(f"{path} is not a {form.name}", hint=hint)
    if int.from_bytes(header[68:72], "big") != form.application_id:
        raise StoreError(f"{path} is a SQLite database of another application", hint=hint)
    _refuse_newer(path, int.from_bytes(header[60:64], "big"), form)
    _refuse_torn(path, page_bytes=int.from_bytes(header[16:18], "big"), hint=hint)


def _refuse_torn(path: Path, *, page_bytes: int, hint: str) -> None:
    """Refuse a file that ends within a page; SQLite would read zeros there, and itself finds whole missing pages."""
    if path.stat().st_size % (page_bytes or 1) and not _wal(path).exists():  # with a log, SQLite repairs the file
        raise StoreError(f"the store {path} is damaged: its end is missing", hint=hint)


def _wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _refuse_newer(path: Path, version: int, form: Format) -> None:
    newest = len(form.migrations)
    if version > newest:
        raise StoreError(
            f"the store {path} has schema version {version}, this apportion knows versions up to {newest}",
            hint="Upgrade apportion, or give another path; the store was left untouched",
        )


@contextmanager
def _store_errors(path: Path, form: Format) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"the store {path} cannot be used: {error}", hint=_hint(error, form)) from error
    except UnicodeDecodeError as error:  # SQLite quotes a damaged schema in its message
        hint = _HINTS[sqlite3.SQLITE_CORRUPT].format(remedy=form.remedy)
        raise StoreError(f"the store {path} cannot be used: it holds text that is none", hint=hint) from error
    except OSError as error:
        raise StoreError(
            f"cannot use the store {path}: {error.strerror or error}",
            hint="Give a path in a folder that you can write to",
        ) from error


def _hint(error: sqlite3.Error, form: Format) -> str | None:
    code = getattr(error, "sqlite_errorcode", None)
    hint = None if code is None else _HINTS.get(code & 0xFF)
    return None if hint is None else hint.format(remedy=form.remedy)


_HINTS = {
    sqlite3.SQLITE_BUSY: "Another process has been writing for a while: try again when it has finished",
    sqlite3.SQLITE_CORRUPT: "The file is damaged: move it away and {remedy}",
    sqlite3.SQLITE_NOTADB: "The file is damaged: move it away and {remedy}",
    sqlite3.SQLITE_FULL: "The disk is full: free some space and run the command again",
    sqlite3.SQLITE_IOERR: "The disk refuses: check its space and health, and run the command again",
    sqlite3.SQLITE_READONLY: "The file or its folder is read-only: change its permissions, or give another path",
    sqlite3.SQLITE_CANTOPEN: "Check that the folder is writable, or give another path",
}
