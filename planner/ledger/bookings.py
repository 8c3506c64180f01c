"""What a booking does to the books, as one transaction each.

Every booking first takes the lock of its tree of accounts, so that bookings in one tree come one after another. What is
held on an account is held on every account above it, and so is what is spent: the books of a parent include those of
its children. The guard that keeps budgets from being overdrawn is the one UPDATE of `hold`.
"""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from apportion.errors import LedgerError
from apportion.planner.ledger.records import MOST_DEPTH, Amounts, Refusal, Reservation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apportion.planner.ledger.stores import Transaction

PARTS = 60
"""Spends within a window are added up per sixtieth of it, and pass together: never early, a sixtieth late at most."""


class Path(NamedTuple):
    """An account and those above it; it never changes.

    Attributes:
        ids: The accounts, the topmost first.
        windows: Those with a rolling window, and its length in microseconds.
        limits_cost: Whether any of them limits money.
        limits_tokens: Whether any of them limits tokens.
    """

    ids: tuple[str, ...]
    windows: tuple[tuple[str, int], ...]
    limits_tokens: bool
    limits_cost: bool

    @property
    def root(self) -> str:
        """The topmost account."""
        return self.ids[0]


def find_path(tx: Transaction, account: str) -> Path:
    """Return an account and those above it.

    Raises:
        LedgerError: There is no such account.
    """
    rows = tx.execute(
        """
        WITH RECURSIVE up (id, parent, depth, window_us, tokens_total, cost_total) AS (
            SELECT id, parent, depth, window_us, tokens_total, cost_total FROM accounts WHERE id = ?
            UNION ALL
            SELECT a.id, a.parent, a.depth, a.window_us, a.tokens_total, a.cost_total
            FROM accounts AS a JOIN up ON a.id = up.parent
        )
        SELECT id, window_us, tokens_total, cost_total FROM up ORDER BY depth
        """,
        (account,),
    ).fetchall()
    if not rows:
        raise LedgerError(f"there is no account '{account}'", hint="Open it first")
    return Path(
        ids=tuple(row[0] for row in rows),
        windows=tuple((row[0], row[1]) for row in rows if row[1] is not None),
        limits_tokens=any(row[2] is not None for row in rows),
        limits_cost=any(row[3] is not None for row in rows),
    )


def open_account(
    tx: Transaction, account: str, *, parent: str | None, limits: tuple[int | None, int | None], window_us: int | None
) -> None:
    """Open an account, or find that it is open already, with the same parent, window and first limits.

    Raises:
        LedgerError: It exists and is another one, its parent does not exist or is closed, or it stands too deep.
    """
    above = () if parent is None else find_path(tx, parent).ids
    root = above[0] if above else account
    now = tx.lock(root)
    wanted = (parent, window_us, *limits)
    found = tx.execute(
        "SELECT parent, window_us, tokens_opened, cost_opened FROM accounts WHERE id = ?", (account,)
    ).fetchone()
    if found is None:
        _refuse_unusable_parent(tx, account, above)
        row = (account, parent, root, len(above), window_us, now, *limits, *limits)
        done = tx.execute(
            "INSERT INTO accounts (id, parent, root, depth, window_us, opened_us, tokens_opened, cost_opened,"
            " tokens_total, cost_total) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
            row,
        )
        if done.rowcount == 1:
            return
        found = tx.execute(  # another machine was faster
            "SELECT parent, window_us, tokens_opened, cost_opened FROM accounts WHERE id = ?", (account,)
        ).fetchone()
    if found is None or tuple(found) != wanted:
        raise LedgerError(
            f"account '{account}' exists with another parent, window or limit",
            hint="Give what it was opened with, or another name; a limit is raised by a top-up",
        )


