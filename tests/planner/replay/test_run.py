"""One agent run, its figures worked out by hand: nothing here shares code with the replay's accounting."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from apportion.compression.store import HandleStore
from apportion.errors import StoreError
from apportion.planner.replay.billing import CacheClock
from apportion.planner.replay.context import logged_calls
from apportion.planner.replay.run import CallCosts, RunReplay
from apportion.records import Kind, Usage
from apportion.telemetry.events import LogBuilder, WorkflowLog
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MODEL = "gpt-4o"  # counted exactly by o200k_base: provider tokens equal visible tokens; caches from 1,024 tokens on
READ, WRITE, OUTPUT = 1.25e-6, 2.5e-6, 10e-6
FILE = "\n".join(f"record {number}: the measured value is {number * 7919}" for number in range(300))
SIZE = count_tokens(FILE)


def log_of(*events: tuple[Kind, str, dict[str, Any]], model: str = MODEL) -> WorkflowLog:
    builder = LogBuilder("w", source="test", framework="test")
    for kind, content, fields in events:
        of_model = {"model": model, "started_at": NOON} if kind.written_by_model else {}
        builder.add(kind, content, **{"agent": "main", "agent_run": "main", **of_model, **fields})
    log = builder.build()
    assert log is not None
    return log


def reading(answer: str = "done", **fields: Any) -> WorkflowLog:
    """Read a file, think, and answer: three calls."""
    return log_of(
        (Kind.USER, "please look", {}),
        (Kind.TOOL_CALL, '{"path": "f"}', {"call": 0, "name": "Read", "link": "1"}),
        (Kind.TOOL_RESULT, FILE, {"link": "1"}),
        (Kind.ASSISTANT, "thinking", {"call": 1}),
        (Kind.ASSISTANT, answer, {"call": 2, **fields}),
    )


def replay(
    log: WorkflowLog,
    masks: dict[int, Sequence[int]],
    *,
    store: HandleStore | None = None,
    clock: CacheClock | None = None,
    may_refer: bool = True,
) -> tuple[RunReplay, list[CallCosts]]:
    """Replay a log of one run, masking the given rows before the given calls."""
    calls = list(logged_calls(log))
    run = RunReplay(log, calls, store=store or HandleStore(), clock=clock or CacheClock(), may_refer=may_refer)
    costs = []
    for number, call in enumerate(calls):
        run.enter(call)
        run.mask(masks.get(number, ()))
        costs.append(run.send(call))
    return run, costs


def tokens(*texts: str) -> int:
    return sum(count_tokens(text) for text in texts)


FIRST = tokens("please look")
SECOND = FIRST + tokens('{"path": "f"}') + SIZE
THIRD = SECOND + tokens("thinking")


def test_without_masks_both_sides_cost_what_the_prompt_cache_charges() -> None:
    _, costs = replay(reading(), {})
    assert [cost.visible for cost in costs] == [(FIRST, FIRST), (SECOND, SECOND), (THIRD, THIRD)]
    expected = [
        FIRST * WRITE + tokens('{"path": "f"}') * OUTPUT,
        SECOND * WRITE + tokens("thinking") * OUTPUT,  # the first prompt was too short to be cached
        SECOND * READ + (THIRD - SECOND) * WRITE + tokens("done") * OUTPUT,
    ]
    for cost, bill in zip(costs, expected, strict=True):
        assert cost.cost == pytest.approx((bill, bill))


def test_a_mask_rewrites_what_follows_and_leaves_a_stub_that_is_transmitted() -> None:
    run, costs = replay(reading(), {2: [2]})
    stub = int(run.prompt.column("visible")[2])
    assert 10 < stub < 40
    planned = THIRD - SIZE + stub
    assert costs[2].visible == (THIRD, planned)
    prefix = FIRST + tokens('{"path": "f"}')
    assert prefix < 1024
    assert costs[2].cost[1] == pytest.approx(planned * WRITE + tokens("done") * OUTPUT)
    inputs = FIRST + SIZE
    assert run.totals.transmitted == (inputs, inputs + stub)
    assert run.totals.kept_prefix == (FIRST + SECOND, FIRST + prefix)
    assert run.totals.previous_prompt == (FIRST + SECOND, FIRST + SECOND)


def test_a_pause_beyond_the_time_to_live_writes_the_whole_prompt_again() -> None:
    for pause, read in ((300, SECOND), (301, 0)):
        _, costs = replay(reading(started_at=NOON + timedelta(seconds=pause)), {})
        bill = read * READ + (THIRD - read) * WRITE + tokens("done") * OUTPUT
        assert costs[2].cost == pytest.approx((bill, bill))


def test_an_expansion_costs_an_extra_call_and_its_tokens() -> None:
    quote = FILE[1000:1100]
    run, costs = replay(reading(quote), {2: [2]})
    stub = int(run.prompt.column("visible")[2])
    short = THIRD - SIZE + stub
    assert run.totals.expansions == 1
    assert costs[2].visible == (THIRD, short + short + SIZE)
    assert costs[2].real == pytest.approx((THIRD, short + short + SIZE))
    assert costs[2].expansion_output_tokens == 60
    first_call = short * WRITE + tokens(quote) * OUTPUT
    extra_call = (short + SIZE) * WRITE + 60 * OUTPUT  # the short prompt is below the least that is cached
    assert costs[2].cost[1] == pytest.approx(first_call + extra_call)
    assert run.totals.transmitted[1] == FIRST + SIZE + stub + SIZE
    facts, visible, after, recoverable = run.totals.support
    assert visible < after == facts == recoverable


def test_a_repeated_result_is_referred_to_and_its_first_copy_stays() -> None:
    events: tuple[tuple[Kind, str, dict[str, Any]], ...] = (
        (Kind.USER, "please look", {}),
        (Kind.TOOL_CALL, "{}", {"call": 0, "name": "Read", "link": "1"}),
        (Kind.TOOL_RESULT, FILE, {"link": "1"}),
        (Kind.TOOL_CALL, "{}", {"call": 1, "name": "Read", "link": "2"}),
        (Kind.TOOL_RESULT, FILE, {"link": "2"}),
        (Kind.ASSISTANT, "done", {"call": 2}),
    )
    run, costs = replay(log_of(*events), {})
    assert costs[2].visible[0] - costs[2].visible[1] > 0.9 * SIZE
    assert run.prompt.column("maskable").tolist() == [False] * 5
    _, whole = replay(log_of(*events), {}, may_refer=False)
    assert whole[2].visible[0] == whole[2].visible[1]
    masked, _ = replay(log_of(*events), {1: [2]})
    assert int(masked.prompt.column("visible")[4]) == SIZE


def test_the_original_must_come_back_byte_for_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HandleStore, "expand", lambda *_: b"something else")
    with pytest.raises(StoreError, match="byte for byte"):
        replay(reading(), {2: [2]})


def test_system_prompt_and_tools_are_cached_for_all_runs_of_an_agent_type() -> None:
    usage = Usage(input_uncached=5000, output=1)
    log = log_of((Kind.USER, "task", {}), (Kind.ASSISTANT, "done", {"call": 0, "usage": usage}))
    clock = CacheClock()
    size = tokens("task")
    _, (first,) = replay(log, {}, clock=clock)
    assert first.cost[0] == pytest.approx(5000 * WRITE + OUTPUT)
    other = log.model_copy(
        update={"events": tuple(event.model_copy(update={"agent_run": "again"}) for event in log.events)}
    )
    _, (second,) = replay(other, {}, clock=clock)
    assert second.cost[0] == pytest.approx((5000 - size) * READ + size * WRITE + OUTPUT)


def test_one_hour_writes_are_priced_and_live_as_such() -> None:
    for hour in (False, True):
        column = "cache_write_1h" if hour else "cache_write_5m"
        usage = Usage(**{"input_uncached": 0, column: 6000, "output": 1})
        log = log_of(
            (Kind.USER, "task", {}),
            (Kind.ASSISTANT, "one", {"call": 0, "usage": usage}),
            (Kind.ASSISTANT, "two", {"call": 1, "started_at": NOON + timedelta(minutes=30)}),
            model="claude-opus-4-6",
        )
        run, costs = replay(log, {})
        assert costs[0].cost[0] == pytest.approx(6000 * (10e-6 if hour else 6.25e-6) + 25e-6)
        assert run.warm is hour


def test_real_prompts_shrink_in_proportion() -> None:
    usage = Usage(input_uncached=THIRD + 1000, output=1)
    log = log_of(
        (Kind.USER, "please look", {"usage": None}),
        (Kind.TOOL_CALL, '{"path": "f"}', {"call": 0, "name": "Read", "link": "1",
                                           "usage": Usage(input_uncached=FIRST + 1000, output=1)}),
        (Kind.TOOL_RESULT, FILE, {"link": "1"}),
        (Kind.ASSISTANT, "thinking", {"call": 1}),
        (Kind.ASSISTANT, "done", {"call": 2, "usage": usage}),
    )  # fmt: skip
    run, costs = replay(log, {2: [2]})
    stub = int(run.prompt.column("visible")[2])
    assert costs[2].real == pytest.approx((THIRD + 1000, THIRD + 1000 - SIZE + stub))
