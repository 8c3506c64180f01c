"""What a session does when something breaks: a valid answer that says so, or an error of ours, and no half booking."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from apportion.compression.sqlite_store import SqliteHandleStore
from apportion.compression.store import Handle, HandleStore
from apportion.errors import InputError, LedgerError, StoreError
from apportion.planner.budgets import solver
from apportion.planner.forms import Forms
from apportion.planner.ledger import Ledger
from apportion.planner.live import ContextItem
from apportion.planner.planner import PlanOptions, WorkflowPlanner
from apportion.planner.session import PLANNER_FAILED, Planner
from apportion.planner.standing import StandingPlanner
from apportion.planner.steps import Decision, Step
from apportion.records import Budget, Kind, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MODEL = "claude-sonnet-4-5"
TASK = [ContextItem("look"), ContextItem("line of a file\n" * 200, Kind.TOOL_RESULT, "Read", "1")]
USED = Usage(input_uncached=900, output=50)


def random_text(seed: int) -> str:
    """A text that no lossless form makes shorter."""
    return "\n".join(random.Random(seed * 1_000 + line).randbytes(40).hex() for line in range(60))  # noqa: S311


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be another process that has been writing for a while."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@pytest.mark.parametrize("where", ["before", "plan_births", "_plan_budget"])
def test_a_planner_that_fails_sends_everything_whole_and_the_budget_still_holds(
    where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr(WorkflowPlanner, where, broken)
    with (
        Ledger(tmp_path / "ledger.db") as ledger,
        Planner(ledger=ledger).session("w", budget=Budget(max_tokens=4_000)) as session,
    ):
        step = session.before("main", TASK, model=MODEL)
        assert step.contents == tuple(item.content for item in TASK)
        assert step.degraded == (f"{PLANNER_FAILED}: RuntimeError: no luck",)
        assert 0 < ledger.account("w").tokens.held <= 4_000
        session.after(step, Usage(input_uncached=3_700, output=50))
        stopped = session.before("main", TASK, model=MODEL)
        assert stopped.decision is Decision.ABORT
        assert ledger.account("w").tokens.spent == session.balance[0].spent == 3_750


def test_a_step_that_nobody_knows_is_refused_with_a_way_out() -> None:
    with Planner().session("w") as session, Planner().session("other") as other:
        foreign = other.before("main", TASK, model=MODEL)
        for step in (foreign, Step("nobody", "nobody", 99, Decision.RUN)):
            with pytest.raises(InputError, match="no open step") as caught:
                session.after(step, USED)
            assert "spend()" in (caught.value.hint or "")
        session.spend(USED, agent="nobody", model=MODEL)
        assert session.hand_back.used_tokens == 950


def test_a_step_that_was_not_to_be_run_cannot_be_settled() -> None:
    with Planner().session("w", budget=Budget(max_tokens=300)) as session:
        step = session.before("main", TASK, model=MODEL)
        with pytest.raises(InputError, match=r"was not to be run \(abort\)"):
            session.after(step, USED)


def test_settling_twice_is_once_and_settling_otherwise_is_an_error(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger, Planner(ledger=ledger).session("w") as session:
        step = session.before("main", TASK, model=MODEL)
        for _ in range(3):
            session.after(step, USED)
        with pytest.raises(LedgerError, match="settled already"):
            session.after(step, Usage(input_uncached=901, output=50))
        with pytest.raises(LedgerError, match="settled already"):
            session.after(step, None)
        assert ledger.account("w").tokens.spent == session.hand_back.used_tokens == 950


def test_negative_usage_is_refused_and_changes_nothing() -> None:
    with Planner().session("w", budget=Budget(max_tokens=50_000)) as session:
        step = session.before("main", TASK, model=MODEL)
        bad = Usage.model_construct(input_uncached=-5, output=5)
        with pytest.raises(InputError, match="cannot be negative"):
            session.after(step, bad)
        with pytest.raises(InputError, match="cannot be negative"):
            session.spend(bad, agent="main")
        assert session.balance[0].spent == 0
        session.after(step, USED)
        assert session.balance[0].spent == 950


@pytest.mark.parametrize("jump", [timedelta(days=1), timedelta(days=-1), timedelta(days=-36_500)])
def test_clocks_that_jump_change_no_booking(jump: timedelta, tmp_path: Path) -> None:
    now = [datetime(2026, 6, 1, tzinfo=UTC)]
    with (
        Ledger(tmp_path / "ledger.db", clock=lambda: float(now[0].timestamp())) as ledger,
        Planner(ledger=ledger, clock=lambda: now[0]).session("w", budget=Budget(max_tokens=90_000)) as session,
    ):
        for _ in range(3):
            step = session.before("main", TASK, model=MODEL)
            assert step.runs
            assert not step.degraded
            now[0] += jump
            session.after(step, USED)
        stands = ledger.account("w").tokens
        assert (stands.spent, stands.held) == (2_850, 0)
        assert session.balance[0].spent == 2_850
        assert not [finding for finding in ledger.audit() if finding.kind == "wrong"]


@pytest.mark.parametrize("fault", ["locked", "full", "read-only"])
def test_a_store_that_fails_stops_calls_and_loses_no_use(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Ledger(path, wait_s=0.02) as ledger, Planner(ledger=ledger).session("w") as session:
        step = session.before("main", TASK, model=MODEL)
        with breaking(fault, path, ledger):
            for _ in range(2):
                with pytest.raises(StoreError):
                    session.before("other", TASK, model=MODEL)
            if fault != "full":  # what is there already can be changed on a full disk
                with pytest.raises(StoreError):
                    session.after(step, USED)
                assert session.hand_back.used_tokens == 0
        session.after(step, USED)  # said again, as the error asks for
        assert ledger.account("w").tokens.spent == session.hand_back.used_tokens == 950
        assert session.before("other", TASK, model=MODEL).runs


@contextmanager
def breaking(fault: str, path: Path, ledger: Ledger) -> Iterator[None]:
    connection: sqlite3.Connection = ledger._store._database._connection  # type: ignore[attr-defined]
    if fault == "locked":
        with locked(path):
            yield
        return
    if fault == "read-only":
        connection.execute("PRAGMA query_only = ON")
        yield
        connection.execute("PRAGMA query_only = OFF")
        return
    fill(ledger, connection)
    yield
    connection.execute("PRAGMA max_page_count = 1000000")


def fill(ledger: Ledger, connection: sqlite3.Connection) -> None:
    """Let the disk be full: no page more, and no room in those that there are."""
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with suppress(StoreError):
        for _ in range(10_000):
            ledger.reserve("w", tokens=1)


def test_an_open_ledger_lets_calls_pass_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with (
        Ledger(path, wait_s=0.02, on_store_failure="open") as ledger,
        Planner(ledger=ledger).session("w", budget=Budget(max_tokens=90_000)) as session,
    ):
        with locked(path):
            step = session.before("main", TASK, model=MODEL)
            assert step.runs
            assert "not booked in the ledger" in step.degraded[0]
            session.after(step, USED)
        assert session.balance[0].spent == 950
        ledger.flush()
        assert ledger.account("w").tokens.spent == 950


def test_models_that_are_damaged_are_priors_and_said_to_be(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    (folder / "v1").mkdir(parents=True)
    (folder / "current").write_text("v1")
    (folder / "v1" / "demand.skops").write_bytes(b"PK\3\4 nonsense")
    (folder / "v1" / "manifest.json").write_text("{")
    with Planner(PlanOptions(models=folder)).session("w", budget=Budget(max_tokens=90_000)) as session:
        step = session.before("main", TASK, model=MODEL)
    assert step.runs
    assert step.allocated_tokens is not None
    assert step.degraded


def test_a_store_of_originals_that_fails_sends_everything_whole() -> None:
    class Broken:
        def put(self, _data: bytes) -> None:
            raise StoreError("the disk is full")

    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    planner = Planner(store=Broken(), clock=lambda: now[0])  # type: ignore[arg-type]
    history = [ContextItem(random_text(n), Kind.TOOL_RESULT, "Read", str(n)) for n in range(6)]
    with planner.session("w") as session:
        for _ in range(3):
            step = session.before("main", history, model=MODEL, expands=True)
            session.after(step, USED)
        now[0] += timedelta(hours=2)
        step = session.before("main", history, model=MODEL, expands=True)
        assert step.runs
        assert step.contents == tuple(item.content for item in history)
        assert "StoreError: the disk is full" in step.degraded[0]


def test_a_strategy_that_fails_leaves_the_piece_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Forms, "of", broken)
    with Planner().session("w") as session:
        step = session.before("main", TASK, model=MODEL)
    assert step.contents == tuple(item.content for item in TASK)
    assert "ZeroDivisionError" in step.degraded[0]


def test_a_solver_that_gives_nothing_leaves_the_greedy_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = solver.Answer("UNKNOWN", 0, None, "deterministic_time")
    monkeypatch.setattr(solver, "solve_with_cp_sat", lambda *_: nothing)
    with Planner().session("w", budget=Budget(max_tokens=90_000)) as session:
        step = session.before("main", TASK, model=MODEL)
    assert step.runs
    assert step.allocated_tokens is not None
    assert "CP-SAT found no plan" in step.degraded[0]


def test_a_plan_ahead_that_fails_is_planned_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(StandingPlanner, "masks_for", broken)
    planner = Planner()
    results = [ContextItem(random_text(n), Kind.TOOL_RESULT, "Read", str(n)) for n in range(3)]
    with planner.session("w", budget=Budget(max_tokens=200_000)) as session:
        for _ in range(3):
            step = session.before("main", results, model=MODEL, expands=True)
            session.after(step, USED)
            assert planner.ahead is not None
            planner.ahead.wait()
        assert step.runs
        assert not step.degraded
        assert planner.ahead is not None
        assert planner.ahead.failures > 0


def test_telemetry_that_fails_is_not_in_the_way() -> None:
    class Broken:
        def record(self, _event: Mapping[str, object]) -> None:
            raise OSError

    with Planner(telemetry=Broken()).session("w") as session:
        step = session.before("main", TASK, model=MODEL)
        session.after(step, USED)
        assert session.hand_back.steps == 1


def test_every_decision_is_told_with_its_reasons_and_no_content() -> None:
    told: list[dict[str, object]] = []

    class Listener:
        def record(self, event: Mapping[str, object]) -> None:
            told.append(dict(event))

    with Planner(telemetry=Listener(), ahead=False).session("w", budget=Budget(max_tokens=4_000)) as session:
        step = session.before("main", TASK, model=MODEL)
        session.after(step, Usage(input_uncached=900, cache_read=0, output=2_900), output="said")
        session.before("later", TASK, model=MODEL, mandatory=False)
        session.before("never", TASK, model=MODEL)
    kinds = [event["kind"] for event in told]
    assert kinds[0] == kinds[-1] == "session"
    decisions = [event["decision"] for event in told if event["kind"] == "step"]
    assert decisions == ["run", "defer", "abort"]
    assert all(event["reasons"] for event in told if event.get("decision") in {"defer", "abort"})
    (usage,) = [event for event in told if event["kind"] == "usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (900, 2_900)
    assert usage["allocated_tokens"] == step.allocated_tokens
    (action,) = [event for event in told if event["kind"] == "action"]
    assert action["action"] == "structure"
    assert int(str(action["tokens_before"])) > int(str(action["tokens_after"]))
    assert "line of a file" not in repr(told)


@pytest.mark.parametrize("ahead", [False, True])
def test_what_was_sent_is_kept_by_the_end_of_the_session_or_said_to_be_missing(*, ahead: bool) -> None:
    told: list[dict[str, object]] = []

    class Listener:
        def record(self, event: Mapping[str, object]) -> None:
            told.append(dict(event))

    class Full(HandleStore):
        def put(self, content: bytes) -> Handle:
            if full:
                raise StoreError("the disk is full")
            return super().put(content)

    store, full = Full(), False
    planner = Planner(telemetry=Listener(), store=store, ahead=ahead)
    for full in (False, True):
        told.clear()
        with planner.session(f"w{full}") as session:
            assert session.before("main", TASK, model=MODEL).runs
        (action,) = [event for event in told if event["kind"] == "action"]
        reasons = [event["reason"] for event in told if event["kind"] == "degraded"]
        if full:
            assert (action.get("original"), action.get("shown")) == (None, None)
            assert reasons == ["what was sent is not kept: StoreError: the disk is full"]
        else:
            assert store.expand(str(action["original"])).decode() == TASK[1].content
            assert store.expand(str(action["shown"])) != store.expand(str(action["original"]))
            assert not reasons
        assert "line of a file" not in repr(told)


@pytest.mark.parametrize("agent", ["never seen before", "\ud800\x00", "a" * 5_000, "../../etc/passwd"])
def test_an_agent_that_nobody_knows_is_planned_like_any_other(agent: str, tmp_path: Path) -> None:
    with (
        Ledger(tmp_path / "ledger.db") as ledger,
        Planner(ledger=ledger).session("w", budget=Budget(max_tokens=50_000)) as session,
    ):
        step = session.before(agent, TASK, model=f"model of {agent}")
        assert step.runs
        assert (step.allocated_tokens is None) == bool(step.degraded)
        session.after(step, USED)
        assert ledger.account("w").tokens.spent == 950


def test_a_cut_that_is_not_made_because_its_original_cannot_be_kept_is_said(tmp_path: Path) -> None:
    log = "".join(f"12:{n % 60:02} INFO worker-{n % 7} finished job {n} in {n * 3} ms\n" for n in range(90))
    asked = [ContextItem("What of worker-3?"), ContextItem(log, Kind.TOOL_RESULT, "Bash", "1")]
    with SqliteHandleStore(tmp_path / "originals", wait_s=0.0) as store:
        planner = Planner(PlanOptions(select="recoverable_85"), store=store, ahead=False)
        with planner.session("w") as session:
            with locked(store.path):
                step = session.before("main", asked, model=MODEL, expands=True)
            assert not step.offers_expand
            assert "parts may stay that were to be left out: the store" in step.degraded[0]
            assert not session.before("other", asked, model=MODEL).degraded  # it may leave nothing out anyway


def test_a_store_of_originals_that_others_write_to_is_not_waited_for(tmp_path: Path) -> None:
    history = [ContextItem(random_text(n), Kind.TOOL_RESULT, "Read", str(n)) for n in range(6)]
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    with SqliteHandleStore(tmp_path / "originals", wait_s=0.0, timer=lambda: 0.0) as store:
        planner = Planner(PlanOptions(select="recoverable_85"), store=store, clock=lambda: now[0], ahead=False)
        with planner.session("w") as session, locked(store.path):
            reasons: list[str] = []
            for _ in range(8):
                step = session.before("main", history, model=MODEL, expands=True)
                assert step.contents == tuple(item.content for item in history)
                reasons += step.degraded
                session.after(step, USED)
                now[0] += timedelta(hours=2)
            for said in ("database is locked", "could not be written a moment ago"):
                assert [reason for reason in reasons if said in reason]
        assert len(store) == 0


def test_a_solver_without_any_time_leaves_a_plan_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "MAX_WALL_S", 0.0)
    with Planner().session("w", budget=Budget(max_tokens=90_000)) as session:
        step = session.before("main", TASK, model=MODEL)
        assert step.runs
        assert step.allocated_tokens is not None
        assert 0 < step.allocated_tokens <= 90_000


def test_a_session_that_is_switched_off_books_nothing_in_a_ledger(tmp_path: Path) -> None:
    off = PlanOptions(enabled=False)
    with Ledger(tmp_path / "ledger.db") as ledger, Planner(off, ledger=ledger).session("w") as session:
        session.spend(USED, agent="a", key="once")
        session.spend(USED, agent="a", key="once")
        session.top_up(tokens=10)
        assert session.hand_back.used_tokens == 950
        assert session.balance[0].spent == 0
        assert ledger.accounts() == []


def test_a_closed_session_gives_out_no_budget(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        session = Planner(ledger=ledger).session("w", budget=Budget(max_tokens=100_000))
        session.close("used")
        step = session.unplanned("a", TASK, reason="no luck")
        assert (step.decision, session.pending) == (Decision.ABORT, ())
        assert "closed" in step.reasons[0]
        assert ledger.account("w").tokens.held == session.balance[0].held == 0
    unlimited = Planner().session("w")
    unlimited.close()
    assert unlimited.unplanned("a", TASK, reason="no luck").runs


def test_what_is_no_text_is_not_expanded_whole() -> None:
    planner = Planner()
    handle = str(planner.store.put(b"\xff\xfe\x00bin"))
    with planner.session("w") as session:
        with pytest.raises(InputError, match="no text") as caught:
            session.expand(handle)
        assert caught.value.hint is not None
        assert "b0-6" in caught.value.hint
        assert session.expand(handle, "b0-6") == "\ufffd\ufffd\0bin"


@pytest.mark.parametrize(("model", "known"), [("a-model-of-ours", False), (None, False), (MODEL, True)])
def test_what_calls_under_way_cost_is_unknown_where_their_prices_are(model: str | None, *, known: bool) -> None:
    session = Planner().session("w", budget=Budget(max_tokens=10_000))
    session.before("a", TASK, model=model)
    session.close("used")
    assert session.hand_back.used_tokens > 0
    assert (session.hand_back.used_usd is not None) is known