def _refuse_unusable_parent(tx: Transaction, account: str, above: Sequence[str]) -> None:
    if len(above) >= MOST_DEPTH:
        raise LedgerError(
            f"account '{account}' would stand below {len(above)} others", hint=f"{MOST_DEPTH - 1} may stand above one"
        )
    marks = _marks(len(above))
    closed = (
        above
        and tx.execute(
            f"SELECT id FROM accounts WHERE id IN ({marks}) AND closed_us IS NOT NULL",  # noqa: S608  (question marks)
            above,
        ).fetchone()
    )
    if closed:
        raise LedgerError(f"account '{closed[0]}' is closed", hint="Open the new one elsewhere")


def hold(
    tx: Transaction, path: Path, reservation: str, amounts: Amounts, lease_us: int, *, retry: bool
) -> Reservation | Refusal:
    """Hold amounts on an account and all above it, if all of them have so much free.

    Args:
        tx: The transaction.
        path: The account.
        reservation: Name of the reservation.
        amounts: How much to hold.
        lease_us: For how long, in microseconds.
        retry: Whether the name may be known already.

    Raises:
        LedgerError: The name is known, of another account or other amounts.
    """
    now = tx.lock(path.root)
    known = _find(tx, reservation) if retry else None
    if known is not None:
        _refuse_other(known, path, amounts)
        if known.state == "settled" or (known.state == "open" and known.expires_us > now):
            return known
    reclaim(tx, path.root, now)
    roll(tx, path, now)
    done = tx.execute(_hold_statement(len(path.ids)), (*amounts, *path.ids, *path.ids, *amounts))
    if done.rowcount != len(path.ids):
        return _refusal(tx, path, amounts, now)
    made = Reservation(reservation, path.ids[-1], "open", *amounts, expires_us=now + lease_us)
    if known is None:
        tx.execute(
            "INSERT INTO reservations (id, account, root, state, tokens, cost, lease_us, dated_us, expires_us)"
            " VALUES (?, ?, ?, 'open', ?, ?, ?, ?, ?)",
            (reservation, path.ids[-1], path.root, *amounts, lease_us, now, now + lease_us),
        )
    else:  # it had gone back
        tx.execute(
            "UPDATE reservations SET state = 'open', lease_us = ?, dated_us = ?, expires_us = ?, ended_us = NULL"
            " WHERE id = ?",
            (lease_us, now, now + lease_us, reservation),
        )
    return made


ENOUGH_FREE = (
    "closed_us IS NOT NULL OR tokens_total - tokens_spent - tokens_held < ? OR cost_total - cost_spent - cost_held < ?"
)
"""What keeps an account from holding more; without a limit the comparison is NULL, which keeps from nothing."""


@lru_cache(MOST_DEPTH)
def _hold_statement(depth: int) -> str:
    """Return the statement that holds amounts on all accounts of a path, or on none of them."""
    marks = _marks(depth)
    return (
        "UPDATE accounts SET tokens_held = tokens_held + ?, cost_held = cost_held + ?"  # noqa: S608  (question marks)
        f" WHERE id IN ({marks})"
        f" AND NOT EXISTS (SELECT 1 FROM accounts WHERE id IN ({marks}) AND ({ENOUGH_FREE}))"
    )


def _refuse_other(known: Reservation, path: Path, amounts: Amounts) -> None:
    if (known.account, known.tokens, known.cost_nusd) != (path.ids[-1], *amounts):
        raise LedgerError(
            f"reservation '{known.id}' exists, for {known.tokens:,} tokens and {known.cost_nusd:,} nano-dollars on "
            f"account '{known.account}'",
            hint="Give another key for another call; the same key means a retry of the same one",
        )


def _refusal(tx: Transaction, path: Path, amounts: Amounts, now: int) -> Refusal:
    """Say which account refuses: the topmost that does."""
    rows = tx.execute(
        "SELECT id, closed_us, tokens_total - tokens_spent - tokens_held, tokens_held,"  # noqa: S608  (question marks)
        f" cost_total - cost_spent - cost_held, cost_held FROM accounts WHERE id IN ({_marks(len(path.ids))})"
        " ORDER BY depth",
        path.ids,
    ).fetchall()
    if len(rows) != len(path.ids):
        raise LedgerError(f"account '{path.ids[-1]}' was deleted", hint="Open it again")
    for account, closed_us, tokens_free, tokens_held, cost_free, cost_held in rows:
        if closed_us is not None:
            return Refusal(account, None)
        if tokens_free is not None and tokens_free < amounts.tokens:
            wait = _wait_s(tx, path, account, now)
            return Refusal(account, "tokens", amounts.tokens, tokens_free, tokens_held, wait)
        if cost_free is not None and cost_free < amounts.cost_nusd:
            wait = _wait_s(tx, path, account, now)
            return Refusal(account, "cost_nusd", amounts.cost_nusd, cost_free, cost_held, wait)
    raise AssertionError("an account that refuses has a reason")  # pragma: no cover


