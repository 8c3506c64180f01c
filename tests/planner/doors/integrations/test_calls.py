"""What the adapters have in common, without any framework: a request is a list of texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion import Budget, Planner, Usage
from apportion.errors import StoreError
from apportion.planner.doors.integrations.calls import ESTIMATED, NOT_CALLABLE, Calls, PlannedCall, usage_of
from apportion.planner.doors.integrations.pieces import Pieces
from apportion.planner.doors.integrations.variants import EFFORTS, Variants, lowered, tool_name
from apportion.planner.ledger import Balance, Ledger
from apportion.planner.live import LiveRun
from apportion.planner.planner import WorkflowPlanner
from apportion.planner.session import Session
from apportion.planner.standing import StandingPlanner
from apportion.planner.watchdog import Watchdog
from apportion.records import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USED = Usage(input_uncached=100, output=10)


def rewrite(request: list[str], pieces: Pieces) -> list[str]:
    return [pieces.text(text, Kind.USER if number == 0 else Kind.TOOL_RESULT) for number, text in enumerate(request)]


@pytest.fixture
def session() -> Iterator[Session]:
    with Planner().session("w") as session:
        yield session


def test_a_call_belongs_to_the_run_whose_prompt_it_continues(session: Session) -> None:
    calls = Calls(session)
    first, _ = calls.begin("a", ["one"], rewrite)
    second, _ = calls.begin("a", ["two"], rewrite)
    twin, _ = calls.begin("a", ["one"], rewrite)  # the same prompt while the first call is under way
    for call in (first, second, twin):
        calls.end(call, USED)
    went_on, _ = calls.begin("a", ["two", "more"], rewrite)
    edited, _ = calls.begin("a", ["three", "more"], rewrite)
    elsewhere, _ = Calls(session).begin("a", ["one"], rewrite)
    assert [call.run_id for call in (first, second, twin, went_on)] == ["a", "a#2", "a#3", "a#2"]
    assert len({first.run_id, second.run_id, twin.run_id, edited.run_id, elsewhere.run_id}) == 5


def test_a_call_is_booked_once_however_often_it_is_reported(session: Session) -> None:
    calls = Calls(session)
    call, _ = calls.begin("a", ["one"], rewrite)
    calls.end(call, USED)
    calls.end(call, USED)
    calls.fail(call)
    assert (session.hand_back.used_tokens, len(calls.done)) == (110, 1)


@pytest.mark.parametrize("late", [False, True])
def test_a_call_that_nobody_reported_is_estimated_unless_reports_may_be_late(session: Session, *, late: bool) -> None:
    calls = Calls(session, reports_late=late)
    first, _ = calls.begin("a", ["one"], rewrite)
    second, _ = calls.begin("a", ["one", "answer"], rewrite)
    calls.end(first, USED)
    assert second.run_id == first.run_id == "a"
    assert (calls.done[0].flags, session.hand_back.used_tokens == 110) == (() if late else (ESTIMATED,), late)


def test_what_is_still_under_way_is_released(session: Session) -> None:
    calls = Calls(session)
    begun = [calls.begin("a", [text], rewrite)[0] for text in ("one", "two")]
    calls.release()
    calls.end(begun[0], USED)
    assert [call.usage for call in calls.done] == [None, None]
    assert session.hand_back.used_tokens == 0


def test_a_request_that_cannot_be_read_is_passed_on_and_booked(session: Session) -> None:
    def fail(*_: object) -> list[str]:
        raise KeyError("content")

    calls, request = Calls(session), ["one"]
    call, sent = calls.begin("a", request, fail)
    calls.end(call, USED)
    assert sent is request
    assert "could not be planned and is passed on as it is: KeyError" in call.flags[0]
    assert session.hand_back.used_tokens == 110


def test_usage_is_split_into_what_was_cached_and_what_was_not() -> None:
    assert usage_of(100, 10, cache_read=60, cache_write=30, reasoning=4) == Usage(
        input_uncached=10, cache_read=60, cache_write_5m=30, output=10, reasoning=4
    )
    assert usage_of(None, None) is usage_of(0, 0) is None


def test_results_of_expand_are_always_sent_whole() -> None:
    pieces = Pieces()
    pieces.text("{}", Kind.TOOL_CALL, "expand", "1")
    pieces.text("found", Kind.TOOL_RESULT, link="1")
    assert [item.pinned for item in pieces.items] == [True, True]


PARTS = st.recursive(
    st.none() | st.text(max_size=5) | st.sampled_from([{"type": "text", "text": "a"}, {"type": "text"}, {"text": "b"}]),
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(st.sampled_from(["type", "text"]), parts, max_size=2),
    max_leaves=8,
)


@settings(max_examples=60)
@given(content=PARTS)
def test_any_content_comes_back_as_the_same_object_if_nothing_changes(content: Any) -> None:
    read = Pieces()
    assert read.content(content, Kind.USER) is content
    texts = iter([item.content for item in read.items])
    assert Pieces(texts).content(content, Kind.USER) is content
    assert next(texts, None) is None


def test_a_budget_without_room_is_a_refusal_with_a_reason() -> None:
    request = ["one word after the other " * 1_000]
    with Planner().session("w", budget=Budget(max_tokens=1_000)) as session:
        calls = Calls(session, optional={"a"})
        call, sent = calls.begin("a", request, rewrite)
    assert call.refused is not None
    assert sent is request
    assert session.hand_back.deferred == ("a",)
    assert calls.done[0] == call


SONNET, HAIKU = "claude-sonnet-4-5", "claude-haiku-4-5"


@pytest.mark.parametrize(("given", "price"), [({HAIKU: "cheap"}, 1e-6), ({}, 3e-6)])
def test_what_is_booked_is_the_price_of_the_model_that_was_called(
    tight: Session, given: dict[str, Any], price: float
) -> None:
    calls = Calls(tight, variants=Variants(models=given))
    call, _ = calls.begin("a", ["one"], rewrite, model=SONNET)
    assert call.step is not None
    assert (call.step.model, call.other) == (HAIKU, given.get(HAIKU))
    assert any(NOT_CALLABLE in flag for flag in call.flags) == (not given)
    calls.end(call, Usage(input_uncached=100, output=0))
    assert tight.hand_back.used_usd == pytest.approx(100 * price)
    assert tight.hand_back.used_tokens == 100


def test_where_the_model_cannot_be_changed_the_call_says_so(tight: Session) -> None:
    calls = Calls(tight, variants=Variants(models={HAIKU: "cheap"}))
    call, _ = calls.begin("a", ["one"], rewrite, model=SONNET, swaps=False)
    assert call.other is None
    assert NOT_CALLABLE in call.flags[-1]


def test_settings_only_ever_become_less_and_none_is_added_but_the_longest_output(tight: Session) -> None:
    call, _ = Calls(tight).begin("a", ["one"], rewrite, model=SONNET)
    most = call.max_output_tokens
    assert most is not None
    given = {"max_tokens": most - 1, "effort": "high", "temperature": 1}
    assert call.settings(given, most="max_tokens", efforts=("effort", "thinking")) == given | {"effort": "medium"}
    assert call.settings({"max_tokens": most + 1}, most="max_tokens", efforts=("effort",)) == {"max_tokens": most}
    assert call.settings(given, most=None, efforts=()) == given
    unplanned = PlannedCall("a")
    assert unplanned.settings(given, most="max_tokens", efforts=("effort",)) == given


def test_a_variant_keeps_the_tools_that_are_named_and_the_way_back(tight: Session) -> None:
    tools = [
        {"name": "search"},
        {"type": "function", "function": {"name": "write"}},
        {"type": "web_search_20250305"},
        {"name": "expand"},
    ]
    kept = {"simplified": ["write", "web_search_20250305"]}
    call, _ = Calls(tight, variants=Variants(tools=kept)).begin("a", ["one"], rewrite, model=SONNET)
    assert call.tools(tools) == tools[1:]
    assert call.tools(tools, ours=True) == tools[1:3]
    assert PlannedCall("a").tools(tools) == tools
    assert [tool_name(tool) for tool in tools] == ["search", "write", "web_search_20250305", "expand"]


@given(st.sampled_from(EFFORTS), st.floats(1e-6, 1), st.floats(1e-6, 1))
def test_a_smaller_share_is_never_more_effort(effort: str, one: float, other: float) -> None:
    less, more = (EFFORTS.index(lowered(effort, share)) for share in sorted((one, other)))
    assert less <= more <= EFFORTS.index(effort)
    assert lowered(effort, 1.0) == effort


@pytest.mark.parametrize("effort", [None, True, "none", "minimal", "as much as you like", {"effort": "high"}])
def test_what_is_no_known_level_of_effort_stays_as_it_is(effort: Any) -> None:
    assert lowered(effort, 0.1) is effort


def used_up(session: Session) -> None:
    session.spend(Usage(input_uncached=9_990), agent="before")


def broken(*_: object, **__: object) -> Any:
    raise RuntimeError("no luck")


FAILING = [
    (WorkflowPlanner, "before"),
    (StandingPlanner, "forget"),
    (StandingPlanner, "expected_call"),
    (LiveRun, "enter"),
    (LiveRun, "carry_out"),
    (Watchdog, "refusal"),
    (Session, "before"),
    (Pieces, "text"),
    (Calls, "_run"),
]


@pytest.mark.parametrize(("owner", "name"), FAILING, ids=[name for _, name in FAILING])
def test_whatever_fails_a_budget_that_is_used_up_lets_nothing_pass(
    owner: type, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    request = ["one word after the other " * 100]
    with (
        Ledger(tmp_path / "ledger.db") as ledger,
        Planner(ledger=ledger).session("w", budget=Budget(max_tokens=10_000)) as session,
    ):
        calls = Calls(session)
        monkeypatch.setattr(owner, name, broken)
        if name == "forget":
            monkeypatch.setattr(WorkflowPlanner, "before", broken)
        call, sent = calls.begin("a", request, rewrite)  # there is budget: the original goes through, and is booked
        assert call.refused is None
        assert sent is request
        assert any("RuntimeError: no luck" in flag for flag in call.flags)
        assert ledger.account("w").tokens.held > 0
        calls.end(call, Usage(input_uncached=9_000, output=900))
        assert ledger.account("w").tokens == Balance(10_000, 9_900, 0)
        again, _ = calls.begin("a", request, rewrite)  # there is none
        assert again.refused is not None
        assert "budget used up" in " ".join(again.refused.reasons)
        assert ledger.account("w").tokens == Balance(10_000, 9_900, 0)


def test_a_plan_that_cannot_be_written_back_holds_what_the_original_takes(tmp_path: Path) -> None:
    def once(request: list[str], pieces: Pieces) -> list[str]:
        done.append(1)
        if len(done) % 2 == 0:
            raise ValueError("no luck")
        return rewrite(request, pieces)

    done: list[int] = []
    request = ["look", "line of a file\n" * 400]
    with (
        Ledger(tmp_path / "ledger.db") as ledger,
        Planner(ledger=ledger).session("w", budget=Budget(max_tokens=10_000)) as session,
    ):
        call, sent = Calls(session).begin("a", request, once)
        assert len(done) == 2  # it was read, and could not be written
        assert sent is request
        assert call.texts == tuple(request)
        assert len(session.pending) == 1
        assert ledger.account("w").tokens.held == session.balance[0].held > 1_600


@pytest.mark.parametrize(("policy", "passes"), [("closed", False), ("open", True)])
def test_only_where_the_ledger_itself_fails_its_policy_decides(
    policy: Any,
    *,
    passes: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    with (
        Ledger(tmp_path / "ledger.db", on_store_failure=policy) as ledger,
        Planner(ledger=ledger).session("w", budget=Budget(max_tokens=10_000)) as session,
    ):
        monkeypatch.setattr(Ledger, "reserve", broken)
        calls = Calls(session)
        if passes:
            assert calls.begin("a", ["one"], rewrite)[0].refused is None
        else:
            with pytest.raises(StoreError, match="the budget cannot be checked: RuntimeError"):
                calls.begin("a", ["one"], rewrite)


def test_a_policy_that_fails_lets_nothing_pass() -> None:
    class Broken:
        def apply(self, *_: object) -> Any:
            raise RuntimeError("no luck")

        conclude = apply

    with Planner().session("w", budget=Budget(max_tokens=10_000), policies=[Broken()]) as session:  # type: ignore[list-item]
        used_up(session)
        call, _ = Calls(session).begin("a", ["one word after the other " * 100], rewrite)
        assert call.refused is not None
