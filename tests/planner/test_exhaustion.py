"""What happens where the budget does not hold the next call, in sessions with a real ledger and without one."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from apportion.errors import BudgetExhaustedError, InputError, LedgerError
from apportion.planner.exhaustion import HAND_BACK_TOKENS, MOST_PASSED, Queue, reserve_tokens
from apportion.planner.governor import MIN_OUTPUT_TOKENS
from apportion.planner.ledger import Ledger
from apportion.planner.ledger.records import LEASE_S
from apportion.planner.live import ContextItem
from apportion.planner.policies import Abort, Defer, Simplify
from apportion.planner.problem import Model
from apportion.planner.session import Planner
from apportion.planner.steps import Decision, HandBack, Request
from apportion.planner.watchdog import WatchdogLimits
from apportion.prices import lookup
from apportion.records import Budget, Usage

if TYPE_CHECKING:
    from pathlib import Path

MODEL = "claude-sonnet-4-5"
TASK = [ContextItem("Write the release notes. " * 80)]
"""Some 400 tokens."""


class Timer:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def used(output: int, prompt: int = 500) -> Usage:
    return Usage(input_uncached=prompt, output=output)


def full_session(budget: int = 6_000, **more: Any) -> Any:
    """A session of which one call has used all but a few hundred tokens."""
    session = Planner(ahead=False, **more).session("w", budget=Budget(max_tokens=budget))
    step = session.before("writer", TASK, model=MODEL)
    session.after(step, used(budget - 900))
    session.finished("writer")
    return session


def test_what_was_deferred_is_offered_again_after_a_top_up_in_order_of_priority() -> None:
    session = full_session()
    for agent, priority in (("low", 0), ("high", 5), ("low too", 0)):
        assert session.before(agent, TASK, model=MODEL, mandatory=False, priority=priority).decision is Decision.DEFER
    assert session.ready() == ()
    assert session.hand_back.deferred == ("high", "low", "low too")
    session.top_up(tokens=20_000)
    assert [step.agent for step in session.ready()] == ["high", "low", "low too"]
    assert session.hand_back.deferred == ()


def test_what_a_call_did_not_use_lets_the_next_one_run() -> None:
    with Planner(ahead=False).session("w", budget=Budget(max_tokens=8_000)) as session:
        first = session.before("first", TASK, model=MODEL)
        waiting = session.before("second", [ContextItem("word " * 4_000)], model=MODEL, mandatory=False)
        assert waiting.decision is Decision.DEFER
        assert session.ready() == ()
        session.after(first, used(100))
        (step,) = session.ready()
        assert (step.agent, step.runs) == ("second", True)


def test_a_call_that_failed_and_a_lease_that_ended_free_what_they_held() -> None:
    timer = Timer()
    big = [ContextItem("word " * 4_000)]
    for free in ("failed", "lease"):
        with Planner(ahead=False, timer=timer).session("w", budget=Budget(max_tokens=8_000)) as session:
            first = session.before("first", TASK, model=MODEL)
            assert session.before("second", big, model=MODEL, mandatory=False).decision is Decision.DEFER
            if free == "failed":
                session.after(first, None)
            else:
                timer.now += LEASE_S + 1
            assert [step.agent for step in session.ready()] == ["second"]
            if free == "lease":
                session.after(first, used(100))  # late, and booked in full all the same
                assert session.balance[0].spent == 600


def test_waiting_ends_when_another_thread_frees_budget() -> None:
    with Planner().session("w", budget=Budget(max_tokens=8_000)) as session:
        first = session.before("first", TASK, model=MODEL)
        session.before("second", [ContextItem("word " * 4_000)], model=MODEL, mandatory=False)
        assert session.wait(0.01) == ()
        freeing = threading.Timer(0.05, lambda: session.after(first, used(100)))
        freeing.start()
        assert [step.agent for step in session.wait(60)] == ["second"]
        freeing.join()
        assert session.wait() == ()  # nobody waits


def test_budget_that_comes_free_at_the_parent_is_noticed(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        ledger.open_account("team", tokens=6_000)
        held = ledger.reserve("team", tokens=5_900)
        assert held.granted
        with Planner(ledger=ledger).session("w", parent="team") as session:
            step = session.before("first", TASK, model=MODEL, mandatory=False)
            assert step.decision is Decision.DEFER
            assert "team" in step.reasons[0]
            ledger.release(held)
            assert [step.agent for step in session.wait(60)] == ["first"]


def test_a_large_one_is_overtaken_by_small_ones_only_so_often() -> None:
    queue = Queue()
    request = Request("large", (), "large")
    queue.put(request, 1, 10_000)
    for number in range(MOST_PASSED):
        queue.put(Request("small", (), f"small {number}", priority=9), number + 2, 10)
        assert queue.run_ids[0] == f"small {number}"
        queue.let_through(f"small {number}", ["large"])
    queue.put(Request("small", (), "late", priority=9), 99, 10)
    assert queue.run_ids == ("large", "late")


def test_nobody_overtakes_the_one_that_must_be_next() -> None:
    session = full_session(20_000)
    session.before("large", [ContextItem("word " * 30_000)], model=MODEL, mandatory=False)
    session.before("small", TASK * 2, model=MODEL, mandatory=False)
    session.top_up(tokens=4_000)
    for waiting in session._queue:
        waiting.passed = MOST_PASSED * (waiting.request.agent == "large")
    assert session.ready() == ()
    session._queue.drop("large")
    assert [step.agent for step in session.ready()] == ["small"]


def test_a_call_that_does_not_fit_in_full_runs_as_the_variant_that_the_plan_chose() -> None:
    cheap = Model.of(lookup("claude-haiku-4-5") or pytest.fail("the table has it"))
    policies = [Simplify(model=cheap, effort_share=0.5), Defer()]
    planner = Planner(ahead=False)
    with planner.session("w", budget=Budget(max_usd=0.02), policies=policies) as session:
        step = session.before("writer", TASK, model=MODEL)
        assert (step.variant, step.model) == ("full", MODEL)
        session.after(step, Usage(input_uncached=500, output=1_100))
        step = session.before("writer", [*TASK, ContextItem("more")], model=MODEL)
        assert (step.variant, step.model, step.runs) == ("simplified", "claude-haiku-4-5", True)
        assert 0.4 < step.effort_share < 0.6
        assert step.max_output_tokens is not None
        assert step.max_output_tokens >= MIN_OUTPUT_TOKENS
        assert "simplified" in step.degraded[0]
        spent = session.balance[1].spent
        session.after(step, Usage(input_uncached=500, output=100))
        assert 0 < session.balance[1].spent - spent < 1_100_000  # at the prices of the cheap model
        assert session.before("none", [ContextItem("word " * 9_000)], model=MODEL).decision is Decision.DEFER


def test_aborting_is_an_error_that_says_what_is_done_and_left() -> None:
    session = full_session()
    session.before("later", TASK, model=MODEL, mandatory=False)
    with pytest.raises(BudgetExhaustedError, match="budget used up") as caught:
        session.before("reviewer", TASK, model=MODEL, policies=[Abort()])
    done = caught.value.hand_back
    assert isinstance(done, HandBack)
    assert (done.steps, done.used_tokens, done.finished) == (1, 5_600, ("writer",))
    assert (done.deferred, done.aborted, done.pending) == (("later",), ("reviewer",), ())
    assert caught.value.hint


def test_a_run_that_has_begun_gets_one_last_call_and_no_second_one() -> None:
    with Planner(ahead=False).session("w", budget=Budget(max_tokens=20_000)) as session:
        step = session.before("writer", TASK, model=MODEL)
        session.after(step, used(18_000))
        last = session.before("writer", TASK, model=MODEL)
        assert last.runs
        assert last.final
        assert "this is the last call" in (last.notice or "")
        assert last.loading_budget_tokens == 0
        session.after(last, used(10, prompt=100))
        again = session.before("writer", TASK, model=MODEL)
        assert again.decision is Decision.ABORT
        session.top_up(tokens=50_000)
        assert not session.before("writer", TASK, model=MODEL).final


def test_what_is_kept_for_handing_back_never_starves_the_work() -> None:
    assert reserve_tokens(3, 1_000_000, 0.05) == 3 * HAND_BACK_TOKENS
    assert reserve_tokens(100, 1_000_000, 0.05) == 50_000
    assert reserve_tokens(3, None, 0.05) == 0
    assert reserve_tokens(3, 10_000, 0.0) == 0


def test_an_agent_is_told_in_time_and_not_at_every_call() -> None:
    notices = []
    with Planner(ahead=False).session("w", budget=Budget(max_tokens=60_000)) as session:
        for _ in range(6):
            step = session.before("writer", [ContextItem("word " * 6_000)], model=MODEL)
            if not step.runs:
                break
            notices.append(step.notice)
            session.after(step, used(500, prompt=8_500))
    assert notices[0] is None
    told = [notice for notice in notices if notice]
    assert told
    assert len(told) == len(set(told))
    assert "tokens are left after this call" in told[0]


def test_the_room_for_files_shrinks_with_the_budget() -> None:
    with Planner(ahead=False).session("w", budget=Budget(max_tokens=400_000)) as session:
        step = session.before("writer", TASK, model=MODEL)
        assert step.loading_budget_tokens is not None
        session.after(step, used(150_000))
        later = session.before("writer", TASK, model=MODEL)
        assert later.loading_budget_tokens is not None
        assert 0 <= later.loading_budget_tokens < step.loading_budget_tokens
    with Planner(ahead=False).session("w") as free:
        assert free.before("writer", TASK, model=MODEL).loading_budget_tokens is None


def test_parallel_calls_never_hold_more_than_there_is() -> None:
    with Planner(ahead=False).session("w", budget=Budget(max_tokens=30_000)) as session:
        steps = [session.before(f"agent {number}", TASK, model=MODEL, mandatory=False) for number in range(60)]
        tokens = session.balance[0]
        assert tokens.free is not None
        assert tokens.free >= 0
        assert tokens.spent + tokens.held + tokens.free == tokens.total == 30_000
        running = [step for step in steps if step.runs]
        assert 1 < len(running) < 60
        for step in running:
            assert step.max_output_tokens is not None
            session.after(step, used(step.max_output_tokens, prompt=500))
        assert session.balance[0].held == 0


def test_a_top_up_is_made_once_per_key_here_and_in_the_ledger(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        session = Planner(ledger=ledger).session("w", budget=Budget(max_tokens=6_000))
        for _ in range(2):
            session.top_up(tokens=1_000, key="more")
        assert session.balance[0].total == ledger.account("w").tokens.total == 7_000
        with pytest.raises(InputError):
            session.top_up()
        with pytest.raises(InputError):
            session.top_up(tokens=-1)
        with pytest.raises(LedgerError):
            session.top_up(usd=1.0)  # it has no limit in dollars
        assert session.balance[0].total == 7_000


@pytest.mark.parametrize("pending", ["used", "released", "expire"])
def test_closing_says_what_becomes_of_calls_under_way(pending: Any, tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        session = Planner(ledger=ledger).session("w", budget=Budget(max_tokens=50_000))
        session.before("writer", TASK, model=MODEL)
        held = ledger.account("w").tokens.held
        assert held > 0
        session.close(pending)
        session.close(pending)
        stands = ledger.account("w").tokens
        expected = {"used": (held, 0), "released": (0, 0), "expire": (0, held)}[pending]
        assert (stands.spent, stands.held) == expected


@pytest.mark.parametrize("model", ["a-model-of-ours", None])
def test_a_call_that_dollars_cannot_hold_says_so_in_its_step_and_in_telemetry(model: str | None) -> None:
    told: list[Any] = []
    planner = Planner(ahead=False, telemetry=SimpleNamespace(record=told.append))
    with planner.session("w", budget=Budget(max_usd=1.0)) as session:
        planned, unplanned = (
            session.before("a", TASK, model=model),
            session.unplanned("b", TASK, reason="x", model=model),
        )
        priced = session.before("c", TASK, model=MODEL)
    for step in (planned, unplanned):
        assert any("dollar limit does not hold this call" in reason for reason in step.degraded)
        assert model is None or model in step.degraded[-1]
        assert ("degraded", step.degraded[-1]) in [(event["kind"], event.get("reason")) for event in told]
    assert not priced.degraded
    with planner.session("w", budget=Budget(max_tokens=50_000)) as session:
        assert not session.before("a", TASK, model=model).degraded


def test_a_run_that_the_watchdog_refuses_waits_no_more_and_is_told_of_once() -> None:
    told: list[Any] = []
    planner = Planner(
        ahead=False, watchdog=WatchdogLimits(empty_outputs=1), telemetry=SimpleNamespace(record=told.append)
    )
    with planner.session("w", budget=Budget(max_tokens=8_000)) as session:
        first = session.before("first", TASK, model=MODEL)
        big = [ContextItem("word " * 4_000)]
        assert session.before("first", big, model=MODEL, mandatory=False).decision is Decision.DEFER
        session.after(first, used(0), output="")
        (refused,) = session.wait(60)
        assert (refused.run_id, refused.decision) == ("first", Decision.REFUSE)
        assert session.hand_back.deferred == ()
        assert session.wait() == session.ready() == ()
        assert [event["decision"] for event in told if event["kind"] == "step"] == ["run", "defer", "refuse"]


@pytest.mark.parametrize("busy", [False, True])
def test_waiting_without_end_ends_where_nothing_that_is_held_could_help(*, busy: bool) -> None:
    with Planner(ahead=False).session("w", budget=Budget(max_tokens=8_000)) as session:
        if busy:
            session.before("first", TASK, model=MODEL)
        session.before("larger than all", [ContextItem("word " * 9_000)], model=MODEL, mandatory=False)
        waits = threading.Thread(target=session.wait, daemon=True)
        waits.start()
        waits.join(2.0)
        assert not waits.is_alive()
        assert session.hand_back.deferred == ("larger than all",)
        session.top_up(tokens=20_000)
        assert [step.run_id for step in session.wait()] == ["larger than all"]