def _wait_s(tx: Transaction, path: Path, account: str, now: int) -> float | None:
    lease = tx.execute(
        "SELECT MIN(expires_us) FROM reservations WHERE root = ? AND state = 'open'", (path.root,)
    ).fetchone()[0]
    times = [] if lease is None else [lease]
    window_us = dict(path.windows).get(account)
    if window_us is not None:
        spend = tx.execute("SELECT MIN(ends_us) FROM spends WHERE account = ?", (account,)).fetchone()[0]
        times += [] if spend is None else [spend + window_us]
    return max(0, min(times) - now) / 1e6 if times else None


def settle(tx: Transaction, path: Path, reservation: str, used: tuple[int | None, int | None]) -> Reservation:
    """Turn what is held into what was used; an unknown amount counts as all that was held.

    What was used is a fact. It is booked in full, even where it is more than was held, or where that has gone back.

    Raises:
        LedgerError: There is no such reservation, or it was settled with other amounts.
    """
    now = tx.lock(path.root)
    row = tx.execute(
        "UPDATE reservations SET state = 'settled', used_tokens = COALESCE(?, tokens), used_cost = COALESCE(?, cost),"
        " ended_us = ? WHERE id = ? AND account = ? AND state = 'open'"
        " RETURNING tokens, cost, used_tokens, used_cost, expires_us",
        (*used, now, reservation, path.ids[-1]),
    ).fetchone()
    if row is not None:
        held, spent = Amounts(row[0], row[1]), Amounts(row[2], row[3])
        book(tx, path, held=Amounts(-held.tokens, -held.cost_nusd), spent=spent, now=now)
        return Reservation(reservation, path.ids[-1], "settled", *held, *spent, row[4])
    known = _find_on(tx, path, reservation)
    if known.state != "settled":
        return _settle_late(tx, path, known, used, now)
    if any(new not in {None, old} for new, old in zip(used, (known.used_tokens, known.used_cost_nusd), strict=True)):
        raise LedgerError(
            f"reservation '{reservation}' was settled already, with {known.used_tokens:,} tokens and "
            f"{known.used_cost_nusd:,} nano-dollars",
            hint="Each call is settled once; book what else was used with spend()",
        )
    return known


def _settle_late(
    tx: Transaction, path: Path, known: Reservation, used: tuple[int | None, int | None], now: int
) -> Reservation:
    """Settle a reservation that has gone back: nothing is held any more, and the use is booked all the same."""
    spent = known_amounts(used, Amounts(known.tokens, known.cost_nusd))
    tx.execute(
        "UPDATE reservations SET state = 'settled', used_tokens = ?, used_cost = ?, late = 1,"
        " ended_us = ? WHERE id = ?",
        (*spent, now, known.id),
    )
    book(tx, path, held=Amounts(), spent=spent, now=now)
    return Reservation(
        known.id, known.account, "settled", known.tokens, known.cost_nusd, *spent, known.expires_us, late=True
    )


def known_amounts(used: tuple[int | None, int | None], held: Amounts) -> Amounts:
    """Return what was used; where that is unknown, what was held."""
    return Amounts(*(old if new is None else new for new, old in zip(used, held, strict=True)))


