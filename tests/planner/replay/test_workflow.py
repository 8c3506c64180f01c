from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from apportion.planner.planner import BUDGET_USED_UP, PlanOptions, WorkflowPlanner
from apportion.planner.replay.results import NO_OUTPUT_USAGE, NO_PROMPT_USAGE
from apportion.planner.replay.workflow import replay_workflow
from apportion.records import Budget, Kind, Usage
from apportion.telemetry.events import LogBuilder, WorkflowLog
from apportion.telemetry.importers import read_logs
from apportion.telemetry.reading import SkipLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from apportion.planner.planner import Invocation, InvocationPlan
    from apportion.planner.replay.results import WorkflowResult

    Replays = Callable[[float | None, int | None], list[WorkflowResult]]

SESSIONS = Path(__file__).parents[3] / "fixtures" / "logs" / "sessions"


@pytest.fixture(scope="module")
def codex(sessions: list[WorkflowLog]) -> WorkflowLog:
    assert sessions[-1].source == "codex"
    return sessions[-1]


@pytest.fixture(scope="module")
def replayed(all_replayed: Replays) -> WorkflowResult:
    return all_replayed(None, None)[-1]


def session(*steps: tuple[Kind, str, dict[str, Any]], model: str | None = "claude-opus-4-6") -> WorkflowLog:
    builder = LogBuilder("w", source="test", framework="test")
    for kind, content, fields in steps:
        of_model = {"model": model} if kind.written_by_model else {}
        builder.add(kind, content, agent="main", agent_run="main", **of_model, **fields)
    log = builder.build()
    assert log is not None
    return log


def without_future(log: WorkflowLog, calls: int) -> WorkflowLog:
    """Cut a log so that its last event is the last output of the n-th call."""
    seen: list[tuple[str, int]] = []
    end = 0
    for position, event in enumerate(log.events):
        if event.call is not None and event.kind.written_by_model:
            key = (event.agent_run, event.call)
            if key not in seen:
                if len(seen) == calls:
                    break
                seen.append(key)
            end = position + 1
    return log.model_copy(update={"events": log.events[:end]})


def test_planning_saves_tokens_and_money_on_a_long_session(replayed: WorkflowResult) -> None:
    totals = replayed.totals
    assert totals.visible[1] < totals.visible[0]
    assert totals.bill[1] < totals.bill[0]
    assert totals.facts[0] == totals.facts[2] > totals.facts[1]


def test_switched_off_every_ledger_stays_as_it_was(codex: WorkflowLog) -> None:
    totals = replay_workflow(codex, PlanOptions(enabled=False)).totals
    for pair in (totals.visible, totals.real, totals.transmitted, totals.bill, totals.kept_prefix):
        assert pair[0] == pair[1] > 0
    assert totals.facts[0] == totals.facts[1]
    assert totals.expansions == 0


@pytest.mark.parametrize("calls", [5, 20, 40])
def test_plans_do_not_depend_on_what_comes_later(codex: WorkflowLog, replayed: WorkflowResult, calls: int) -> None:
    early = replay_workflow(without_future(codex, calls), PlanOptions())
    assert early.calls == replayed.calls[:calls]
    assert [plan.status for plan in early.plans] == [plan.status for plan in replayed.plans[:calls]]


def test_replaying_twice_gives_the_same_figures(codex: WorkflowLog, replayed: WorkflowResult) -> None:
    again = replay_workflow(codex, PlanOptions())
    assert again.totals == replayed.totals
    assert again.calls == replayed.calls


def test_what_went_into_the_prompts_adds_up_to_the_visible_tokens(replayed: WorkflowResult) -> None:
    assert sum(pair[0] for pair in replayed.kinds.values()) == replayed.totals.visible[0]
    assert sum(call.visible[1] for call in replayed.calls) == replayed.totals.visible[1]


