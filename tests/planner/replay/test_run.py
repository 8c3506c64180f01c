"""One agent run, its figures worked out by hand: nothing here shares code with the replay's accounting."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from apportion.compression.actions import mask
from apportion.compression.expand_tool import FOLDER, expand_schema
from apportion.compression.markers import Lines
from apportion.compression.store import Handle, HandleStore
from apportion.compression.strategies.cutting import Cut, CutStrategy
from apportion.errors import StoreError
from apportion.planner.forms import Forms
from apportion.planner.planner import Birth
from apportion.planner.replay.billing import CacheClock
from apportion.planner.replay.context import logged_calls
from apportion.planner.replay.regime import cache_regime
from apportion.planner.replay.results import LOST_ORIGINAL
from apportion.planner.replay.run import CallCosts, RunReplay
from apportion.records import Action, Kind, Usage
from apportion.telemetry.events import LogBuilder, WorkflowLog
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from apportion.compression.strategies.types import Item, Query

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
        (Kind.TOOL_CALL, '{"path": "f"}', {"call": 0, "name": "lookup", "link": "1"}),
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
    births: Mapping[int, Sequence[Birth]] | None = None,
    forms: Forms | None = None,
    may_mask: bool = True,
) -> tuple[RunReplay, list[CallCosts]]:
    """Replay a log of one run, masking and referring to the given rows before the given calls."""
    calls = list(logged_calls(log))
    run = RunReplay(
        log,
        calls,
        store=HandleStore() if store is None else store,
        clock=clock or CacheClock(),
        regime=cache_regime(calls),
        forms=forms,
        may_mask=may_mask,
    )
    costs = []
    for number, call in enumerate(calls):
        run.enter(call)
        run.bear((births or {}).get(number, ()))
        run.mask(masks.get(number, ()))
        costs.append(run.send(call))
    return run, costs


def tokens(*texts: str) -> int:
    return sum(count_tokens(text) for text in texts)


FIRST = tokens("please look")
SECOND = FIRST + tokens('{"path": "f"}') + SIZE
THIRD = SECOND + tokens("thinking")
TOOL = tokens(expand_schema())
FETCH = 60  # tokens of the agent's call of the expand tool


def test_without_masks_both_sides_cost_what_the_prompt_cache_charges() -> None:
    _, costs = replay(reading(), {}, may_mask=False)
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
    planned = TOOL + THIRD - SIZE + stub
    assert costs[2].visible == (THIRD, planned)
    prefix = FIRST + tokens('{"path": "f"}')
    assert prefix < 1024
    assert costs[2].cost[1] == pytest.approx(planned * WRITE + tokens("done") * OUTPUT)
    inputs = FIRST + SIZE
    assert run.totals.transmitted == (inputs, TOOL + inputs + stub)
    assert run.totals.kept_prefix == (FIRST + SECOND, FIRST)  # the schema of the expand tool comes before all of it
    assert run.totals.previous_prompt == (FIRST + SECOND, FIRST + SECOND)


def test_a_pause_beyond_the_time_to_live_writes_the_whole_prompt_again() -> None:
    for pause, read in ((300, SECOND), (301, 0)):
        _, costs = replay(reading(started_at=NOON + timedelta(seconds=pause)), {}, may_mask=False)
        bill = read * READ + (THIRD - read) * WRITE + tokens("done") * OUTPUT
        assert costs[2].cost == pytest.approx((bill, bill))


def test_an_expansion_costs_an_extra_call_and_its_tokens() -> None:
    quote = FILE[1000:1100]
    run, costs = replay(reading(quote), {2: [2]})
    stub, part = int(run.prompt.column("visible")[2]), half_of_the_file_around(quote, run)
    short = TOOL + THIRD - SIZE + stub
    assert run.totals.expansions == run.totals.extra_calls == 1
    assert costs[2].visible == (THIRD, short + short + FETCH + part)
    assert costs[2].real == pytest.approx((THIRD, short + short + FETCH + part))
    assert costs[2].expansion_output_tokens == FETCH
    assert costs[2].expansion_prompt_tokens == pytest.approx(short + FETCH + part)
    first_call = short * WRITE + tokens(quote) * OUTPUT
    extra_call = (short + FETCH + part) * WRITE + FETCH * OUTPUT  # the short prompt is below the least that is cached
    assert costs[2].cost[1] == pytest.approx(first_call + extra_call)
    assert run.totals.transmitted[1] == TOOL + FIRST + SIZE + stub + part
    assert run.prompt.column("visible")[-2:].tolist() == [FETCH, part]  # both stay in the history
    facts, visible, after, recoverable = run.totals.support
    assert visible < after == facts == recoverable


def half_of_the_file_around(quote: str, run: RunReplay) -> int:
    """Return the tokens of what was fetched last, which is a good half of the file, in whole lines."""
    part = run.texts[-1]
    start = FILE.index(part)
    assert quote in part
    assert start == 0 or FILE[start - 1] == "\n"
    assert part.endswith("\n") or FILE.endswith(part)
    assert 0.5 * len(FILE) <= len(part) <= 0.52 * len(FILE)
    return tokens(part)


def test_another_quote_of_what_was_fetched_in_part_fetches_all_of_it() -> None:
    log = log_of(
        (Kind.USER, "please look", {}),
        (Kind.TOOL_CALL, '{"path": "f"}', {"call": 0, "name": "lookup", "link": "1"}),
        (Kind.TOOL_RESULT, FILE, {"link": "1"}),
        (Kind.ASSISTANT, FILE[1000:1100], {"call": 1}),
        (Kind.ASSISTANT, FILE[2000:2100], {"call": 2}),
        (Kind.ASSISTANT, FILE[-1000:-900], {"call": 3}),
        (Kind.ASSISTANT, FILE[-800:-700], {"call": 4}),
    )
    run, costs = replay(log, {1: [2]})
    assert run.totals.expansions == run.totals.extra_calls == 2  # the second and the fourth quote were there already
    assert run.texts[-2] == FILE
    assert [cost.expansion_output_tokens for cost in costs] == [0, FETCH, 0, FETCH, 0]
    facts, _, after, recoverable = run.totals.support
    assert after == facts == recoverable


def test_what_one_output_quotes_is_fetched_in_one_call() -> None:
    other = FILE.replace("record", "entry")
    log = log_of(
        (Kind.USER, "please look", {}),
        (Kind.TOOL_CALL, "{}", {"call": 0, "name": "lookup", "link": "1"}),
        (Kind.TOOL_RESULT, FILE, {"link": "1"}),
        (Kind.TOOL_CALL, "{}", {"call": 1, "name": "lookup", "link": "2"}),
        (Kind.TOOL_RESULT, other, {"link": "2"}),
        (Kind.ASSISTANT, FILE[1000:1100] + other[5000:5100], {"call": 2}),
    )
    run, costs = replay(log, {2: [2, 4]})
    assert (run.totals.expansions, run.totals.extra_calls) == (2, 1)
    short = sum(run.prompt.column("visible")[:5].tolist()) + TOOL
    fetched = sum(run.prompt.column("visible")[5:].tolist())
    assert costs[2].visible[1] == short + short + fetched
    assert costs[2].expansion_output_tokens == 2 * FETCH


def test_a_repeated_result_is_referred_to() -> None:
    events: tuple[tuple[Kind, str, dict[str, Any]], ...] = (
        (Kind.USER, "please look", {}),
        (Kind.TOOL_CALL, "{}", {"call": 0, "name": "lookup", "link": "1"}),
        (Kind.TOOL_RESULT, FILE, {"link": "1"}),
        (Kind.TOOL_CALL, "{}", {"call": 1, "name": "lookup", "link": "2"}),
        (Kind.TOOL_RESULT, FILE, {"link": "2"}),
        (Kind.ASSISTANT, "done", {"call": 2}),
    )
    run, costs = replay(log_of(*events), {}, births={2: [Birth(4, Action.REFERENCE, 14.0, 2)]})
    assert run.prompt.column("copy").tolist() == [-1, -1, -1, -1, 2]
    assert costs[2].visible[0] - costs[2].visible[1] > 0.9 * SIZE
    stub = int(run.prompt.column("visible")[4])
    assert run.totals.transmitted == (FIRST + 2 * SIZE, FIRST + SIZE + stub)
    whole, costs = replay(log_of(*events), {}, may_mask=False)
    assert costs[2].visible[0] == costs[2].visible[1]
    assert whole.prompt.column("copy")[4] == 2
    masked, _ = replay(log_of(*events), {1: [2]})
    assert masked.prompt.column("copy")[4] == -1


JSON_LINES = "\n".join(json.dumps({"id": number, "state": "open", "value": number * 7919}) for number in range(300))
TABLE = json.dumps([{"id": number, "state": "open", "value": number * 7919} for number in range(300)])


def looking_up(answer: str, *, result: str = TABLE) -> WorkflowLog:
    """Look a table up, think, and answer: three calls."""
    return log_of(
        (Kind.USER, "please look", {}),
        (Kind.TOOL_CALL, "{}", {"call": 0, "name": "read", "link": "1"}),
        (Kind.TOOL_RESULT, result, {"link": "1"}),
        (Kind.ASSISTANT, "thinking", {"call": 1}),
        (Kind.ASSISTANT, answer, {"call": 2}),
    )


def test_a_lossless_form_is_shorter_from_its_first_call_on_and_nothing_is_lost() -> None:
    structure = {1: [Birth(2, Action.STRUCTURE, 0.0)]}
    run, costs = replay(looking_up(TABLE[2000:2100]), {}, births=structure, forms=Forms())
    form = Forms().of(TABLE.encode()).structured
    assert form is not None
    shorter = form.original_tokens - form.tokens
    assert [cost.visible[0] - cost.visible[1] for cost in costs] == [0, shorter, shorter]
    assert run.totals.transmitted[0] - run.totals.transmitted[1] == shorter
    assert run.totals.kept_prefix[0] - run.totals.kept_prefix[1] == shorter  # the prefix is kept: the third call's
    assert run.totals.expansions == 0  # what the answer quotes stands in the table
    assert run.totals.facts[0] == run.totals.facts[1] == run.totals.facts[2] > 0


def test_a_lossless_form_can_be_masked_later_and_comes_back() -> None:
    structure = {1: [Birth(2, Action.STRUCTURE, 0.0)]}
    run, costs = replay(looking_up(TABLE[2000:2100]), {2: [2]}, births=structure, forms=Forms())
    assert run.prompt.action(2) is Action.MASK
    assert run.totals.expansions == 1
    assert costs[2].visible[0] == tokens("please look", "{}", TABLE, "thinking")
    facts, visible, recoverable = run.totals.facts
    assert visible < recoverable == facts


class Head(CutStrategy):
    """Keeps the first 20 lines."""

    name = "head"

    def choose(self, lines: Sequence[bytes], item: Item, target_tokens: int | None, query: Query) -> Sequence[Cut]:  # noqa: ARG002
        return [Cut(Lines(21, len(lines)), "the rest")]


@pytest.mark.parametrize(("line", "expansions"), [(5, 0), (200, 1)])
def test_what_was_left_out_is_expanded_only_if_it_is_quoted(line: int, expansions: int) -> None:
    select = {1: [Birth(2, Action.SELECT, 0.0)]}
    quote = FILE.split("\n")[line]
    run, costs = replay(looking_up(quote, result=FILE), {}, births=select, forms=Forms(select=Head()))
    assert run.totals.expansions == expansions
    assert costs[1].visible[1] < costs[1].visible[0] - 0.8 * SIZE
    facts, visible, recoverable = run.totals.facts
    assert visible < recoverable == facts


@pytest.mark.parametrize("action", [Action.STRUCTURE, Action.SELECT])
def test_a_form_leaves_with_its_original_when_the_history_starts_anew(action: Action) -> None:
    log = log_of(
        (Kind.USER, "please look", {}),
        (Kind.TOOL_CALL, "{}", {"call": 0, "name": "read", "link": "1"}),
        (Kind.TOOL_RESULT, JSON_LINES, {"link": "1"}),
        (Kind.ASSISTANT, "thinking", {"call": 1}),
        (Kind.USER, "start anew", {"compaction": True}),
        (Kind.ASSISTANT, JSON_LINES[3000:3100], {"call": 2}),
    )
    run, costs = replay(log, {}, births={1: [Birth(2, action, 0.0)]}, forms=Forms(select=Head()))
    assert costs[1].visible[1] < costs[1].visible[0]
    assert costs[2].visible[0] == costs[2].visible[1] == tokens("start anew")
    assert run.totals.expansions == 0
    assert run.totals.facts[0] == run.totals.facts[2]


def test_an_original_that_does_not_come_back_is_left_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HandleStore, "expand", lambda *_: b"something else")
    run, costs = replay(reading(), {2: [2]})
    assert costs[2].visible == (THIRD, TOOL + THIRD)
    assert run.degraded >= {LOST_ORIGINAL}


class Forgetful(HandleStore):
    """Gives every original back once: when it is put in."""

    def __init__(self, answer: bytes | None) -> None:
        super().__init__()
        self._answer = answer
        self._asked = 0

    def expand(self, handle: Handle | str, start: int | None = None, end: int | None = None) -> bytes:
        self._asked += 1
        if self._asked == 1:
            return super().expand(handle, start, end)
        if self._answer is None:
            raise StoreError("lost")
        return self._answer


@pytest.mark.parametrize("answer", [None, b"", FILE[:-1].encode()])
def test_what_cannot_be_fetched_any_more_is_not_recoverable(answer: bytes | None) -> None:
    log = reading(FILE[1000:1100])
    kept, costs = replay(log, {2: [2]})
    lost, in_vain = replay(log, {2: [2]}, store=Forgetful(answer))
    facts, visible, recoverable = kept.totals.facts
    assert visible < recoverable == facts
    assert kept.totals.support[3] == kept.totals.support[0]
    assert LOST_ORIGINAL not in kept.degraded
    facts, visible, recoverable = lost.totals.facts
    assert visible == recoverable < facts
    assert lost.totals.support[3] < lost.totals.support[0]
    assert LOST_ORIGINAL in lost.degraded
    brought = int(kept.prompt.column("visible")[-1])
    assert in_vain[2].visible[1] == costs[2].visible[1] - brought  # the extra call is paid, and brings nothing
    assert lost.totals.expansions == 1


def test_the_expand_tool_is_in_every_planned_prompt_from_the_first_mask_on() -> None:
    run, costs = replay(reading(), {1: [2]})
    stub = int(run.prompt.column("visible")[2])
    change = TOOL + stub - SIZE
    assert [cost.visible[1] - cost.visible[0] for cost in costs] == [0, change, change]
    assert [cost.real[1] - cost.real[0] for cost in costs] == pytest.approx([0, change, change])
    assert run.kinds[Kind.TOOL_DEFINITIONS] == (0, 2 * TOOL)
    assert run.known_overhead == TOOL
    _, without = replay(reading(), {})
    assert [cost.visible[1] - cost.visible[0] for cost in without] == [0] * 3


def test_offering_the_tool_while_the_prompt_is_cached_writes_all_of_it_again() -> None:
    log = log_of(
        (Kind.USER, FILE[::-1], {}),
        (Kind.TOOL_CALL, "{}", {"call": 0, "name": "Lookup", "link": "1"}),
        (Kind.TOOL_RESULT, FILE, {"link": "1"}),
        (Kind.ASSISTANT, "thinking", {"call": 1}),
        (Kind.ASSISTANT, "done", {"call": 2}),
    )
    run, costs = replay(log, {1: [2]})
    planned = costs[1].visible[1]
    assert costs[1].cost[1] == pytest.approx(planned * WRITE + tokens("thinking") * OUTPUT)
    rest = tokens("thinking")
    assert costs[2].cost[1] == pytest.approx(planned * READ + rest * WRITE + tokens("done") * OUTPUT)
    assert run.totals.kept_prefix[1] == planned - TOOL  # nothing of the first prompt


def test_first_masks_that_hardly_outweigh_the_schema_are_not_made() -> None:
    small = "\n".join(FILE.splitlines()[:12])
    assert 60 < tokens(small) < 3 * TOOL
    log = log_of(
        (Kind.USER, "please look", {}),
        (Kind.TOOL_CALL, "{}", {"call": 0, "name": "lookup", "link": "1"}),
        (Kind.TOOL_RESULT, small, {"link": "1"}),
        (Kind.ASSISTANT, "done", {"call": 1}),
    )
    _, costs = replay(log, {1: [2]})
    assert costs[1].visible[0] == costs[1].visible[1]


def with_usage(log: WorkflowLog, usage: Usage) -> WorkflowLog:
    """Return the log with the same usage for every call."""
    events = (
        event.model_copy(update={"usage": usage}) if event.kind.written_by_model else event for event in log.events
    )
    return log.model_copy(update={"events": tuple(events)})


def maskable(log: WorkflowLog, clock: CacheClock) -> list[bool]:
    """Say for each call whether masks may be made before it; none ever is."""
    calls = list(logged_calls(log))
    run = RunReplay(log, calls, store=HandleStore(), clock=clock, regime=cache_regime(calls))
    said = []
    for call in calls:
        run.enter(call)
        said.append(run.may_mask_now)
        run.mask(())
        run.send(call)
    return said


def test_the_first_mask_waits_until_nothing_is_cached_that_the_schema_would_rewrite() -> None:
    later = NOON + timedelta(seconds=301)
    assert maskable(reading(), CacheClock()) == [True, True, False]  # the first prompt is too short to be cached
    assert maskable(reading(started_at=later), CacheClock()) == [True, True, True]


def test_a_warm_system_prompt_of_another_run_is_not_given_up_for_the_schema() -> None:
    later = NOON + timedelta(seconds=301)
    log = with_usage(reading(started_at=later), Usage(input_uncached=9000, output=1))
    calls = list(logged_calls(log))
    for offering, may in ((False, False), (True, True)):
        clock = CacheClock()
        run = RunReplay(log, calls, store=HandleStore(), clock=clock, regime=cache_regime(calls))
        for call in calls[:2]:
            run.enter(call)
            run.mask(())
            run.send(call)
        clock.touch(("main", MODEL, False), later)
        if offering:
            clock.touch(("main", MODEL, True), later)
        run.enter(calls[2])
        assert run.may_mask_now is may


def test_a_full_context_window_leaves_no_choice() -> None:
    for prompt, may in ((100_000, False), (200_000, True)):  # of a window of 128,000
        log = with_usage(reading(), Usage(input_uncached=prompt, output=1))
        assert maskable(log, CacheClock())[2] is may


def edited(*quotes: str) -> WorkflowLog:
    """Read a file, get a reminder that is dropped before the last call, and quote the file in each of two calls."""
    builder = LogBuilder("w", source="test", framework="test")
    context: list[int] = []

    def add(kind: Kind, content: str, **fields: Any) -> None:
        if kind.written_by_model:
            fields |= {"model": MODEL, "started_at": NOON, "prompt_steps": tuple(context)}
        context.append(builder.add(kind, content, agent="main", agent_run="main", **fields).step)

    add(Kind.USER, "please look")
    add(Kind.TOOL_CALL, '{"path": "f"}', call=0, name="lookup", link="1")
    add(Kind.TOOL_RESULT, FILE, link="1")
    add(Kind.USER, "a transient reminder")
    add(Kind.ASSISTANT, quotes[0], call=1)
    del context[3:]
    add(Kind.ASSISTANT, quotes[1], call=2)
    log = builder.build()
    assert log is not None
    return log


def test_what_was_expanded_and_dropped_again_is_expanded_and_charged_again() -> None:
    run, costs = replay(edited(FILE[1000:1100], FILE[3000:3100]), {1: [2]})
    assert run.totals.expansions == 2
    stub = int(run.prompt.column("visible")[2])
    short = TOOL + FIRST + tokens('{"path": "f"}') + stub
    part = half_of_the_file_around(FILE[3000:3100], run)
    assert costs[2].visible[1] == short + short + FETCH + part
    assert run.totals.support[2] == run.totals.support[0]


def test_each_model_has_a_cache_of_its_own() -> None:
    def alternating(*models: str) -> list[float]:
        events: list[tuple[Kind, str, dict[str, Any]]] = [(Kind.USER, FILE, {})] + [
            (Kind.ASSISTANT, "ok", {"call": number, "model": model}) for number, model in enumerate(models)
        ]
        _, costs = replay(log_of(*events), {}, may_mask=False)
        return [cost.cost[0] for cost in costs]

    same, mixed = alternating(MODEL, MODEL, MODEL), alternating(MODEL, "gpt-4o-mini", MODEL)
    ok = tokens("ok")
    assert same[1] == pytest.approx(SIZE * READ + ok * WRITE + ok * OUTPUT)
    assert mixed[1] == pytest.approx((SIZE + ok) * 0.15e-6 + ok * 0.6e-6)  # nothing is cached for the other model
    assert mixed[2] == pytest.approx(SIZE * READ + 2 * ok * WRITE + ok * OUTPUT)  # only what this one has read before


def test_another_tokenizer_counts_the_whole_prompt_anew() -> None:
    events: list[tuple[Kind, str, dict[str, Any]]] = [(Kind.USER, FILE, {})] + [
        (Kind.ASSISTANT, "ok", {"call": number, "model": model})
        for number, model in enumerate((MODEL, "claude-opus-4-6", MODEL))
    ]
    run, costs = replay(log_of(*events), {}, may_mask=False)
    factor = costs[1].real[0] / costs[1].visible[0]
    assert factor > 1.05
    assert costs[2].real == pytest.approx(costs[2].visible)
    assert run.totals.kept_prefix[0] <= run.totals.previous_prompt[0] * 1.000001


def test_prompts_below_the_minimum_cost_what_input_costs() -> None:
    log = log_of(
        (Kind.USER, "task", {}),
        (Kind.ASSISTANT, "one", {"call": 0, "usage": Usage(input_uncached=500, output=1)}),
        model="claude-opus-4-6",
    )
    _, costs = replay(log, {}, may_mask=False)
    assert costs[0].cost[0] == pytest.approx(500 * 5e-6 + 25e-6)


def test_the_bill_is_of_the_prompts_that_the_log_states() -> None:
    log = log_of(
        (Kind.USER, FILE, {}),
        (Kind.ASSISTANT, "one", {"call": 0, "usage": Usage(input_uncached=20_000, output=1)}),
        (Kind.ASSISTANT, "two", {"call": 1, "usage": Usage(input_uncached=5_000, cache_read=40_000, output=1)}),
    )
    run, costs = replay(log, {}, may_mask=False)
    assert [cost.real[0] for cost in costs] == pytest.approx([20_000, 45_000])
    assert run.totals.read_simulated[1] == pytest.approx(run.totals.read_logged[1])
    simulated, logged = run.totals.bill_of_logged
    assert simulated == pytest.approx(sum(cost.cost[0] for cost in costs))
    assert logged == pytest.approx(25_000 * WRITE + 40_000 * READ + 2 * OUTPUT)


def test_system_prompt_and_tools_are_cached_for_all_runs_of_an_agent_type() -> None:
    usage = Usage(input_uncached=5000, output=1)
    log = log_of((Kind.USER, "task", {}), (Kind.ASSISTANT, "done", {"call": 0, "usage": usage}))
    clock = CacheClock()
    size = tokens("task")
    _, (first,) = replay(log, {}, clock=clock, may_mask=False)
    assert first.cost[0] == pytest.approx(5000 * WRITE + OUTPUT)
    other = log.model_copy(
        update={"events": tuple(event.model_copy(update={"agent_run": "again"}) for event in log.events)}
    )
    _, (second,) = replay(other, {}, clock=clock, may_mask=False)
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
        run, costs = replay(log, {}, may_mask=False)
        assert costs[0].cost[0] == pytest.approx(6000 * (10e-6 if hour else 6.25e-6) + 25e-6)
        assert run.warm is hour


def test_real_prompts_shrink_in_proportion() -> None:
    usage = Usage(input_uncached=THIRD + 1000, output=1)
    log = log_of(
        (Kind.USER, "please look", {"usage": None}),
        (Kind.TOOL_CALL, '{"path": "f"}', {"call": 0, "name": "lookup", "link": "1",
                                           "usage": Usage(input_uncached=FIRST + 1000, output=1)}),
        (Kind.TOOL_RESULT, FILE, {"link": "1"}),
        (Kind.ASSISTANT, "thinking", {"call": 1}),
        (Kind.ASSISTANT, "done", {"call": 2, "usage": usage}),
    )  # fmt: skip
    run, costs = replay(log, {2: [2]})
    stub = int(run.prompt.column("visible")[2])
    assert costs[2].real == pytest.approx((THIRD + 1000, TOOL + THIRD + 1000 - SIZE + stub))


def test_a_result_is_superseded_once_a_later_call_reads_or_changes_its_file() -> None:
    def call(number: int, path: str, name: str) -> list[tuple[Kind, str, dict[str, Any]]]:
        link = str(number)
        given = {"call": number, "name": name, "link": link}
        return [
            (Kind.TOOL_CALL, f'{{"file_path": "{path}"}}', given),
            (Kind.TOOL_RESULT, f"{FILE} {number}", {"link": link}),
        ]

    events = [*call(0, "f", "Read"), *call(1, "g", "Read"), *call(2, "f", "Edit"), (Kind.ASSISTANT, "ok", {"call": 3})]
    run, _ = replay(log_of(*events), {})
    assert run.prompt.column("superseded").tolist() == [False, True, False, False, False, False]


def test_an_agent_that_reads_files_needs_no_other_tool_and_finds_the_original_in_a_file(tmp_path: Path) -> None:
    def log_with(tool: str) -> WorkflowLog:
        return log_of(
            (Kind.USER, "please look", {}),
            (Kind.TOOL_CALL, '{"path": "f"}', {"call": 0, "name": tool, "link": "1"}),
            (Kind.TOOL_RESULT, FILE, {"link": "1"}),
            (Kind.ASSISTANT, "thinking", {"call": 1}),
            (Kind.ASSISTANT, "done", {"call": 2}),
        )

    store = HandleStore()
    run, costs = replay(log_with("Read"), {2: [2]}, store=store)
    stub = int(run.prompt.column("visible")[2])
    assert costs[2].visible == (THIRD, THIRD - SIZE + stub)  # and no schema
    other, waits = replay(log_with("lookup"), {2: [2]})
    assert waits[2].visible == (THIRD, THIRD - SIZE + int(other.prompt.column("visible")[2]) + TOOL)
    handle = Handle.of(FILE.encode())
    rendered = mask(FILE.encode(), handle=handle, name="Read", tokens=SIZE, as_file=True)
    assert count_tokens(rendered.decode()) == stub
    folder = tmp_path / FOLDER
    assert f"read {FOLDER}/{handle.short}" in rendered.decode()
    assert store.write_out(handle, folder) == folder / handle.short
    assert (folder / handle.short).read_bytes() == FILE.encode()
    assert [path.name for path in folder.iterdir()] == [handle.short]