def spend(tx: Transaction, path: Path, key: str, used: Amounts) -> Reservation:
    """Book what was used without any reservation.

    Raises:
        LedgerError: The key is known, of another account or other amounts.
    """
    now = tx.lock(path.root)
    known = _find(tx, key)
    if known is not None:
        _refuse_other(known, path, Amounts())
        if (known.used_tokens, known.used_cost_nusd) != used:
            raise LedgerError(f"'{key}' was booked already, with other amounts", hint="Give another key")
        return known
    tx.execute(
        "INSERT INTO reservations (id, account, root, state, tokens, cost, used_tokens, used_cost, late, lease_us,"
        " dated_us, expires_us, ended_us) VALUES (?, ?, ?, 'settled', 0, 0, ?, ?, 1, 0, ?, ?, ?)",
        (key, path.ids[-1], path.root, *used, now, now, now),
    )
    book(tx, path, held=Amounts(), spent=used, now=now)
    return Reservation(key, path.ids[-1], "settled", 0, 0, *used, now, late=True)


def release(tx: Transaction, path: Path, reservation: str) -> Reservation:
    """Give back what is held, because the call was not made.

    Raises:
        LedgerError: There is no such reservation, or it was settled.
    """
    now = tx.lock(path.root)
    row = tx.execute(
        "UPDATE reservations SET state = 'released', ended_us = ? WHERE id = ? AND account = ? AND state = 'open'"
        " RETURNING tokens, cost, expires_us",
        (now, reservation, path.ids[-1]),
    ).fetchone()
    if row is not None:
        book(tx, path, held=Amounts(-row[0], -row[1]), spent=Amounts(), now=now)
        return Reservation(reservation, path.ids[-1], "released", row[0], row[1], expires_us=row[2])
    known = _find_on(tx, path, reservation)
    if known.state == "settled":
        raise LedgerError(
            f"reservation '{reservation}' was settled: its call was made", hint="What was used cannot be given back"
        )
    return known


def renew(tx: Transaction, path: Path, reservation: str, lease_us: int) -> Reservation:
    """Let the lease begin anew.

    Raises:
        LedgerError: There is no such reservation, or it does not hold any more.
    """
    now = tx.lock(path.root)
    row = tx.execute(
        "UPDATE reservations SET lease_us = ?, dated_us = ?, expires_us = ?"
        " WHERE id = ? AND account = ? AND state = 'open' RETURNING tokens, cost",
        (lease_us, now, now + lease_us, reservation, path.ids[-1]),
    ).fetchone()
    if row is None:
        known = _find_on(tx, path, reservation)
        raise LedgerError(f"reservation '{reservation}' is {known.state}", hint="Reserve again")
    return Reservation(reservation, path.ids[-1], "open", row[0], row[1], expires_us=now + lease_us)


def top_up(tx: Transaction, path: Path, key: str, amounts: Amounts) -> None:
    """Raise the limits of one account.

    Raises:
        LedgerError: The account has no such limit, or the key is known, of another account or other amounts.
    """
    account = path.ids[-1]
    now = tx.lock(path.root)
    known = tx.execute("SELECT account, tokens, cost FROM top_ups WHERE id = ?", (key,)).fetchone()
    if known is not None:
        if tuple(known) != (account, *amounts):
            raise LedgerError(f"top-up '{key}' was made already, with other amounts", hint="Give another key")
        return
    limits = tx.execute("SELECT tokens_total, cost_total FROM accounts WHERE id = ?", (account,)).fetchone()
    for limit, more, unit in zip(limits or (), amounts, ("tokens", "money"), strict=False):
        if limit is None and more:
            raise LedgerError(f"account '{account}' does not limit {unit}", hint="Nothing needs to be added")
    tx.execute(
        "INSERT INTO top_ups (id, account, tokens, cost, at_us) VALUES (?, ?, ?, ?, ?)", (key, account, *amounts, now)
    )
    tx.execute(
        "UPDATE accounts SET tokens_total = tokens_total + ?, cost_total = cost_total + ? WHERE id = ?",
        (*amounts, account),
    )


def close_account(tx: Transaction, path: Path) -> None:
    """Let nothing more be reserved on an account and below; what holds may still be settled."""
    now = tx.lock(path.root)
    tx.execute("UPDATE accounts SET closed_us = ? WHERE id = ? AND closed_us IS NULL", (now, path.ids[-1]))


