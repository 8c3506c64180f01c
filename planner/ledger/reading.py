"""How accounts stand at one instant, and whether their books agree with the reservations. Nothing is changed."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from apportion.planner.ledger.bookings import added_up, find_path, subtree
from apportion.planner.ledger.records import Account, Amounts, Balance, Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from apportion.planner.ledger.stores import Transaction


class _Row(NamedTuple):
    """An account as it is booked; the columns are those of the table."""

    id: str
    parent: str | None
    window_us: int | None
    closed_us: int | None
    tokens_opened: int | None
    cost_opened: int | None
    tokens_total: int | None
    cost_total: int | None
    tokens_spent: int
    cost_spent: int
    tokens_held: int
    cost_held: int
    tokens_passed: int
    cost_passed: int
    tokens_brought: int
    cost_brought: int


def read_accounts(tx: Transaction, account: str | None = None) -> list[Account]:
    """Return how an account and those below it stand, or all accounts; parents come before their children.

    Leases that have ended hold nothing any more, and spends that are older than a window count no longer, whether a
    booking has noticed it yet or not.

    Raises:
        LedgerError: There is no such account.
    """
    now = tx.now()
    root = None if account is None else find_path(tx, account).root
    rows = _rows(tx, root)
    above = _ancestors(rows)
    back = _on_all_above(above, _sums(tx, root, f"state = 'open' AND expires_us <= {now}"))
    counts = _on_all_above(above, _counts(tx, root, now))
    passed = _passed(tx, root, now)
    wanted = None if account is None else subtree(tx, account)
    return [
        _account(row, back[row.id], passed.get(row.id, Amounts()), counts[row.id].tokens)
        for row in rows
        if wanted is None or row.id in wanted
    ]


def _account(row: _Row, back: Amounts, passed: Amounts, reservations: int) -> Account:
    return Account(
        id=row.id,
        parent=row.parent,
        window_s=None if row.window_us is None else row.window_us // 1_000_000,
        closed=row.closed_us is not None,
        tokens=Balance(row.tokens_total, row.tokens_spent - passed.tokens, row.tokens_held - back.tokens),
        cost_nusd=Balance(row.cost_total, row.cost_spent - passed.cost_nusd, row.cost_held - back.cost_nusd),
        passed=Amounts(row.tokens_passed + passed.tokens, row.cost_passed + passed.cost_nusd),
        reservations=reservations,
    )


def _rows(tx: Transaction, root: str | None) -> list[_Row]:
    where, given = ("", ()) if root is None else (" WHERE root = ?", (root,))
    statement = f"SELECT {', '.join(_Row._fields)} FROM accounts{where} ORDER BY root, depth, id"  # noqa: S608  (our own)
    rows = [_Row(*row) for row in tx.execute(statement, given).fetchall()]
    return _parents_first(rows)


def _parents_first(rows: list[_Row]) -> list[_Row]:
    """Put each account directly below its parent's."""
    below: dict[str | None, list[_Row]] = defaultdict(list)
    for row in rows:
        below[row.parent].append(row)
    ordered: list[_Row] = []
    waiting = below.pop(None, [])[::-1]
    while waiting:
        row = waiting.pop()
        ordered.append(row)
        waiting += below.pop(row.id, [])[::-1]
    return ordered + [row for left in below.values() for row in left]  # a damaged ledger may have lost parents


def _ancestors(rows: Iterable[_Row]) -> dict[str, tuple[str, ...]]:
    """Return, for each account, itself and those above it."""
    above: dict[str, tuple[str, ...]] = {}
    for row in rows:
        above[row.id] = (row.id, *above.get(row.parent or "", ()))
    return above


def _on_all_above(above: Mapping[str, tuple[str, ...]], sums: Mapping[str, Amounts]) -> defaultdict[str, Amounts]:
    """Add what each account has to all above it."""
    totals: defaultdict[str, Amounts] = defaultdict(Amounts)
    for account, amounts in sums.items():
        for each in above.get(account, (account,)):
            totals[each] = Amounts(totals[each].tokens + amounts.tokens, totals[each].cost_nusd + amounts.cost_nusd)
    return totals


def _sums(tx: Transaction, root: str | None, which: str, columns: str = "tokens, cost") -> dict[str, Amounts]:
    where, given = ("", ()) if root is None else (" AND root = ?", (root,))
    rows = tx.execute(
        f"SELECT account, {columns} FROM reservations WHERE {which}{where}",  # noqa: S608  (our own)
        given,
    ).fetchall()
    return added_up(rows)


