"""The laws of a session and its ledger, against a model of them that fits on a page.

The model knows nothing of plans: whatever the planner decides, what is spent, held and free must add up, in the session
and in the ledger, and nothing is held that is not free. With a guard taken out, the same machine must fail.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from apportion.errors import LedgerError
from apportion.planner.holdings import Holdings
from apportion.planner.ledger import Ledger, bookings
from apportion.planner.ledger.ledger import Ledger as LedgerClass
from apportion.planner.ledger.records import LEASE_S
from apportion.planner.live import ContextItem
from apportion.planner.session import Planner
from apportion.planner.steps import Decision, Step
from apportion.planner.watchdog import WatchdogLimits
from apportion.records import Budget, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

TEAM, BUDGET = 90_000, 60_000
AGENTS = st.sampled_from(["a", "b", "c", "d"])
QUIET = WatchdogLimits(depth=None, same_agent=None, same_results=None, empty_outputs=None, calls_per_minute=None)


class Oracle:
    """What a session with a budget is, without any plan."""

    def __init__(self) -> None:
        self.now, self.total, self.team, self.spent = 0.0, BUDGET, TEAM, 0
        self.open: dict[int, tuple[int, float]] = {}
        self.settled: dict[int, int | None] = {}
        self.beyond = False

    def held(self) -> int:
        return sum(tokens for tokens, ends in self.open.values() if ends > self.now)

    def run(self, number: int, tokens: int) -> None:
        assert tokens <= self.total - self.spent - self.held()
        self.open[number] = (tokens, self.now + LEASE_S)

    def settle(self, number: int, used: int | None) -> None:
        held, ends = self.open.pop(number)
        self.spent += used or 0
        self.settled[number] = used
        self.beyond |= used is not None and (used > held or ends <= self.now)


class SessionMachine(RuleBasedStateMachine):
    """Everything that may happen to a session, in any order, each step compared with the model."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Oracle()
        self.folder = tempfile.TemporaryDirectory()
        clock = lambda: 1e6 + self.model.now  # noqa: E731
        self.ledger = Ledger(Path(self.folder.name) / "ledger.db", clock=clock)
        self.ledger.open_account("team", tokens=TEAM)
        self.planner = Planner(ledger=self.ledger, timer=lambda: self.model.now, watchdog=QUIET, ahead=False)
        self.session = self.planner.session("w", budget=Budget(max_tokens=BUDGET), parent="team")
        self.steps: dict[int, Step] = {}
        self.keys = 0

    def teardown(self) -> None:
        self.session.close()
        self.ledger.close()
        self.folder.cleanup()

    def took(self, step: Step) -> None:
        if step.runs:
            assert step.reservation is not None
            self.model.run(step.number, step.reservation.tokens)
            self.steps[step.number] = step
        else:
            assert step.reasons
            assert step.items == ()

    @rule(agent=AGENTS, words=st.integers(1, 9_000), mandatory=st.booleans())
    def before(self, agent: str, words: int, *, mandatory: bool) -> None:
        self.keys += 1
        items = [ContextItem("word " * words)]
        step = self.session.before(agent, items, mandatory=mandatory, key=str(self.keys))
        self.took(step)
        if not step.runs:
            assert step.decision is (Decision.ABORT if mandatory else Decision.DEFER)
        assert self.session.before(agent, items, mandatory=mandatory, key=str(self.keys)) == step

    @precondition(lambda self: self.model.open)
    @rule(data=st.data(), used=st.none() | st.integers(0, 30_000), again=st.booleans())
    def after(self, data: Any, used: int | None, *, again: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.model.open)))
        usage = None if used is None else Usage(input_uncached=used, output=0)
        for _ in range(1 + again):
            self.session.after(self.steps[number], usage)
        self.model.settle(number, used)

    @precondition(lambda self: self.model.settled)
    @rule(data=st.data())
    def after_with_other_amounts(self, data: Any) -> None:
        number = data.draw(st.sampled_from(sorted(self.model.settled)))
        with pytest.raises(LedgerError, match="settled already"):
            self.session.after(
                self.steps[number], Usage(input_uncached=(self.model.settled[number] or 0) + 1, output=0)
            )

    @rule()
    def ready(self) -> None:
        waiting = set(self.session.hand_back.deferred)
        for step in self.session.ready():
            assert step.run_id in waiting
            self.took(step)

    @rule(used=st.integers(0, 3_000), times=st.integers(1, 2))
    def spend(self, used: int, times: int) -> None:
        self.keys += 1
        for _ in range(times):
            self.session.spend(Usage(input_uncached=used, output=0), agent="a", key=f"spend {self.keys}")
        self.model.spent += used
        self.model.beyond |= used > 0

    @rule(tokens=st.integers(1, 20_000), times=st.integers(1, 2))
    def top_up(self, tokens: int, times: int) -> None:
        self.keys += 1
        for _ in range(times):
            self.session.top_up(tokens=tokens, key=f"more {self.keys}")
        self.model.total += tokens

    @rule(agent=AGENTS)
    def finished(self, agent: str) -> None:
        self.session.finished(agent)

    @rule(seconds=st.sampled_from([1, 100, int(LEASE_S), 3 * int(LEASE_S)]))
    def let_time_pass(self, seconds: int) -> None:
        self.model.now += seconds

    @rule()
    def save_and_resume(self) -> None:
        if any(ends <= self.model.now for _, ends in self.model.open.values()):
            return  # what has run out holds nothing, and is saved as that
        saved = self.session.checkpoint()
        self.session = self.planner.resume(saved)
        self.steps |= {step.number: step for step in self.session.pending}
        self.model.open = {number: (held, self.model.now + LEASE_S) for number, (held, _) in self.model.open.items()}
        self.model.settled.clear()
        for step in self.session.pending:
            if step.reservation is not None:
                self.ledger.renew(step.reservation)

    @invariant()
    def the_session_stands_as_in_the_model(self) -> None:
        tokens = self.session.balance[0]
        assert (tokens.total, tokens.spent, tokens.held) == (self.model.total, self.model.spent, self.model.held())
        assert tokens.free is not None
        assert tokens.spent + tokens.held + tokens.free == tokens.total
        assert tokens.free >= 0 or self.model.beyond

    @invariant()
    def the_ledger_stands_as_the_session(self) -> None:
        account = self.ledger.account("w").tokens
        assert (account.total, account.spent, account.held) == (
            self.model.total,
            self.model.spent,
            self.model.held(),
        )
        team = self.ledger.account("team").tokens
        assert team.free is not None
        assert team.free >= 0 or self.model.beyond

    @invariant()
    def what_is_told_adds_up(self) -> None:
        told = self.session.hand_back
        assert told.used_tokens == self.model.spent
        assert len(told.pending) == len(self.model.open)
        assert not set(told.deferred) & set(told.aborted) or told.deferred