def prune(tx: Transaction, root: str, older_us: int) -> int:
    """Delete the reservations of a tree that ended so long ago, keep what they used in the books, and count them."""
    now = tx.lock(root)
    rows = tx.execute(
        "DELETE FROM reservations WHERE root = ? AND state <> 'open' AND ended_us <= ?"
        " RETURNING account, COALESCE(used_tokens, 0), COALESCE(used_cost, 0)",
        (root, now - older_us),
    ).fetchall()
    for account, used in added_up(rows).items():
        ids = find_path(tx, account).ids
        tx.execute(
            "UPDATE accounts SET tokens_brought = tokens_brought + ?,"  # noqa: S608  (question marks)
            f" cost_brought = cost_brought + ? WHERE id IN ({_marks(len(ids))})",
            (*used, *ids),
        )
    return len(rows)


def book(tx: Transaction, path: Path, *, held: Amounts, spent: Amounts, now: int) -> None:
    """Add to what is held and spent on all accounts of a path."""
    tx.execute(
        "UPDATE accounts SET tokens_held = tokens_held + ?, cost_held = cost_held + ?,"  # noqa: S608  (question marks)
        f" tokens_spent = tokens_spent + ?, cost_spent = cost_spent + ? WHERE id IN ({_marks(len(path.ids))})",
        (*held, *spent, *path.ids),
    )
    if any(spent):
        for account, window_us in path.windows:
            _add_spend(tx, account, part_end(now, window_us), spent)


