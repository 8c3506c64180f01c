"""The ledger: what budgets hold, whatever runs in parallel and whatever breaks."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, Self, TypeVar

from apportion.errors import InputError, LedgerError, StoreError
from apportion.planner.ledger import bookings, reading
from apportion.planner.ledger.records import (
    LEASE_S,
    MOST,
    MOST_LEASE_S,
    MOST_WINDOW_S,
    Account,
    Amounts,
    Finding,
    Refusal,
    Reservation,
)
from apportion.planner.ledger.stores import WAIT_S, open_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from apportion.planner.ledger.bookings import Path as AccountPath
    from apportion.planner.ledger.stores import Store, Transaction

T = TypeVar("T")

OnStoreFailure = Literal["closed", "open"]
"""Whether calls are refused, or made without a reservation, while the store cannot be used."""

MOST_UNBOOKED = 10_000
"""Bookings that wait for the store at most; more are refused with an error."""

PAUSE_S = 1.0
"""After a failure of the store it is not asked again for so long, under `on_store_failure="open"`."""

_PATHS = 10_000
"""Accounts whose paths are remembered."""

_MOST_ID = 200
"""Characters of a name at most."""


class _Unbooked(NamedTuple):
    """A use that the store does not know of yet."""

    reservation: Reservation
    used: tuple[int | None, int | None]


class Ledger:
    """Budgets that hold: amounts are reserved before a call, and settled, released or taken back after it.

    At every instant `spent + held + free == total` on every account, and nothing is reserved that is not free, however
    many threads, processes and (with PostgreSQL) machines share the ledger. What a process held that ended without a
    word comes back when its lease ends. Every booking can be repeated with the same key and is then made once.

        ledger.open_account("run", tokens=10_000)
        held = ledger.reserve("run", tokens=4_000)
        ledger.settle(held, tokens=3_100)
        ledger.account("run").tokens        # Balance(total=10000, spent=3100, held=0)

    Args:
        address: The path of a SQLite file, or `postgresql://...`.
        on_store_failure: What happens while the store cannot be used. "closed" raises `StoreError`: no call is made
            that is not reserved. "open" lets calls be made without a reservation; they carry the reason in `degraded`,
            and what they use is booked when the store is back.
        clock: Tells the time in seconds since 1970; see `open_store` for the default.
        wait_s: How long an operation waits for others at most, in seconds.
        power_safe: Whether a booking in SQLite outlives a power cut; it always outlives the end of a process.
        create: Whether to make the ledger where there is none.

    Raises:
        StoreError: The store cannot be opened, under either policy: nobody should go on with a wrong address.
        MissingExtraError: PostgreSQL needs the extra `postgres`.
    """

    def __init__(
        self,
        address: str | Path,
        *,
        on_store_failure: OnStoreFailure = "closed",
        clock: Callable[[], float] | None = None,
        wait_s: float = WAIT_S,
        power_safe: bool = False,
        create: bool = True,
    ) -> None:
        if on_store_failure not in {"closed", "open"}:
            raise InputError(f"on_store_failure cannot be {on_store_failure!r}", hint='Give "closed" or "open"')
        self.on_store_failure = on_store_failure
        self._store: Store = open_store(address, clock=clock, wait_s=wait_s, power_safe=power_safe, create=create)
        self._paths: dict[str, AccountPath] = {}
        self._unbooked: deque[_Unbooked] = deque()
        self._unbooked_lock = threading.Lock()
        self._failed_at: float | None = None
        self._failure = ""
        self.unbookable = 0
        """Uses that waited for the store, and that it refused: their account does not exist, for example."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """Where the books are, without any password."""
        return self._store.name

    @property
    def unbooked(self) -> int:
        """Uses that the store does not know of yet, under `on_store_failure="open"`."""
        return len(self._unbooked)

    def open_account(
        self,
        account: str,
        *,
        parent: str | None = None,
        tokens: int | None = None,
        cost_nusd: int | None = None,
        window_s: int | None = None,
    ) -> None:
        """Open a budget. Opening it again with the same arguments does nothing.

        Args:
            account: Its name, 1 to 200 printable characters.
            parent: The account whose remainder it draws on. What it reserves is reserved there too, so that children
                together never get more than their parent has.
            tokens: Its limit, or `None` for whatever the parent has left; from 0 to 2**53.
            cost_nusd: Its limit in nano-dollars, or `None`; from 0 to 2**53.
            window_s: Length of a rolling window in seconds: only what was spent within it counts. `None` counts
                everything. Several windows are several accounts, one above the other.

        Raises:
            InputError: An argument is out of range.
            LedgerError: It exists with other arguments, or its parent does not exist or is closed.
            StoreError: The store cannot be used.
        """
        _check_id("account", account)
        limits = (_check_amount("tokens", tokens), _check_amount("cost_nusd", cost_nusd))
        if window_s is not None and not (_is_int(window_s) and 1 <= window_s <= MOST_WINDOW_S):
            raise InputError(f"window_s must be from 1 to {MOST_WINDOW_S:,}, not {window_s!r}", hint="Give seconds")
        window_us = None if window_s is None else window_s * 1_000_000
        if parent is not None:
            _check_id("parent", parent)
        self._store.write(
            lambda tx: bookings.open_account(tx, account, parent=parent, limits=limits, window_us=window_us)
        )

    def reserve(
        self,
        account: str,
        *,
        tokens: int | None = None,
        cost_nusd: int | None = None,
        key: str | None = None,
        lease_s: float = LEASE_S,
    ) -> Reservation | Refusal:
        """Hold amounts for a call, on an account and all above it, or say which of them lacks what.

        Args:
            account: The account that is to pay.
            tokens: How many tokens the call may use, from 0 to 2**53. `None` means unknown, and is an error where any
                of the accounts limits tokens.
            cost_nusd: What the call may cost, in the same way.
            key: Names the reservation. A retry with the same key gives the same reservation; if it has gone back
                meanwhile, it is made anew. `None` makes up a name.
            lease_s: After so many seconds the amounts come back if nothing was heard; up to thirty days.

        Raises:
            InputError: An argument is out of range, or an unknown amount is limited.
            LedgerError: There is no such account, or the key is that of another reservation.
            StoreError: The store cannot be used, and `on_store_failure` is "closed".
        """
        _check_id("account", account)
        asked = (_check_amount("tokens", tokens), _check_amount("cost_nusd", cost_nusd))
        lease_us = _check_lease(lease_s)
        name = uuid.uuid4().hex if key is None else _check_id("key", key)

        def body(tx: Transaction) -> Reservation | Refusal:
            path = self._path(tx, account)
            _refuse_unknown(path, asked)
            amounts = Amounts(asked[0] or 0, asked[1] or 0)
            return bookings.hold(tx, path, name, amounts, lease_us, retry=key is not None)

        if self.on_store_failure == "closed":
            return self._write(body)
        try:
            self._refuse_during_pause()
            return self._noting_failures(body)
        except StoreError as error:
            return Reservation(name, account, "open", asked[0] or 0, asked[1] or 0, degraded=error.message)

    def settle(
        self, reservation: Reservation | str, *, tokens: int | None = None, cost_nusd: int | None = None
    ) -> Reservation:
        """Say what a call used. What it held beyond that is free again.

        The use is booked in full even where it is more than was held, or where the lease has ended: it is a fact.
        `free` may become negative by that, and nothing is reserved until it is positive again. Settling again with the
        same amounts changes nothing.

        Args:
            reservation: The reservation, or its name.
            tokens: Tokens used, or `None` where nobody knows: all that was held then counts as used.
            cost_nusd: Nano-dollars, in the same way.

        Raises:
            InputError: An amount is out of range.
            LedgerError: There is no such reservation, or it was settled with other amounts.
            StoreError: The store cannot be used, and `on_store_failure` is "closed": say it again later. Under "open"
                the use of a reservation (not of a mere name) is booked later by itself, and this is raised only when
                too many wait.
        """
        used = (_check_amount("tokens", tokens), _check_amount("cost_nusd", cost_nusd))

        def body(tx: Transaction) -> Reservation:
            path = self._path_of(tx, reservation)
            return bookings.settle(tx, path, _name(reservation), used)

        if self.on_store_failure == "closed":
            return self._write(body)
        known = reservation if isinstance(reservation, Reservation) else None
        if known is not None and known.degraded is not None:
            return self._book_later(known, used)
        try:
            self._refuse_during_pause()
            return self._noting_failures(body)
        except StoreError as error:
            if known is None:
                raise
            return self._book_later(known, used, error.message)

    def spend(self, account: str, *, tokens: int = 0, cost_nusd: int = 0, key: str | None = None) -> Reservation:
        """Book what was used without a reservation, in full, whatever is free.

        Args:
            account: The account that pays.
            tokens: Tokens used.
            cost_nusd: Nano-dollars used.
            key: Names the booking, so that a retry does not book it twice; `None` makes up a name.

        Raises:
            InputError: An amount is out of range.
            LedgerError: There is no such account, or the key is that of another booking.
            StoreError: The store cannot be used.
        """
        _check_id("account", account)
        used = Amounts(_check_amount("tokens", tokens) or 0, _check_amount("cost_nusd", cost_nusd) or 0)
        name = uuid.uuid4().hex if key is None else _check_id("key", key)
        return self._write(lambda tx: bookings.spend(tx, self._path(tx, account), name, used))

    def release(self, reservation: Reservation | str) -> Reservation:
        """Give everything back, because the call was not made. Releasing again changes nothing.

        Raises:
            LedgerError: There is no such reservation, or it was settled.
            StoreError: The store cannot be used; what is held comes back when the lease ends.
        """
        if isinstance(reservation, Reservation) and reservation.degraded is not None:
            return reservation  # the store does not know of it
        return self._write(lambda tx: bookings.release(tx, self._path_of(tx, reservation), _name(reservation)))

    def renew(self, reservation: Reservation | str, *, lease_s: float = LEASE_S) -> Reservation:
        """Let the lease begin anew, for a call that takes longer.

        Raises:
            InputError: The lease is out of range.
            LedgerError: There is no such reservation, or it does not hold any more.
            StoreError: The store cannot be used.
        """
        lease_us = _check_lease(lease_s)
        if isinstance(reservation, Reservation) and reservation.degraded is not None:
            return reservation
        return self._write(lambda tx: bookings.renew(tx, self._path_of(tx, reservation), _name(reservation), lease_us))

    def top_up(self, account: str, *, tokens: int = 0, cost_nusd: int = 0, key: str | None = None) -> None:
        """Raise the limits of an account. A retry with the same key raises them once.

        Raises:
            InputError: An amount is out of range, or both are 0.
            LedgerError: There is no such account or limit, or the key is that of another top-up.
            StoreError: The store cannot be used.
        """
        _check_id("account", account)
        amounts = Amounts(_check_amount("tokens", tokens) or 0, _check_amount("cost_nusd", cost_nusd) or 0)
        if not any(amounts):
            raise InputError("a top-up needs an amount", hint="Give tokens, cost_nusd or both")
        name = uuid.uuid4().hex if key is None else _check_id("key", key)
        self._write(lambda tx: bookings.top_up(tx, self._path(tx, account), name, amounts))

    def close_account(self, account: str) -> None:
        """Let nothing more be reserved on an account and below. What holds may still be settled.

        Raises:
            LedgerError: There is no such account.
            StoreError: The store cannot be used.
        """
        _check_id("account", account)
        self._write(lambda tx: bookings.close_account(tx, self._path(tx, account)))

    def account(self, account: str) -> Account:
        """Return how an account stands now.

        Raises:
            LedgerError: There is no such account.
            StoreError: The store cannot be used.
        """
        _check_id("account", account)
        return self.accounts(account)[0]

    def accounts(self, below: str | None = None) -> list[Account]:
        """Return how all accounts stand at one instant, or one and those below it; parents come before children.

        Raises:
            LedgerError: There is no such account.
            StoreError: The store cannot be used.
        """
        if below is not None:
            _check_id("account", below)
        return self._store.read(lambda tx: reading.read_accounts(tx, below))

    def reservation(self, reservation: str) -> Reservation:
        """Return a reservation by its name.

        Raises:
            LedgerError: There is no such reservation.
            StoreError: The store cannot be used.
        """
        _check_id("reservation", reservation)
        return self._store.read(lambda tx: bookings.find_reservation(tx, reservation))

    def reservations(self, account: str | None = None) -> list[Reservation]:
        """Return those that are open, the next to expire first, on an account and below it, or all.

        One whose lease has ended is among them until the next reservation in its tree takes it back.

        Raises:
            LedgerError: There is no such account.
            StoreError: The store cannot be used.
        """
        if account is not None:
            _check_id("account", account)
        return self._store.read(lambda tx: bookings.open_reservations(tx, account))

    def audit(self) -> list[Finding]:
        """Compare the books with the reservations, spends and top-ups behind them, and check the store itself.

        Raises:
            StoreError: The store cannot be read.
        """
        damage = self._store.check()
        if damage:
            return [Finding("wrong", "", text) for text in damage]
        return self._store.read(reading.audit_books)

    def prune(self, *, older_than_s: float) -> int:
        """Forget reservations that ended long ago, and return how many; balances and audits stay as they are.

        A retry with the key of a forgotten reservation is a new call, and it cannot be settled any more. So keep them
        for longer than anybody retries.

        Raises:
            InputError: The time is negative or no number.
            StoreError: The store cannot be used.
        """
        if not (isinstance(older_than_s, int | float) and 0 <= older_than_s < float("inf")):
            raise InputError(f"older_than_s must be 0 or more, not {older_than_s!r:.40}", hint="Give seconds")
        older_us = int(older_than_s * 1e6)
        roots = [account.id for account in self.accounts() if account.parent is None]
        return sum(self._write(partial(bookings.prune, root=root, older_us=older_us)) for root in roots)

    def flush(self) -> int:
        """Book the uses that the store does not know of yet, and return how many there were.

        Raises:
            StoreError: The store cannot be used; they are kept.
        """
        booked = 0
        with self._unbooked_lock:
            while self._unbooked:
                if not self._noting_failures(self._book_first):
                    self.unbookable += 1
                self._unbooked.popleft()
                booked += 1
        return booked

    def close(self) -> None:
        """Book what waits, and close the store; closing twice is fine.

        Raises:
            StoreError: Uses could not be booked, and are lost with this process.
        """
        try:
            self.flush()
        except StoreError as error:
            raise StoreError(
                f"{self.unbooked:,} uses could not be booked: {error.message}", hint="Book them with spend()"
            ) from error
        finally:
            self._store.close()

    def _write(self, body: Callable[[Transaction], T]) -> T:
        return self._store.write(body)

    def _noting_failures(self, body: Callable[[Transaction], T]) -> T:
        try:
            result = self._store.write(body)
        except StoreError as error:
            self._failed_at, self._failure = time.monotonic(), error.message
            raise
        self._failed_at = None
        return result

    def _refuse_during_pause(self) -> None:
        """Do not wait for the store again where it has just failed; else book what waits first."""
        if self._failed_at is not None and time.monotonic() - self._failed_at < PAUSE_S:
            raise StoreError(self._failure)
        if self._unbooked:
            self.flush()

    def _book_later(
        self, known: Reservation, used: tuple[int | None, int | None], reason: str | None = None
    ) -> Reservation:
        if len(self._unbooked) >= MOST_UNBOOKED:
            raise StoreError(
                f"{len(self._unbooked):,} uses wait for the ledger {self.name}", hint="Make the store work again"
            )
        self._unbooked.append(_Unbooked(known, used))
        with suppress(StoreError):
            self._refuse_during_pause()
        held = _amounts(known)
        booked = bookings.known_amounts(used, held)
        degraded = known.degraded or reason
        return Reservation(known.id, known.account, "settled", *held, *booked, known.expires_us, degraded=degraded)

    def _book_first(self, tx: Transaction) -> bool:
        """Book the use that waits longest, and return whether that could be done."""
        known, used = self._unbooked[0]
        try:
            path = self._path(tx, known.account)
            try:
                bookings.settle(
                    tx, path, known.id, used
                )  # it may be stored even where the store broke while storing it
            except LedgerError:
                if known.degraded is None:
                    raise
                bookings.spend(tx, path, known.id, bookings.known_amounts(used, _amounts(known)))
        except LedgerError:
            return False
        return True

    def _path(self, tx: Transaction, account: str) -> AccountPath:
        found = self._paths.get(account)
        if found is None:
            found = bookings.find_path(tx, account)
            if len(self._paths) >= _PATHS:
                self._paths.clear()
            self._paths[account] = found
        return found

    def _path_of(self, tx: Transaction, reservation: Reservation | str) -> AccountPath:
        if isinstance(reservation, str):
            _check_id("reservation", reservation)
            reservation = bookings.find_reservation(tx, reservation)
        return self._path(tx, reservation.account)


def _amounts(reservation: Reservation) -> Amounts:
    return Amounts(reservation.tokens, reservation.cost_nusd)


def _name(reservation: Reservation | str) -> str:
    return reservation if isinstance(reservation, str) else reservation.id


def _refuse_unknown(path: AccountPath, asked: tuple[int | None, int | None]) -> None:
    """Refuse amounts that are unknown where they are limited: what is unknown must not pass for free."""
    for amount, limited, name in zip(
        asked, (path.limits_tokens, path.limits_cost), ("tokens", "cost_nusd"), strict=True
    ):
        if amount is None and limited:
            raise InputError(
                f"{name} must be given: account '{path.ids[-1]}', or one above it, limits them",
                hint="Give what the call may use at most",
            )


def _check_id(what: str, text: str) -> str:
    if not (isinstance(text, str) and 0 < len(text) <= _MOST_ID and text.isprintable()):
        shown = text if isinstance(text, str) and len(text) <= 40 else type(text).__name__
        raise InputError(f"{what} cannot be {shown!r}", hint=f"Give a name of 1 to {_MOST_ID} printable characters")
    return text


def _check_amount(what: str, value: int | None) -> int | None:
    if value is not None and not (_is_int(value) and 0 <= value <= MOST):
        raise InputError(f"{what} must be a whole number from 0 to 2**53, not {value!r:.40}")
    return value


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_lease(lease_s: float) -> int:
    good = isinstance(lease_s, int | float) and not isinstance(lease_s, bool) and 0 < lease_s <= MOST_LEASE_S
    if not good:
        raise InputError(f"lease_s must be above 0 and at most {MOST_LEASE_S:,.0f}, not {lease_s!r:.40}")
    return max(1, int(lease_s * 1e6))