def check(examples: int, **more: Any) -> None:
    how = settings(
        max_examples=examples,
        stateful_step_count=20,
        suppress_health_check=list(HealthCheck),
        deadline=None,
        derandomize=True,
        **more,
    )
    run_state_machine_as_test(SessionMachine, settings=how)


def test_a_session_and_its_ledger_keep_the_laws() -> None:
    check(8)


def admit_all(patch: pytest.MonkeyPatch) -> None:
    """Take out the guards of the session and of the ledger: either alone still refuses."""
    patch.setattr(Holdings, "free", lambda _self, _unit: 10**9)
    patch.setattr(bookings, "ENOUGH_FREE", "? + ? < 0")
    bookings._hold_statement.cache_clear()


GUARDS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "what is not free is not held": admit_all,
    "leases end": lambda patch: patch.setattr(Holdings, "_take_back_expired", lambda _self: None),
    "what failed comes back": lambda patch: patch.setattr(Holdings, "release", lambda _self, _number: None),
    "uses are booked in the ledger": lambda patch: patch.setattr(
        LedgerClass, "settle", lambda _self, reservation, **_: reservation
    ),
}
"""Guards, each taken out."""


@pytest.mark.parametrize("guard", GUARDS.values(), ids=GUARDS)
def test_the_laws_fail_without_a_guard(
    guard: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    guard(monkeypatch)
    try:
        with pytest.raises(AssertionError):
            check(40, phases=[Phase.generate], report_multiple_bugs=False)
    finally:
        monkeypatch.undo()
        bookings._hold_statement.cache_clear()