def part_us(window_us: int) -> int:
    """Return the length of the parts in which a window is added up, in microseconds."""
    return max(1, window_us // PARTS)


def part_end(now: int, window_us: int) -> int:
    """Return when the part of a window ends in which a time lies."""
    part = part_us(window_us)
    return (now // part + 1) * part


def _add_spend(tx: Transaction, account: str, ends_us: int, spent: Sequence[int]) -> None:
    tx.execute(
        "INSERT INTO spends (account, ends_us, tokens, cost) VALUES (?, ?, ?, ?) ON CONFLICT (account, ends_us)"
        " DO UPDATE SET tokens = spends.tokens + excluded.tokens, cost = spends.cost + excluded.cost",
        (account, ends_us, *spent),
    )


def reclaim(tx: Transaction, root: str, now: int) -> None:
    """Take back what reservations hold whose lease has ended.

    A lease that began in the future was dated by a clock that has been set back since. It begins now instead, so that
    it ends a lease from now at the latest, and not whenever that clock would have had it.
    """
    first, last = tx.execute(
        "SELECT (SELECT MIN(expires_us) FROM reservations WHERE root = ? AND state = 'open'),"
        " (SELECT MAX(dated_us) FROM reservations WHERE root = ? AND state = 'open')",
        (root, root),
    ).fetchone()
    if last is not None and last > now:
        tx.execute(
            "UPDATE reservations SET dated_us = ?, expires_us = ? + lease_us"
            " WHERE root = ? AND state = 'open' AND dated_us > ?",
            (now, now, root, now),
        )
    if first is not None and first <= now:
        rows = tx.execute(
            "UPDATE reservations SET state = 'expired', ended_us = ? WHERE root = ? AND state = 'open'"
            " AND expires_us <= ? RETURNING account, tokens, cost",
            (now, root, now),
        ).fetchall()
        for account, amounts in added_up(rows).items():
            back = Amounts(-amounts.tokens, -amounts.cost_nusd)
            book(tx, find_path(tx, account), held=back, spent=Amounts(), now=now)


def added_up(rows: Iterable[Any]) -> dict[str, Amounts]:
    """Add up tokens and costs of rows (account, tokens, cost) by account."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for account, tokens, cost in rows:
        sums[account][0] += tokens
        sums[account][1] += cost
    return {account: Amounts(*both) for account, both in sums.items()}


def roll(tx: Transaction, path: Path, now: int) -> None:
    """Let what was spent before a window began no longer count in it."""
    for account, window_us in path.windows:
        first, last = tx.execute(
            "SELECT MIN(ends_us), MAX(ends_us) FROM spends WHERE account = ?", (account,)
        ).fetchone()
        if first is None:
            continue
        if last > part_end(now, window_us):  # dated by a clock that has been set back since
            ahead = _take_spends(tx, account, "ends_us > ?", part_end(now, window_us))
            _add_spend(tx, account, part_end(now, window_us), ahead)
        if first <= now - window_us:
            passed = _take_spends(tx, account, "ends_us <= ?", now - window_us)
            tx.execute(
                "UPDATE accounts SET tokens_spent = tokens_spent - ?, tokens_passed = tokens_passed + ?,"
                " cost_spent = cost_spent - ?, cost_passed = cost_passed + ? WHERE id = ?",
                (passed.tokens, passed.tokens, passed.cost_nusd, passed.cost_nusd, account),
            )


def _take_spends(tx: Transaction, account: str, which: str, time_us: int) -> Amounts:
    rows = tx.execute(
        f"DELETE FROM spends WHERE account = ? AND {which} RETURNING account, tokens, cost",  # noqa: S608  (our own)
        (account, time_us),
    ).fetchall()
    return added_up(rows).get(account, Amounts())


_COLUMNS = "id, account, state, tokens, cost, used_tokens, used_cost, expires_us, late"


def _find(tx: Transaction, reservation: str) -> Reservation | None:
    row = tx.execute(f"SELECT {_COLUMNS} FROM reservations WHERE id = ?", (reservation,)).fetchone()  # noqa: S608
    return None if row is None else to_reservation(row)


def to_reservation(row: Sequence[Any]) -> Reservation:
    """Make a reservation of a row with its columns."""
    name, account, state, tokens, cost, used_tokens, used_cost, expires_us, late = row
    return Reservation(name, account, state, tokens, cost, used_tokens, used_cost, expires_us, late=bool(late))


def find_reservation(tx: Transaction, reservation: str) -> Reservation:
    """Return a reservation.

    Raises:
        LedgerError: There is no such reservation.
    """
    found = _find(tx, reservation)
    if found is None:
        raise _unknown(reservation)
    return found


def _find_on(tx: Transaction, path: Path, reservation: str) -> Reservation:
    """Return a reservation of an account.

    Raises:
        LedgerError: There is no such reservation, or it is of another account.
    """
    found = find_reservation(tx, reservation)
    if found.account != path.ids[-1]:
        raise LedgerError(
            f"reservation '{reservation}' is of account '{found.account}', not of '{path.ids[-1]}'",
            hint="Give the reservation as it was made, or its name",
        )
    return found


def open_reservations(tx: Transaction, account: str | None) -> list[Reservation]:
    """Return the reservations that are open, whether their lease has ended or not, on an account and below, or all."""
    rows = tx.execute(
        f"SELECT {_COLUMNS} FROM reservations WHERE state = 'open' ORDER BY expires_us, id"  # noqa: S608
    ).fetchall()
    found = [to_reservation(row) for row in rows]
    if account is None:
        return found
    find_path(tx, account)
    below = subtree(tx, account)
    return [reservation for reservation in found if reservation.account in below]


def subtree(tx: Transaction, account: str) -> set[str]:
    """Return an account and all below it."""
    rows = tx.execute(
        """
        WITH RECURSIVE down (id) AS (
            SELECT CAST(? AS TEXT) UNION ALL SELECT a.id FROM accounts AS a JOIN down ON a.parent = down.id
        )
        SELECT id FROM down
        """,
        (account,),
    ).fetchall()
    return {row[0] for row in rows}


def _unknown(reservation: str) -> LedgerError:
    return LedgerError(
        f"there is no reservation '{reservation}'",
        hint="Reserve before the call; book what was used without a reservation with spend()",
    )


@lru_cache(MOST_DEPTH)
def _marks(count: int) -> str:
    return ", ".join("?" * count)
