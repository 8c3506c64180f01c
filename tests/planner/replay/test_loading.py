from __future__ import annotations

import json
from typing import Any

import pytest

from apportion.models.tool_needs import RunTools
from apportion.planner.masking import TokenPrices
from apportion.planner.replay.loading import (
    CLAUDE_CODE_TOOLS,
    CLAUDE_PER_COUNTED,
    RunLoading,
    estimate_loading,
    run_loadings,
)
from apportion.planner.replay.loading_rows import loading_rows, preload_rows
from apportion.planner.replay.results import NextFigures, Totals, WorkflowResult
from apportion.records import Kind, Usage
from apportion.telemetry.events import LogBuilder, WorkflowLog
from apportion.tokens import TokenCounter

PRICES = TokenPrices(read=0.1, write=1.25, output=5.0)
LONG = "It is told at length, with everything that could matter. " * 30
TOOLS: list[dict[str, Any]] = [
    {"name": name, "description": f"Does {name}. {LONG}", "input_schema": {}} for name in ("often", "never", "once")
]


def log(number: int, *used: str, tools: list[dict[str, Any]] | None = None, framework: str = "f") -> WorkflowLog:
    """A run of ten calls that uses some tools with its first calls."""
    builder = LogBuilder(f"w{number}", source="s", framework=framework)
    where = {"agent": "main", "agent_run": "main"}
    for tool in tools or ():
        builder.add(Kind.TOOL_DEFINITIONS, json.dumps(tool), name=tool["name"], **where)
    builder.add(Kind.USER, "Do it.", **where)
    for nth in range(10):
        usage = Usage(input_uncached=9_000 + nth, output=5)
        kind, name = (Kind.TOOL_CALL, used[nth]) if nth < len(used) else (Kind.ASSISTANT, None)
        builder.add(kind, "{}", name=name, call=builder.next_call(), usage=usage, model="claude-opus-4-6", **where)
    built = builder.build()
    assert built is not None
    return built


def test_the_overhead_is_what_no_text_of_the_log_accounts_for_and_its_schemas() -> None:
    (bare,) = run_loadings(log(1, "often"))
    counter = TokenCounter("claude-opus-4-6")
    assert bare.overhead == 9_000 - counter.estimate("Do it.").tokens
    assert (bare.run.calls, dict(bare.run.used), bare.tools) == (10, {"often": 1}, {})
    (whole,) = run_loadings(log(1, "often", tools=TOOLS))
    assert whole.overhead == pytest.approx(bare.overhead, rel=0.01)  # the schemas are a known part of it now
    assert set(whole.tools) == {"often", "never", "once"}
    assert all(size[0] > size[1] > size[2] for size in whole.tools.values())


def test_logged_schemas_that_no_other_run_needed_are_left_out_and_a_miss_is_counted_and_paid() -> None:
    runs = [
        each for n in range(40) for each in run_loadings(log(n, "often", *(["once"] if n == 7 else []), tools=TOOLS))
    ]
    lines = next(each for each in estimate_loading(runs) if not each.brief)
    assert (lines.basis, lines.runs, lines.calls) == ("logged", 40, 400)
    assert lines.missed_calls == 1
    assert lines.sent_tokens < 0.6 * lines.tool_tokens
    calm = [each for n in range(40) for each in run_loadings(log(n, "often", tools=TOOLS))]
    without = next(each for each in estimate_loading(calm) if not each.brief)
    assert without.missed_calls == 0
    assert without.saved_usd > lines.saved_usd


def test_claude_code_has_the_measured_sizes_and_tools_of_others_are_never_missed() -> None:
    runs = [each for n in range(30) for each in run_loadings(log(n, "Read", "mcp__a__b", framework="claude-code"))]
    brief, lines = sorted(estimate_loading(runs), key=lambda each: not each.brief)
    listed = sum(
        round(CLAUDE_PER_COUNTED * sizes[0]) for name, sizes in CLAUDE_CODE_TOOLS.items() if name != "TodoWrite"
    )
    assert brief.tool_tokens == lines.tool_tokens == listed
    assert (brief.missed_calls, brief.basis) == (0, "measured")
    assert brief.sent_tokens < lines.sent_tokens < listed


def test_without_sizes_a_share_of_the_overhead_is_assumed_and_what_nobody_else_used_is_missed() -> None:
    runs = [each for n in range(30) for each in run_loadings(log(n, "often", *(["new"] if n == 3 else [])))]
    found = estimate_loading(runs)
    assert {each.basis for each in found} == {"assumed"}
    assert {each.missed_calls for each in found} == {1}


def test_a_run_without_logged_prompts_is_left_out() -> None:
    builder = LogBuilder("w", source="s", framework="f")
    builder.add(Kind.ASSISTANT, "Hello.", agent="main", agent_run="main", call=0)
    built = builder.build()
    assert built is not None
    assert run_loadings(built) == []
    assert estimate_loading([]) == []


def test_rows_state_shares_of_schemas_overhead_and_bill() -> None:
    tools = {"often": (1_000, 400, 10), "never": (1_000, 400, 10)}
    loadings = [
        RunLoading(RunTools(f"w{n}", "s", "main", 50, {"often": 1}), "f", True, 5_000, 20_000.0, PRICES, tools)
        for n in range(20)
    ]
    bills = Totals(workflows=1, bill=(20_000.0, 20_000.0), priced_workflows=1)
    results = [WorkflowResult(f"w{n}", "s", "f", "x", bills, loadings=[each]) for n, each in enumerate(loadings)]
    row = next(row for row in loading_rows({"s": results}) if not row.brief)
    assert row.tool_tokens == 2_000
    assert row.saved_share_of_overhead == pytest.approx((2_000 - row.sent_tokens) / 5_000)
    assert not row.estimate
    held = PRICES.write + 49 * PRICES.read
    assert row.bill_saved_share == pytest.approx((2_000 - row.sent_tokens) * held / 20_000, rel=1e-4)
    unpriced = [WorkflowResult("w0", "s", "f", "x", Totals(workflows=1), loadings=loadings)]
    assert all(row.bill_saved_share is None for row in loading_rows({"s": unpriced}))


def test_loading_ahead_counts_hits_waste_and_what_was_missed() -> None:
    figures = [
        NextFigures(0.9, hit=True, sure=True),
        NextFigures(0.9, hit=False, sure=True),
        NextFigures(0.9, hit=True, sure=True, named=False, came=False),
        NextFigures(0.5, hit=True, sure=False),
    ]
    result = WorkflowResult("w", "s", "f", "x", Totals(), next_agents=figures)
    whole, row = preload_rows({"s": [result]})
    assert (row.agents, row.loaded, row.hits, row.wasted, row.missed) == (3, 2, 1, 1, 2)
    assert row.hit_rate == 0.5
    assert row.coverage == pytest.approx(1 / 3, abs=1e-6)
    assert whole.source == "all sources"
    assert preload_rows({"s": [WorkflowResult("w", "s", "f", "x", Totals())]}) == []
