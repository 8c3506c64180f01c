"""Where the books are kept: what the ledger asks of a store, and which store an address names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

WAIT_S = 5.0
"""How long an operation waits for others at most, in seconds."""


class Cursor(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int:
        """Rows that were changed."""

    def fetchone(self) -> Any:
        """Return the next row, or `None`."""

    def fetchall(self) -> list[Any]:
        """Return all rows."""


class Transaction(Protocol):
    """Statements of which all take effect, or none."""

    def execute(self, statement: str, parameters: Sequence[Any] = (), /) -> Cursor:
        """Run one statement; its parameters stand as `?`."""

    def lock(self, root: str, /) -> int:
        """Keep others away from a tree of accounts until the end, and return the time in microseconds since 1970.

        It comes before anything else is read in the tree, so that what is read is what is true.
        """

    def now(self) -> int:
        """Return the time in microseconds since 1970."""


class Store(Protocol):
    """Accounts and reservations, shared by threads, processes and, with a server, machines."""

    @property
    def name(self) -> str:
        """The store as messages name it, without any password."""

    def write(self, body: Callable[[Transaction], T], /) -> T:
        """Run a body in one write transaction: all of it is stored, or, on any exception, nothing.

        A store may run the body again where a connection broke, so it must give the same result then.

        Raises:
            StoreError: The store cannot be used.
        """

    def read(self, body: Callable[[Transaction], T], /) -> T:
        """Run a body on one consistent snapshot, and change nothing.

        Raises:
            StoreError: The store cannot be used.
        """

    def check(self) -> list[str]:
        """Return what is wrong with the storage itself, in words; nothing where all is well."""

    def close(self) -> None:
        """Close all connections; closing twice is fine."""


NOTHING_THERE = "Give the address of another one; a ledger is made by whoever runs agents"
"""The hint where there is no ledger and none is to be made."""


def open_store(
    address: str | Path,
    *,
    clock: Callable[[], float] | None = None,
    wait_s: float = WAIT_S,
    power_safe: bool = False,
    create: bool = True,
) -> Store:
    """Open the store that an address names.

    Args:
        address: The path of a SQLite file, or the address of a PostgreSQL server (`postgresql://...`).
        clock: Tells the time in seconds since 1970. By default that of this machine with SQLite, and that of the
            server with PostgreSQL, so that machines need not agree on the time.
        wait_s: How long an operation waits for others at most, in seconds.
        power_safe: Whether a booking in SQLite outlives a power cut, at the cost of waiting for the disk. It outlives
            every end of a process anyway. PostgreSQL goes by its own settings.
        create: Whether to make the store where there is none.

    Raises:
        StoreError: The store cannot be opened, is none of ours, or is newer than this version.
        MissingExtraError: PostgreSQL needs the extra `postgres`.
    """
    if isinstance(address, str) and address.startswith(("postgresql://", "postgres://")):
        from apportion.planner.ledger.postgres import PostgresStore

        return PostgresStore(address, clock=clock, wait_s=wait_s, create=create)
    from apportion.planner.ledger.sqlite import SqliteStore

    return SqliteStore(Path(address), clock=clock, wait_s=wait_s, power_safe=power_safe, create=create)