def test_only_results_of_tools_and_agents_are_ever_replaced(replayed: WorkflowResult) -> None:
    changed = {kind for kind, (baseline, planned) in replayed.kinds.items() if baseline != planned}
    assert changed <= {Kind.TOOL_RESULT, Kind.TOOL_DEFINITIONS, Kind.TOOL_CALL}
    assert Kind.TOOL_RESULT in changed


def long_result(word: str) -> str:
    return "\n".join(line_of(word, number) for number in range(250))


def line_of(word: str, number: int) -> str:
    return f"{word} record {number}: the measured value is {number * 7919}"


WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")


def after_a_pause(later: str) -> WorkflowResult:
    """A session that reads six files and whose cache is cold before call 20; `later` is the output of call 40."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    steps: list[tuple[Kind, str, dict[str, Any]]] = [(Kind.USER, "task", {})]
    for call, word in enumerate(WORDS):
        steps.append((Kind.TOOL_CALL, "{}", {"call": call, "name": "Read", "link": word, "started_at": begin}))
        steps.append((Kind.TOOL_RESULT, long_result(word), {"link": word}))
    for call in range(len(WORDS), 41):
        time = begin if call < 20 else begin + timedelta(hours=2)
        text = later if call == 40 else f"thinking further {call}"
        steps.append((Kind.ASSISTANT, text, {"call": call, "started_at": time}))
    return replay_workflow(session(*steps), PlanOptions())


def test_a_quote_of_a_masked_result_is_charged_with_its_tokens_and_an_extra_call() -> None:
    unquoted = after_a_pause("that is all")
    quoted = after_a_pause(f"as it says: {line_of('alpha', 123)} and so on")
    assert unquoted.calls[39].visible[1] < unquoted.calls[39].visible[0]
    assert unquoted.totals.expansions == 0
    assert quoted.totals.expansions == 1
    baseline, planned = quoted.calls[40].visible
    shortened = unquoted.calls[40].visible[1]
    size = unquoted.calls[40].visible[0] - shortened
    assert baseline == unquoted.calls[40].visible[0]
    assert 2 * shortened < planned < 2 * shortened + size / len(WORDS)  # the part of one result that holds the quote
    assert quoted.calls[40].bill is not None
    assert unquoted.calls[40].bill is not None
    assert quoted.calls[40].bill[1] > unquoted.calls[40].bill[1]


@pytest.mark.parametrize(("characters", "expansions"), [(29, 0), (30, 1)])
def test_a_quote_has_thirty_characters_or_more(characters: int, expansions: int) -> None:
    quote = line_of("alpha", 123)[:characters]
    assert len(quote) == characters
    assert after_a_pause(quote).totals.expansions == expansions


def test_a_repeated_result_is_sent_as_a_reference_and_never_raises_the_bill() -> None:
    text = long_result("beta")
    log = session(
        (Kind.USER, "task", {}),
        (Kind.TOOL_CALL, "read", {"call": 0, "link": "1", "name": "Read"}),
        (Kind.TOOL_RESULT, text, {"link": "1"}),
        (Kind.TOOL_CALL, "read", {"call": 1, "link": "2", "name": "Read"}),
        (Kind.TOOL_RESULT, text, {"link": "2"}),
        (Kind.ASSISTANT, f"{line_of('beta', 100)} it is", {"call": 2}),
    )
    result = replay_workflow(log, PlanOptions())
    assert result.calls[2].visible[1] < 0.6 * result.calls[2].visible[0]
    assert result.totals.bill[1] < result.totals.bill[0]
    assert result.totals.expansions == 0
    assert result.totals.facts[0] == result.totals.facts[1]


def test_every_agent_that_made_calls_in_a_run_has_that_run() -> None:
    builder = LogBuilder("w", source="test", framework="test")
    builder.add(Kind.USER, "task", agent="planner", agent_run="shared")
    for call, agent in enumerate(("planner", "coder", "coder")):
        builder.add(Kind.ASSISTANT, f"done {call}", agent=agent, agent_run="shared", call=call)
    builder.add(Kind.ASSISTANT, "checked", agent="coder", agent_run="other", call=0)
    log = builder.build()
    assert log is not None
    assert replay_workflow(log, PlanOptions()).runs_by_agent == {"planner": 1, "coder": 2}


def test_an_unknown_price_is_no_bill_at_all() -> None:
    log = session((Kind.USER, "task", {}), (Kind.ASSISTANT, "done", {"call": 0}), model="nobody-knows-7b")
    result = replay_workflow(log, PlanOptions())
    assert result.totals.priced_workflows == 0
    assert result.calls[0].bill is None
    assert result.unpriced_models == {"nobody-knows-7b"}


def test_a_call_whose_log_names_no_model_is_told_from_a_model_without_a_price() -> None:
    steps: tuple[tuple[Kind, str, dict[str, Any]], ...] = (
        (Kind.USER, "task", {}),
        (Kind.ASSISTANT, "done", {"call": 0}),
    )
    assert replay_workflow(session(*steps, model=None), PlanOptions()).unpriced_models == {None}
    assert replay_workflow(session(*steps), PlanOptions()).unpriced_models == set()


def test_what_the_log_does_not_count_is_estimated_and_said() -> None:
    said = set[str]()
    for usage in (None, Usage(input_uncached=30_000), Usage(input_uncached=30_000, output=5)):
        log = session((Kind.USER, "task", {}), (Kind.ASSISTANT, "done", {"call": 0, "usage": usage}))
        degraded = replay_workflow(log, PlanOptions()).degraded
        assert (NO_PROMPT_USAGE in degraded) == (usage is None)
        assert (NO_OUTPUT_USAGE in degraded) == (usage is None or usage.output is None)
        said |= degraded
    assert said == {NO_PROMPT_USAGE, NO_OUTPUT_USAGE}


def test_the_invisible_overhead_is_learned_from_the_first_logged_prompt() -> None:
    usage = Usage(input_uncached=10, cache_read=0, cache_write_5m=30_000, output=5)
    log = session((Kind.USER, "task", {}), (Kind.ASSISTANT, "done", {"call": 0, "usage": usage}))
    totals = replay_workflow(log, PlanOptions()).totals
    assert totals.real == (30_010.0, 30_010.0)
    assert totals.visible[0] < 10


def test_calls_beyond_a_token_budget_are_counted_and_planning_never_adds_to_them(all_replayed: Replays) -> None:
    result = all_replayed(None, 1_500_000)[-1]
    assert result.source == "codex"
    baseline, planned = result.calls_beyond
    assert 0 < planned < baseline
    assert BUDGET_USED_UP in result.degraded
    assert any(plan.status == "INFEASIBLE" for plan in result.plans)


def test_a_sub_agent_is_over_when_its_parent_has_seen_its_result_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[tuple[str, int]] = []
    asked: list[str] = []
    monkeypatch.setattr(WorkflowPlanner, "finished", lambda _, run: told.append((run, len(asked))))
    before = WorkflowPlanner.before

    def note_and_plan(self: WorkflowPlanner, ask: Invocation) -> InvocationPlan:
        asked.append(ask.run_id)
        return before(self, ask)

    monkeypatch.setattr(WorkflowPlanner, "before", note_and_plan)
    builder = LogBuilder("w", source="test", framework="test")

    def add(kind: Kind, run: str, **fields: Any) -> None:
        agent, parent = ("main", None) if run == "main" else ("Explore", "main")
        builder.add(kind, f"{kind} {run}", agent=agent, agent_run=run, parent_agent=parent, **fields)

    add(Kind.USER, "main")
    add(Kind.HANDOFF, "main", call=0, link="1", name="Explore")
    add(Kind.HANDOFF, "main", call=0, link="2", name="Explore")
    add(Kind.ASSISTANT, "sub:a", call=1)
    add(Kind.ASSISTANT, "sub:b", call=2)
    add(Kind.HANDOFF_RESULT, "main", link="2", name="Explore")
    add(Kind.HANDOFF_RESULT, "main", link="1", name="Explore")
    add(Kind.ASSISTANT, "main", call=3)
    add(Kind.ASSISTANT, "sub:b", call=4)
    add(Kind.ASSISTANT, "main", call=5)
    log = builder.build()
    assert log is not None
    replay_workflow(log, PlanOptions())
    assert asked == ["main", "sub:a", "sub:b", "main", "sub:b", "main"]
    assert told == [("sub:a", 3), ("sub:b", 5)]


@pytest.fixture(scope="module")
def sessions() -> list[WorkflowLog]:
    return list(read_logs([SESSIONS], SkipLog()))


@pytest.fixture(scope="module")
def all_replayed(sessions: list[WorkflowLog]) -> Replays:
    """Replay the sessions with a target, or all but the first one with a limit of tokens: each of them once."""

    @cache
    def results(target: float | None, max_tokens: int | None) -> list[WorkflowResult]:
        options = PlanOptions(target_reduction=target, budget=Budget(max_tokens=max_tokens))
        return [replay_workflow(log, options) for log in (sessions if max_tokens is None else sessions[1:])]

    return results


def saved(results: list[WorkflowResult]) -> tuple[list[float], list[float]]:
    """Return the saved shares of visible tokens and of the bill, session by session."""
    totals = [result.totals for result in results]
    return (
        [1.0 - one.visible[1] / one.visible[0] for one in totals],
        [1.0 - one.bill[1] / one.bill[0] for one in totals],
    )


def test_asking_for_more_never_saves_clearly_less_and_is_not_dearer(all_replayed: Replays) -> None:
    reached = [saved(all_replayed(target, None)) for target in (None, 0.4, 0.9)]
    for (fewer, _), (more, bills) in pairwise(reached):
        assert all(high > low - 0.01 for low, high in zip(fewer, more, strict=True))
        assert min(bills) >= -0.01
    assert sum(reached[-1][0]) > sum(reached[0][0])


def test_a_token_budget_that_binds_leaves_fewer_calls_beyond_it(all_replayed: Replays) -> None:
    beyond = [result.calls_beyond for result in all_replayed(None, 1_500_000)]
    assert all(planned <= baseline for baseline, planned in beyond)
    assert sum(planned for _, planned in beyond) < sum(baseline for baseline, _ in beyond)


def test_a_token_budget_that_binds_changes_what_is_sent(all_replayed: Replays) -> None:
    free, _ = saved(all_replayed(None, None)[1:])
    bound, bills = saved(all_replayed(None, 1_500_000))
    assert bound != free
    assert sum(bound) > sum(free)
    assert min(bills) >= -0.02


def test_masks_wait_until_the_cache_is_cold_unless_a_token_limit_is_likely_to_bind() -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)

    def dense(**options: Any) -> WorkflowResult:
        steps: list[tuple[Kind, str, dict[str, Any]]] = [(Kind.USER, "task", {})]
        for call, word in enumerate(WORDS):
            steps.append((Kind.TOOL_CALL, "{}", {"call": call, "name": "Lookup", "link": word, "started_at": begin}))
            steps.append((Kind.TOOL_RESULT, long_result(word), {"link": word}))
        steps.extend(
            (Kind.ASSISTANT, f"thinking further {call}", {"call": call, "started_at": begin})
            for call in range(len(WORDS), 41)
        )
        return replay_workflow(session(*steps), PlanOptions(**options))

    warm = dense()
    assert Kind.TOOL_DEFINITIONS not in warm.kinds  # the tool that expands masks is not offered
    assert warm.totals.kept_prefix[1] == warm.totals.previous_prompt[1]
    limited = dense(budget=Budget(max_tokens=int(warm.tokens_used[1] * 0.7)))
    assert Kind.TOOL_DEFINITIONS in limited.kinds
    assert limited.totals.visible[1] < warm.totals.visible[1]
