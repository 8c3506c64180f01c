"""The laws of the ledger, against a model of them that fits on a page.

Each machine has a positive control: with one guard of the books taken out, the same machine must fail.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from apportion.errors import LedgerError
from apportion.planner.ledger import Ledger, bookings

if TYPE_CHECKING:
    from collections.abc import Callable

TREE = {
    "team": (None, 1000, 5000),
    "run": ("team", 700, None),
    "agent": ("run", None, 2000),
    "other": ("team", 500, 3000),
}
"""Name, parent, tokens and nano-dollars of each account."""

LEASE_S = 100
"""Of every reservation here, in seconds."""

SOME = settings().max_examples * 2 // 5
"""Histories that are tried; `make thorough` tries four times as many."""

UNTIL_FOUND = 100
"""Histories that are tried at most to find a fault that was put in."""

AMOUNTS = st.integers(0, 400)
COSTS = st.integers(0, 1500)
NAMES = st.sampled_from(sorted(TREE))


@dataclass(frozen=True)
class Held:
    """What the model knows of a reservation."""

    account: str
    amounts: tuple[int, int]
    state: str
    ends: float = 0.0
    used: tuple[int, int] = (0, 0)


class Clock:
    """Tells the time that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Model:
    """What a ledger is, without any store: a list of reservations, from which everything else is added up."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reservations: dict[str, Held] = {}
        self.totals = {name: [tokens, cost] for name, (_, tokens, cost) in TREE.items()}
        self.closed: set[str] = set()
        self.used_beyond = False  # more than was reserved, or after it had gone back

    def above(self, account: str | None) -> list[str]:
        return [] if account is None else [account, *self.above(TREE[account][0])]

    def on(self, account: str) -> list[Held]:
        return [one for one in self.reservations.values() if account in self.above(one.account)]

    def holds(self, one: Held) -> bool:
        return one.state == "open" and one.ends > self.now

    def spent(self, account: str, unit: int) -> int:
        return sum(one.used[unit] for one in self.on(account))

    def held(self, account: str, unit: int) -> int:
        return sum(one.amounts[unit] for one in self.on(account) if self.holds(one))

    def free(self, account: str, unit: int) -> int | None:
        total = self.totals[account][unit]
        return None if total is None else total - self.spent(account, unit) - self.held(account, unit)

    def admits(self, account: str, amounts: tuple[int, int]) -> bool:
        path = self.above(account)
        free = [(self.free(one, unit), amounts[unit]) for one in path for unit in (0, 1)]
        return not self.closed & set(path) and all(left is None or left >= asked for left, asked in free)


class LedgerMachine(RuleBasedStateMachine):
    """Everything that may happen to a ledger, in any order, each step compared with the model."""

    new_address: ClassVar[Callable[[], str]]

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.model = Model()
        self.model.now = self.clock.now
        self.where = type(self).new_address()
        self.ledger = Ledger(self.where, clock=self.clock)
        self.made = 0

    def teardown(self) -> None:
        self.ledger.close()

    @initialize()
    def open_accounts(self) -> None:
        for name, (parent, tokens, cost) in TREE.items():
            self.ledger.open_account(name, parent=parent, tokens=tokens, cost_nusd=cost)

    def some(self, data: Any) -> str:
        return str(data.draw(st.sampled_from(sorted(self.model.reservations))))

    @rule(account=NAMES, tokens=AMOUNTS, cost=COSTS)
    def reserve(self, account: str, tokens: int, cost: int) -> None:
        self.made += 1
        key = f"call-{self.made}"
        admits = self.model.admits(account, (tokens, cost))
        made = self.ledger.reserve(account, tokens=tokens, cost_nusd=cost, key=key, lease_s=LEASE_S)
        assert made.granted == admits, made
        if admits:
            self.model.reservations[key] = Held(account, (tokens, cost), "open", self.model.now + LEASE_S)

    @precondition(lambda self: self.model.reservations)
    @rule(data=st.data())
    def reserve_again(self, data: Any) -> None:
        key = self.some(data)
        known = self.model.reservations[key]
        admits = known.state == "settled" or self.model.holds(known) or self.model.admits(known.account, known.amounts)
        tokens, cost = known.amounts
        made = self.ledger.reserve(known.account, tokens=tokens, cost_nusd=cost, key=key, lease_s=LEASE_S)
        assert made.granted == admits
        if admits and known.state != "settled" and not self.model.holds(known):
            self.model.reservations[key] = replace(known, state="open", ends=self.model.now + LEASE_S)

    @precondition(lambda self: self.model.reservations)
    @rule(data=st.data(), tokens=st.none() | AMOUNTS, cost=st.none() | COSTS, again=st.booleans())
    def settle(self, data: Any, tokens: int | None, cost: int | None, *, again: bool) -> None:
        key = self.some(data)
        known = self.model.reservations[key]
        held_tokens, held_cost = known.amounts
        used = (held_tokens if tokens is None else tokens, held_cost if cost is None else cost)
        if known.state == "settled":
            told = [(new, old) for new, old in zip((tokens, cost), known.used, strict=True) if new is not None]
            if any(new != old for new, old in told):
                with pytest.raises(LedgerError, match="settled already"):
                    self.ledger.settle(key, tokens=tokens, cost_nusd=cost)
                return
        else:
            fits = all(new <= held for new, held in zip(used, known.amounts, strict=True))
            self.model.used_beyond |= not (fits and self.model.holds(known))
            self.model.reservations[key] = replace(known, state="settled", used=used)
        for _ in range(1 + again):
            assert self.ledger.settle(key, tokens=tokens, cost_nusd=cost).state == "settled"

    @precondition(lambda self: self.model.reservations)
    @rule(data=st.data(), again=st.booleans())
    def release(self, data: Any, *, again: bool) -> None:
        key = self.some(data)
        known = self.model.reservations[key]
        if known.state == "settled":
            with pytest.raises(LedgerError, match="was settled"):
                self.ledger.release(key)
            return
        for _ in range(1 + again):
            self.ledger.release(key)
        self.model.reservations[key] = replace(known, state="gone")

    @rule(account=NAMES, tokens=AMOUNTS, cost=COSTS, times=st.integers(1, 2))
    def spend(self, account: str, tokens: int, cost: int, times: int) -> None:
        self.made += 1
        key = f"call-{self.made}"
        for _ in range(times):
            self.ledger.spend(account, tokens=tokens, cost_nusd=cost, key=key)
        self.model.reservations[key] = Held(account, (0, 0), "settled", used=(tokens, cost))
        self.model.used_beyond |= tokens + cost > 0

    @rule(tokens=st.integers(1, 300), times=st.integers(1, 2))
    def top_up(self, tokens: int, times: int) -> None:
        self.made += 1
        for _ in range(times):
            self.ledger.top_up("team", tokens=tokens, cost_nusd=tokens, key=f"top-up-{self.made}")
        self.model.totals["team"] = [total + tokens for total in self.model.totals["team"] if total is not None]

    @rule(account=st.sampled_from(["agent", "other"]), really=st.integers(0, 3))
    def close_account(self, account: str, really: int) -> None:
        if really == 0:  # else little would happen after it
            self.ledger.close_account(account)
            self.model.closed.add(account)

    @rule(seconds=st.sampled_from([1, 40, LEASE_S - 1, LEASE_S, 3 * LEASE_S]))
    def let_time_pass(self, seconds: int) -> None:
        self.clock.now += seconds
        self.model.now += seconds

    @rule()
    def open_the_ledger_again(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(self.where, clock=self.clock)

    @invariant()
    def accounts_stand_as_in_the_model(self) -> None:
        for account in self.ledger.accounts():
            for unit, balance in enumerate((account.tokens, account.cost_nusd)):
                assert balance.spent == self.model.spent(account.id, unit)
                assert balance.held == self.model.held(account.id, unit)
                assert balance.total == self.model.totals[account.id][unit]
                if balance.total is not None:
                    assert balance.free is not None
                    assert balance.spent + balance.held + balance.free == balance.total
            assert account.reservations == sum(self.model.holds(one) for one in self.model.on(account.id))

    @invariant()
    def children_never_have_more_than_their_parent(self) -> None:
        stand = {account.id: account for account in self.ledger.accounts()}
        for parent in stand.values():
            below = [child for child in stand.values() if child.parent == parent.id]
            assert sum(child.tokens.held for child in below) <= parent.tokens.held
            assert sum(child.tokens.spent for child in below) <= parent.tokens.spent

    @invariant()
    def nothing_is_held_beyond_a_limit(self) -> None:
        """Only what was used beyond its reservation, a fact, may take an account below nothing."""
        if not self.model.used_beyond:
            frees = [each.free for account in self.ledger.accounts() for each in (account.tokens, account.cost_nusd)]
            assert all(free is None or free >= 0 for free in frees)

    @invariant()
    def the_books_agree_with_what_is_behind_them(self) -> None:
        assert [finding for finding in self.ledger.audit() if finding.kind == "wrong"] == []


def machine(where: Callable[[], str]) -> type[LedgerMachine]:
    class Machine(LedgerMachine):
        new_address = staticmethod(where)

    return Machine


def check(where: Callable[[], str], examples: int, **more: Any) -> None:
    how = settings(
        max_examples=examples,
        stateful_step_count=30,
        suppress_health_check=list(HealthCheck),
        deadline=None,
        derandomize=True,
        **more,
    )
    run_state_machine_as_test(machine(where), settings=how)


@pytest.fixture
def new_file(tmp_path: Path) -> Callable[[], str]:
    return lambda: str(Path(tempfile.mkdtemp(dir=tmp_path)) / "ledger.db")


def test_a_ledger_in_sqlite_keeps_the_laws(new_file: Callable[[], str]) -> None:
    check(new_file, SOME)


@pytest.mark.needs_postgres
def test_a_ledger_in_postgresql_keeps_the_laws(new_database: Callable[[], str]) -> None:
    check(new_database, 10)


GUARDS = {
    "tokens": "closed_us IS NOT NULL OR cost_total - cost_spent - cost_held < ? + 0 * ?",
    "money": "closed_us IS NOT NULL OR tokens_total - tokens_spent - tokens_held < ? + 0 * ?",
    "closed accounts": ("tokens_total - tokens_spent - tokens_held < ? OR cost_total - cost_spent - cost_held < ?"),
    "everything": "? + ? < 0",
}
"""The guard of the books with one part taken out."""


@pytest.mark.parametrize("guard", GUARDS.values(), ids=GUARDS)
def test_the_laws_fail_without_the_guard_of_the_books(
    guard: str, new_file: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bookings, "ENOUGH_FREE", guard)
    bookings._hold_statement.cache_clear()
    try:
        check_fails(new_file)
    finally:
        bookings._hold_statement.cache_clear()


@pytest.mark.parametrize("part", ["reclaim", "book"])
def test_the_laws_fail_without_a_part_of_a_booking(
    part: str, new_file: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bookings, part, lambda *_, **__: None)
    check_fails(new_file)


def check_fails(new_file: Callable[[], str]) -> None:
    with pytest.raises(AssertionError):
        check(new_file, UNTIL_FOUND, phases=[Phase.generate], report_multiple_bugs=False)
