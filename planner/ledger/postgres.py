"""The books in a PostgreSQL database, for several machines. Needs the extra `postgres`.

The tables stand in a schema of their own, `apportion_ledger`. Time is that of the server, so that machines need not
agree on it. A booking locks the topmost account of its tree; other trees are booked at the same time.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from apportion.errors import MissingExtraError, StoreError
from apportion.planner.ledger.schema import POSTGRES_STEPS
from apportion.planner.ledger.stores import NOTHING_THERE, WAIT_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from apportion.planner.ledger.stores import Transaction

T = TypeVar("T")

SCHEMA = "apportion_ledger"
"""The schema in which the tables stand."""

CONNECTIONS = 8
"""Connections that one process opens at most; bookings of one tree come one after another anyway."""

ATTEMPTS = 3
"""How often a transaction is run where its connection breaks, or where the server asks for another try."""

STALLED_MS = 10_000
"""After so long the server ends a transaction whose client does nothing, so that it keeps nobody waiting for ever."""

_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_LOCK = f"SELECT {_NOW} FROM (SELECT id FROM accounts WHERE id = %s FOR UPDATE) AS locked"  # noqa: S608  (our own)


class PostgresStore:
    """The books in a PostgreSQL database.

    Args:
        address: `postgresql://...`. A password is better kept in `~/.pgpass` or `PGPASSWORD`.
        clock: Tells the time in seconds since 1970; the server's by default.
        wait_s: How long to wait for the server, a connection or a lock, in seconds.
        create: Whether to make the tables where there are none.

    Raises:
        MissingExtraError: The extra `postgres` is not installed.
        StoreError: The server cannot be used, or its tables are none of ours or newer than this version.
    """

    def __init__(
        self, address: str, *, clock: Callable[[], float] | None = None, wait_s: float = WAIT_S, create: bool = True
    ) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise MissingExtraError("a ledger in PostgreSQL", extra="postgres") from error
        self._psycopg = psycopg
        self._clock = clock
        self._wait_s = wait_s
        self._closed = False
        self._inherited: list[Any] = []
        self._idle: list[Any] = []
        self._lock = threading.Lock()
        self._start_pool()
        try:
            self._parts = psycopg.conninfo.conninfo_to_dict(address)
        except psycopg.Error:
            raise StoreError(
                "the address of the PostgreSQL server cannot be read",  # it may hold a password, so it is not shown
                hint="Write postgresql://USER@HOST:PORT/DATABASE",
            ) from None
        try:
            self._migrate(create=create)
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """The server and database, without a password."""
        parts = self._parts
        user = f"{parts['user']}@" if parts.get("user") else ""
        port = f":{parts['port']}" if parts.get("port") else ""
        return f"postgresql://{user}{parts.get('host', '')}{port}/{parts.get('dbname', '')}"

    def write(self, body: Callable[[Transaction], T]) -> T:
        """Run a body in one write transaction, again where its connection breaks."""
        return self._run(body, read_only=False)

    def read(self, body: Callable[[Transaction], T]) -> T:
        """Run a body on one consistent snapshot."""
        return self._run(body, read_only=True)

    def check(self) -> list[str]:
        """Return nothing: the server checks its storage itself."""
        return []

    def close(self) -> None:
        """Close all connections."""
        self._closed = True
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _run(self, body: Callable[[Transaction], T], *, read_only: bool) -> T:
        errors = self._psycopg.errors
        for attempt in range(1, ATTEMPTS + 1):
            with self._errors(), self._connection() as connection:
                try:
                    with connection.transaction():
                        if read_only:
                            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                        return body(_PostgresTransaction(connection, self._clock))
                except (errors.DeadlockDetected, errors.SerializationFailure, errors.UniqueViolation):
                    if attempt == ATTEMPTS:
                        raise
                except self._psycopg.OperationalError:
                    if attempt == ATTEMPTS or not connection.closed:  # a lock or the server takes too long
                        raise
                    self._forget_idle()
        raise AssertionError("the last attempt returns or raises")  # pragma: no cover

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        """Give a connection that nobody else uses meanwhile."""
        if self._pid != os.getpid():  # after a fork, the connections are those of the other process
            self._inherited += self._idle
            self._start_pool()
        if not self._slots.acquire(timeout=self._wait_s):
            raise StoreError(
                f"no connection to {self.name} came free within {self._wait_s:g} s", hint="Try again later"
            )
        slots = self._slots
        try:
            connection = self._take()
            try:
                yield connection
            finally:
                self._give_back(connection)
        finally:
            slots.release()

    def _take(self) -> Any:
        if self._closed:
            raise StoreError(f"the ledger {self.name} is closed", hint="Open it again")
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self._connect()

    def _give_back(self, connection: Any) -> None:
        with self._lock:
            if not (connection.closed or self._closed or self._pid != os.getpid()):
                self._idle.append(connection)
                return
        connection.close()

    def _forget_idle(self) -> None:
        """Close the connections that are not in use: where one broke, the others may have as well."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _start_pool(self) -> None:
        self._pid = os.getpid()
        self._idle = []
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(CONNECTIONS)

    def _connect(self) -> Any:
        wait_ms = max(1, int(self._wait_s * 1000))
        given: dict[str, Any] = {
            "connect_timeout": max(2, int(self._wait_s)),
            "application_name": "apportion",
        } | self._parts
        connection = self._psycopg.connect(**given, autocommit=True)
        try:
            connection.execute(
                "SELECT set_config('search_path', %s, false), set_config('lock_timeout', %s, false),"
                " set_config('statement_timeout', %s, false),"
                " set_config('idle_in_transaction_session_timeout', %s, false)",
                (SCHEMA, str(wait_ms), str(2 * wait_ms), str(STALLED_MS)),
            )
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, *, create: bool) -> None:
        """Make the tables, or take the steps that are missing: all of them or none."""
        with self._errors(), self._connection() as connection, connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (SCHEMA,))
            there, ours = connection.execute(
                "SELECT to_regnamespace(%s) IS NOT NULL, to_regclass(%s) IS NOT NULL", (SCHEMA, f"{SCHEMA}.version")
            ).fetchone()
            if there and not ours:
                raise StoreError(
                    f"{self.name} has a schema {SCHEMA} that is not a ledger of apportion",
                    hint="It was left untouched. Give another database",
                )
            if not (there or create):
                raise StoreError(f"there is no ledger in {self.name}", hint=NOTHING_THERE)
            if not there:
                connection.execute(f"CREATE SCHEMA {SCHEMA}")
                connection.execute("CREATE TABLE version (steps BIGINT NOT NULL)")
                connection.execute("INSERT INTO version VALUES (0)")
            version = connection.execute("SELECT steps FROM version").fetchone()[0]
            newest = len(POSTGRES_STEPS)
            if version > newest:
                raise StoreError(
                    f"the ledger {self.name} has schema version {version}, this apportion knows versions up to "
                    f"{newest}",
                    hint="Upgrade apportion, or give another database; the ledger was left untouched",
                )
            for step in POSTGRES_STEPS[version:]:
                for statement in step:
                    connection.execute(statement)
            if version < newest:
                connection.execute("UPDATE version SET steps = %s", (newest,))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._psycopg.Error as error:
            said = str(error).strip().splitlines()
            raise StoreError(
                f"the ledger {self.name} cannot be used: {said[0] if said else type(error).__name__}",
                hint="Check that the server runs, that the address is right, and what the user may do there",
            ) from error


class _PostgresTransaction:
    """A transaction on one connection."""

    def __init__(self, connection: Any, clock: Callable[[], float] | None) -> None:
        self._connection = connection
        self._clock = clock

    def execute(self, statement: str, parameters: Sequence[Any] = (), /) -> Any:
        """Run one statement; its parameters stand as `?`."""
        return self._connection.execute(_with_percent_signs(statement), parameters)

    def lock(self, root: str, /) -> int:
        """Lock the topmost account, and return the time after that."""
        row = self._connection.execute(_LOCK, (root,)).fetchone()
        return row[0] if row is not None and self._clock is None else self.now()

    def now(self) -> int:
        """Return the time in microseconds since 1970."""
        if self._clock is not None:
            return int(self._clock() * 1e6)
        return int(self._connection.execute(f"SELECT {_NOW}").fetchone()[0])


@lru_cache(256)
def _with_percent_signs(statement: str) -> str:
    return statement.replace("?", "%s")