def _counts(tx: Transaction, root: str | None, now: int) -> dict[str, Amounts]:
    where, given = ("", ()) if root is None else (" AND root = ?", (root,))
    rows = tx.execute(
        "SELECT account, COUNT(*), 0 FROM reservations WHERE state = 'open' AND expires_us > ?"  # noqa: S608  (our own)
        f"{where} GROUP BY account",
        (now, *given),
    ).fetchall()
    return added_up(rows)


def _passed(tx: Transaction, root: str | None, now: int) -> dict[str, Amounts]:
    where, given = ("", ()) if root is None else (" AND a.root = ?", (root,))
    rows = tx.execute(
        "SELECT s.account, s.tokens, s.cost FROM spends AS s JOIN accounts AS a ON a.id = s.account"  # noqa: S608
        f" WHERE s.ends_us <= ? - a.window_us{where}",
        (now, *given),
    ).fetchall()
    return added_up(rows)


def audit_books(tx: Transaction) -> list[Finding]:
    """Compare what is booked on each account with its reservations, spends and top-ups."""
    now = tx.now()
    rows = _rows(tx, None)
    above = _ancestors(rows)
    held = _on_all_above(above, _sums(tx, None, "state = 'open'"))
    used = _on_all_above(above, _sums(tx, None, "state = 'settled'", "used_tokens, used_cost"))
    overdue = _on_all_above(above, _sums(tx, None, f"state = 'open' AND expires_us <= {now}"))
    in_window = added_up(tx.execute("SELECT account, tokens, cost FROM spends").fetchall())
    topped = added_up(tx.execute("SELECT account, tokens, cost FROM top_ups").fetchall())
    findings: list[Finding] = []
    for row in rows:
        findings += [
            Finding("wrong", row.id, f"account '{row.id}': {text}")
            for text in _contradictions(row, held[row.id], used[row.id], in_window, topped.get(row.id, Amounts()))
        ]
        findings += _remarks(row, overdue[row.id])
    return findings


def _contradictions(
    row: _Row, held: Amounts, used: Amounts, in_window: Mapping[str, Amounts], topped: Amounts
) -> Iterable[str]:
    for unit in ("tokens", "cost"):
        mine = {
            name: getattr(row, f"{unit}_{name}") for name in ("opened", "total", "spent", "held", "passed", "brought")
        }
        name = "tokens" if unit == "tokens" else "nano-dollars"
        index = ("tokens", "cost").index(unit)
        if mine["held"] != held[index]:
            yield f"{mine['held']:,} {name} are booked as held, its reservations hold {held[index]:,}"
        if mine["spent"] + mine["passed"] != used[index] + mine["brought"]:
            spent = mine["spent"] + mine["passed"]
            yield f"{spent:,} {name} are booked as spent, its reservations used {used[index] + mine['brought']:,}"
        if row.window_us is not None and mine["spent"] != in_window.get(row.id, Amounts())[index]:
            parts = in_window.get(row.id, Amounts())[index]
            yield f"{mine['spent']:,} {name} are booked as spent within its window, the parts hold {parts:,}"
        if mine["total"] != (None if mine["opened"] is None else mine["opened"] + topped[index]):
            yield f"its limit of {_count(mine['total'])} {name} is not what it was opened with and its top-ups"


def _remarks(row: _Row, overdue: Amounts) -> Iterable[Finding]:
    if any(overdue):
        text = f"account '{row.id}': leases have ended; the next reservation takes back {_amounts(overdue)}"
        yield Finding("overdue", row.id, text)
    over = Amounts(
        _over(row.tokens_total, row.tokens_spent + row.tokens_held),
        _over(row.cost_total, row.cost_spent + row.cost_held),
    )
    if any(over):
        yield Finding("overdrawn", row.id, f"account '{row.id}': calls used {_amounts(over)} more than it had")


def _over(total: int | None, taken: int) -> int:
    return 0 if total is None else max(0, taken - total)


def _amounts(amounts: Amounts) -> str:
    parts = [f"{amounts.tokens:,} tokens"] if amounts.tokens else []
    parts += [f"{amounts.cost_nusd:,} nano-dollars"] if amounts.cost_nusd else []
    return " and ".join(parts)


def _count(value: Any) -> str:
    return "no" if value is None else f"{value:,}"
