"""Sessions in live use, with a real ledger and a small orchestrator; only the model is a function."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.compression.pipeline import Lossless, restore
from apportion.errors import InputError, StoreError
from apportion.planner.forms import Forms
from apportion.planner.ledger import Ledger
from apportion.planner.live import ContextItem
from apportion.planner.planner import PlanOptions, WorkflowPlanner
from apportion.planner.session import PLANNER_FAILED, Decision, Planner, Step
from apportion.records import Action, Budget, Kind, Usage

MODEL = "claude-sonnet-4-5"
SCENARIOS = Path(__file__).parents[2] / "fixtures" / "scenarios"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TABLE = json.dumps([{"id": number, "state": "open", "value": number * 7919} for number in range(200)])
LOG = "\n".join(f"record {number}: the measured value is {number * 7919}" for number in range(300))


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


def call_and_result(text: str, link: str) -> list[ContextItem]:
    return [
        ContextItem("{}", Kind.TOOL_CALL, "lookup", link),
        ContextItem(text, Kind.TOOL_RESULT, "lookup", link),
    ]


def usage_of(step: Step, output: int = 50, *, read: int = 0) -> Usage:
    prompt = sum(len(text) for text in step.contents) // 4
    return Usage(input_uncached=max(0, prompt - read), cache_read=read, output=output)


def test_a_table_is_sent_shorter_and_comes_back() -> None:
    with Planner().session("w") as session:
        step = session.before("main", [ContextItem("look"), *call_and_result(TABLE, "1")], model=MODEL)
    assert step.decision is Decision.RUN
    sent = step.items[2]
    assert sent.action is Action.STRUCTURE
    assert len(sent.content) < 0.7 * len(TABLE)
    form = Forms().of(TABLE.encode()).structured
    assert form is not None
    assert form.content == sent.content.encode()
    assert restore(form, [Lossless()]) == TABLE.encode()
    assert step.saved_tokens > 0


def test_what_a_lossless_form_saves_is_noted_and_not_put_at_stake() -> None:
    history = [ContextItem("look"), *call_and_result(TABLE, "1")]
    with Planner().session("w") as session:
        for _ in range(3):
            step = session.before("main", history, model=MODEL)
            session.after(step, usage_of(step), output="next")
            history.append(ContextItem("next", Kind.ASSISTANT))
        plans = session._planner
        assert plans._cost_unplanned > plans._cost > 0
        assert plans._solvency().credit == pytest.approx(0.0, abs=1e-12)


def test_what_was_sent_stays_as_it_was_so_that_the_cache_holds() -> None:
    history = [ContextItem("look"), *call_and_result(TABLE, "1")]
    with Planner().session("w") as session:
        first = session.before("main", history, model=MODEL)
        session.after(first, usage_of(first), output="next")
        history += [ContextItem("next", Kind.ASSISTANT), *call_and_result(LOG, "2")]
        second = session.before("main", history, model=MODEL)
    assert second.contents[: len(first.contents)] == first.contents


def test_the_same_result_again_is_a_reference() -> None:
    with Planner().session("w") as session:
        step = session.before("main", [*call_and_result(LOG, "1"), *call_and_result(LOG, "2")], model=MODEL)
    assert step.items[3].action is Action.REFERENCE
    assert len(step.items[3].content) < 60


def test_a_cold_cache_lets_old_results_go_behind_handles_and_they_come_back() -> None:
    clock = Clock()
    planner = Planner(clock=clock)
    history = [ContextItem("look")]
    words = [f"result {number}\n" + LOG for number in range(8)]
    with planner.session("w") as session:
        for number, text in enumerate(words):
            history += call_and_result(text, str(number))
            step = session.before("main", history, model=MODEL, expands=True)
            session.after(step, usage_of(step, read=2000), output="go on")
            history.append(ContextItem("go on", Kind.ASSISTANT))
        clock.now += timedelta(hours=2)
        step = session.before("main", history, model=MODEL, expands=True)
        masked = [item for item in step.items if item.action is Action.MASK]
        assert masked
        assert step.offers_expand
        assert all(session.expand(str(item.handle)) in words for item in masked if item.handle)
        refused = session.before("main", history, model=MODEL)
        assert refused.contents[: len(step.contents)] == step.contents  # what is behind handles stays there


def test_what_a_marker_names_is_expanded_by_its_range() -> None:
    whole = (SCENARIOS / "chat" / "agents-polygon.txt").read_text(encoding="utf-8")
    history = [ContextItem("look"), *call_and_result(whole, "1")]
    with Planner(PlanOptions(select="recoverable_85")).session("w") as session:
        step = session.before("main", history, model=MODEL, expands=True)
        sent = step.items[2]
        assert sent.action is Action.SELECT
        assert sent.handle is not None
        assert session.expand(str(sent.handle)) == whole
        assert session.expand(str(sent.handle), "2-3") == "".join(whole.splitlines(keepends=True)[1:3])
        assert session.expand(str(sent.handle), "b0-9") == whole[:9]
        plain = session.before("other", history, model=MODEL)
        assert plain.items[2].action is not Action.SELECT


def test_nothing_is_behind_a_handle_for_an_agent_that_cannot_expand() -> None:
    clock = Clock()
    history = [ContextItem("look")]
    with Planner(clock=clock).session("w") as session:
        for number in range(8):
            history += call_and_result(f"result {number}\n" + LOG, str(number))
            step = session.before("main", history, model=MODEL)
            session.after(step, usage_of(step), output="go on")
            clock.now += timedelta(hours=2)
    assert not step.offers_expand


@pytest.mark.parametrize("ahead", [False, True])
def test_nothing_more_goes_behind_a_handle_once_an_agent_cannot_expand(*, ahead: bool) -> None:
    clock = Clock()
    history = [ContextItem("look")]
    planner = Planner(clock=clock, ahead=ahead)
    with planner.session("w") as session:
        for number in range(8):
            lines = (sha256(f"{number} {line}".encode()).hexdigest() for line in range(60))
            history += call_and_result("\n".join(lines), str(number))
            step = session.before("main", history, model=MODEL, expands=number < 4)
            assert not step.offers_expand
            session.after(step, usage_of(step), output="go on")
            if planner.ahead is not None:
                planner.ahead.wait()
            clock.now += timedelta(hours=2) if number >= 3 else timedelta(seconds=1)
        assert session.before("main", history, model=MODEL, expands=True).offers_expand
    planner.close()


def test_a_piece_that_is_pinned_later_is_whole_from_then_on_and_may_go_once_it_no_longer_is() -> None:
    clock = Clock()
    history = [ContextItem("look")]
    for number in range(3):
        lines = (sha256(f"{number} {line}".encode()).hexdigest() for line in range(60))
        history += call_and_result("\n".join(lines), str(number))

    def masked(pinned: set[int]) -> set[int]:
        items = [replace(item, pinned=row in pinned) for row, item in enumerate(history)]
        step = session.before("main", items, model=MODEL, expands=True)
        session.after(step, usage_of(step), output="go on")
        clock.now += timedelta(hours=2)
        return {row for row, sent in enumerate(step.items) if sent.action is Action.MASK}

    with Planner(clock=clock, ahead=False).session("w") as session:
        assert masked(set()) == masked({4}) == set()
        found = [masked({4}) for _ in range(4)][-1]
        assert found
        assert 4 not in found  # it was whole when it was pinned, and stays so
        gone = min(found)
        for _ in range(4):
            assert gone not in masked({4, gone})  # it was behind a handle, and is whole again
        assert {4, gone} <= [masked(set()) for _ in range(4)][-1]


def test_a_result_with_another_link_is_another_piece() -> None:
    with Planner(ahead=False).session("w") as session:
        for link in ("1", "2"):
            step = session.before("main", [ContextItem("look"), *call_and_result(LOG, link)], model=MODEL)
            session.after(step, usage_of(step), output="go on")
            run = session._runs["main"]
            assert [item.link for item in run.items[1:]] == [link, link]


def test_switched_off_every_byte_is_as_it_was() -> None:
    history = [ContextItem("look"), *call_and_result(TABLE, "1"), *call_and_result(TABLE, "2")]
    with Planner(PlanOptions(enabled=False)).session("w", budget=Budget(max_tokens=1)) as session:
        step = session.before("main", history, model=MODEL)
    assert step.runs
    assert step.contents == tuple(item.content for item in history)
    assert step.max_output_tokens is None


def test_an_error_in_the_planner_sends_everything_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr(WorkflowPlanner, "before", broken)
    history = [ContextItem("look"), *call_and_result(TABLE, "1")]
    with Planner().session("w") as session:
        step = session.before("main", history, model=MODEL)
        assert step.runs
        assert step.contents == tuple(item.content for item in history)
        assert step.reasons == (f"{PLANNER_FAILED}: RuntimeError: no luck",)
        session.after(step, usage_of(step))
        assert session.hand_back.steps == 1


@pytest.mark.parametrize(("mandatory", "decision"), [(True, Decision.ABORT), (False, Decision.DEFER)])
def test_a_budget_that_is_used_up_stops_the_next_call(*, mandatory: bool, decision: Decision) -> None:
    with Planner().session("w", budget=Budget(max_tokens=6_000)) as session:
        step = session.before("writer", [ContextItem(LOG[:4000])], model=MODEL)
        assert step.runs
        assert step.allocated_tokens is not None
        session.after(step, Usage(input_uncached=1500, output=4400))
        stopped = session.before("reviewer", [ContextItem(LOG[:4000])], model=MODEL, mandatory=mandatory)
        assert stopped.decision is decision
        assert stopped.reasons
        assert stopped.contents == ()
        done = session.hand_back
    assert (done.used_tokens, done.steps) == (5_900, 1)
    assert (done.aborted, done.deferred) == ((("reviewer",), ()) if mandatory else ((), ("reviewer",)))


def test_parallel_sessions_share_an_account_and_never_spend_more_than_it_holds(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        ledger.open_account("project", tokens=60_000)
        planner = Planner(ledger=ledger)
        outcomes: list[Decision] = []

        def work(number: int) -> None:
            with planner.session(f"w{number}", budget=Budget(max_tokens=20_000), parent="project") as session:
                for turn in range(3):
                    step = session.before(f"agent {turn}", [ContextItem(LOG[:8000])], model=MODEL)
                    outcomes.append(step.decision)
                    if step.runs:
                        session.after(step, Usage(input_uncached=3_000, output=1_000))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        tokens = ledger.account("project").tokens
        assert tokens.held == 0
        assert tokens.spent == 4_000 * outcomes.count(Decision.RUN) <= 60_000
        assert Decision.ABORT in outcomes


def test_a_call_that_failed_gives_back_what_was_held(tmp_path: Path) -> None:
    with (
        Ledger(tmp_path / "ledger.db") as ledger,
        Planner(ledger=ledger).session("w", budget=Budget(max_tokens=50_000)) as session,
    ):
        step = session.before("main", [ContextItem("look")], model=MODEL)
        assert ledger.account("w").tokens.held > 0
        session.after(step, None)
        assert (ledger.account("w").tokens.held, ledger.account("w").tokens.spent) == (0, 0)


def test_bad_input_is_refused_with_a_hint() -> None:
    session = Planner().session("w")
    with pytest.raises(InputError, match="without any piece"):
        session.before("main", [])
    with pytest.raises(StoreError, match="unknown handle"):
        session.expand("h:00000000")
    session.close()
    with pytest.raises(InputError, match="closed"):
        session.before("main", [ContextItem("look")])


def test_the_event_loop_is_not_held_up() -> None:
    async def main() -> list[Step]:
        async with Planner().session("w") as session:
            asked = [session.abefore(f"agent {n}", [ContextItem(LOG)], model=MODEL) for n in range(4)]
            steps = await asyncio.gather(*asked)
            await asyncio.gather(*(session.aafter(step, usage_of(step)) for step in steps))
            assert session.hand_back.steps == 4
            return steps

    assert sorted(step.number for step in asyncio.run(main())) == [1, 2, 3, 4]


ITEMS = st.lists(
    st.builds(
        ContextItem,
        st.sampled_from([TABLE, LOG, "short", "", "\ud800", "\0"]) | st.text(max_size=50),
        st.sampled_from([Kind.USER, Kind.TOOL_RESULT, Kind.ASSISTANT]),
        st.none() | st.just("Read"),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=40)
@given(histories=st.lists(ITEMS, min_size=1, max_size=3), expands=st.booleans())
def test_any_history_is_answered_piece_by_piece_and_only_results_change(
    *, histories: list[list[ContextItem]], expands: bool
) -> None:
    with Planner().session("w") as session:
        for history in histories:
            step = session.before("main", history, model=MODEL, expands=expands)
            assert step.runs
            assert len(step.items) == len(history)
            for item, sent in zip(history, step.items, strict=True):
                if item.kind is not Kind.TOOL_RESULT:
                    assert sent.content == item.content
                if sent.handle is not None:
                    assert session.expand(str(sent.handle)) == item.content
            session.after(step, usage_of(step), output="done")


def test_another_stage_shares_out_what_is_left() -> None:
    allocated: list[int] = []
    with Planner().session("w", budget=Budget(max_tokens=100_000)) as session:
        for turn in range(4):
            step = session.before("main", [ContextItem("look")], model=MODEL)
            assert step.allocated_tokens is not None
            allocated.append(step.allocated_tokens)
            session.after(step, Usage(input_uncached=5_000, output=1_000), output="x")
            if turn == 1:
                session.next_stage()
    first, again, other, last = allocated
    assert first == again
    assert other == last < first
