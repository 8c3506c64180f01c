from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from apportion.models.tool_needs import RunTools
from apportion.planner.masking import TokenPrices
from apportion.planner.planner import PlanOptions
from apportion.planner.replay.aggregate import RunFacts, _next_agent_rows, build_report
from apportion.planner.replay.loading import RunLoading
from apportion.planner.replay.results import (
    ActionFigures,
    CallFigures,
    NextFigures,
    StageFigures,
    Totals,
    WorkflowResult,
)
from apportion.prices import prices_as_of
from apportion.records import Feature
from apportion.telemetry.reading import SkipLog

if TYPE_CHECKING:
    from apportion.planner.report.schema import ReplayReport


def result(
    name: str, *, source: str = "a", bill: tuple[float, float] | None, model: str | None = "x"
) -> WorkflowResult:
    totals = Totals(workflows=1, calls=1, agents=1, bill=bill or (0.0, 0.0), priced_workflows=int(bill is not None))
    return WorkflowResult(name, source, "test", name, totals, unpriced_models=set() if bill is not None else {model})


def report(*results: WorkflowResult, off: frozenset[Feature] = frozenset()) -> ReplayReport:
    facts = RunFacts(complete=True, seconds=0.0, peak_memory_mb=None, settings={})
    return build_report(results, PlanOptions(off=off), SkipLog(), facts)


def test_models_without_a_price_are_named_once_for_all_and_per_source() -> None:
    found = report(
        result("1", bill=(1.0, 0.5)),
        result("2", bill=None, model="zeta"),
        result("3", source="b", bill=None, model="alpha"),
        result("4", source="b", bill=None, model="alpha"),
        result("5", source="b", bill=None, model=None),
    )
    assert (found.workflows, found.priced_workflows) == (5, 1)
    assert found.unpriced_models == ["alpha", "zeta"]
    assert found.unnamed_model_workflows == 1
    assert [row.priced_workflows for row in found.per_source] == [1, 0]
    assert [row.unpriced_models for row in found.per_source] == [["zeta"], ["alpha"]]
    assert [row.unnamed_model_workflows for row in found.per_source] == [0, 1]
    assert [row.priced_workflows for row in found.per_workflow] == [1, 0, 0, 0, 0]
    assert found.prices_as_of == prices_as_of()


def test_what_is_switched_off_is_not_estimated() -> None:
    tools = {"often": (1_000, 400, 10), "never": (1_000, 400, 10)}
    prices = TokenPrices(read=0.1, write=1.25, output=5.0)
    both = [result(name, bill=(1.0, 0.5)) for name in ("1", "2")]
    for one in both:
        used = RunTools(one.id, "a", "main", 50, {"often": 1})
        one.loadings = [RunLoading(used, "f", True, 5_000, 20_000.0, prices, tools)]
        one.next_agents = [NextFigures(confidence=0.9, hit=True, sure=True)]
    for off in (Feature.LAZY, Feature.PRELOAD, Feature.STRUCTURE):
        found = report(*both, off=frozenset({off}))
        assert (bool(found.loading), bool(found.preload)) == (off is not Feature.LAZY, off is not Feature.PRELOAD)


def test_the_share_of_dearer_workflows_is_of_those_with_a_price() -> None:
    found = report(
        result("dearer", bill=(1.0, 1.5)),
        result("cheaper", bill=(1.0, 0.5)),
        result("free of charge", bill=(0.0, 0.0)),
        result("without a price", bill=None),
    )
    assert found.dearer.workflows == 1
    assert found.dearer.of == found.priced_workflows == 3
    assert found.dearer.share == pytest.approx(1 / 3, abs=1e-6)


def test_without_any_price_no_share_is_claimed() -> None:
    found = report(result("1", bill=None))
    assert (found.dearer.of, found.dearer.share, found.worst_workflow) == (0, None, None)
    assert found.ledgers.bill_usd.baseline is None


def test_planned_against_used_is_told_for_each_agent_type() -> None:
    one, two = result("1", bill=None), result("2", bill=None)
    one.stages = [StageFigures("main", 100, 80, 50.0), StageFigures("reviewer", 100, None, 400.0)]
    two.stages = [StageFigures("main", 100, 80, 160.0), StageFigures("main", 100, 80, 0.0)]
    variance = report(one, two).variance
    assert variance.count == 3
    assert variance.coverage == pytest.approx(1 / 3, abs=1e-6)
    assert list(variance.by_agent) == ["main", "reviewer"]
    main, reviewer = variance.by_agent.values()
    assert (main.count, main.coverage) == (2, 0.5)
    assert main.weighted_bias == pytest.approx((160 - 210) / 210, abs=1e-6)
    assert (reviewer.count, reviewer.coverage, reviewer.width, reviewer.bias) == (1, 0.0, 0.25, None)


def test_forecasts_of_the_next_agent_are_added_up_for_all_and_for_each_source() -> None:
    sure, unsure = NextFigures(0.9, hit=True, sure=True), NextFigures(0.5, hit=False, sure=False)
    rows = _next_agent_rows(
        {
            "a": [WorkflowResult("1", "a", "t", "1", Totals(), next_agents=[sure, unsure])],
            "b": [WorkflowResult("2", "b", "t", "2", Totals(), next_agents=[unsure])],
            "none": [WorkflowResult("3", "none", "t", "3", Totals())],
        }
    )
    assert [(row.source, row.forecasts, row.hit_rate) for row in rows] == [
        ("all sources", 3, 1.0),
        ("a", 2, 1.0),
        ("b", 1, None),
    ]
    assert [round(row.coverage, 3) for row in rows] == [0.333, 0.5, 0.0]
    assert rows[2].calibration_error == pytest.approx(0.5)
    assert _next_agent_rows({"a": []}) == []


def test_agents_are_added_up_over_ranges_of_stages() -> None:
    one = result("1", bill=(1.0, 0.5))
    one.calls = [CallFigures("main", 0, (100, 60), (0.4, 0.2), stage) for stage in (0, 1, 5, 7)]
    one.calls.append(CallFigures("sub", 0, (10, 10), None, 1))
    one.stages = [StageFigures("main", 50, 40, 30.0, 5), StageFigures("main", 5, None, 3.0, 7)]
    rows = report(one).per_stage
    assert [(row.agent, row.first_stage, row.last_stage, row.calls) for row in rows] == [
        ("main", 0, 0, 1),
        ("main", 1, 1, 1),
        ("main", 5, 7, 2),
        ("sub", 1, 1, 1),
    ]
    late = rows[2]
    assert (late.likely_tokens, late.allocated_tokens, late.used_tokens) == (55, 40, 33)
    assert (late.visible_tokens.baseline, late.visible_tokens.saved_share) == (200, 0.4)
    assert rows[3].bill_usd.baseline is None
    assert rows[0].allocated_tokens is None


def test_actions_of_several_workflows_are_added_up_and_stay_apart_by_source() -> None:
    one, two, other = result("1", bill=None), result("2", bill=None), result("3", source="b", bill=None)
    for each in (one, two, other):
        each.actions = {("main", "mask", "why"): ActionFigures(2, 100, 10, 900, 1)}
    rows = report(one, two, other).actions
    assert [(row.source, row.pieces, row.tokens, row.sent_tokens, row.saved_tokens, row.fetched) for row in rows] == [
        ("a", 4, 200, 20, 1800, 2),
        ("b", 2, 100, 10, 900, 1),
    ]


def test_forecasts_of_the_next_agent_are_told_by_agents_and_by_how_sure_they_were() -> None:
    one = result("1", bill=None)
    one.next_agents = [
        NextFigures(0.92, hit=True, sure=True, after="main", predicted="Explore"),
        NextFigures(1.0, hit=False, sure=True, after="main", predicted="Explore"),
        NextFigures(0.31, hit=False, sure=False, after="", predicted="main"),
    ]
    found = report(one)
    assert [(row.after, row.predicted, row.forecasts, row.sure, row.hits) for row in found.next_agent_pairs] == [
        ("main", "Explore", 2, 2, 1),
        ("", "main", 1, 0, 0),
    ]
    assert found.next_agent_pairs[0].confidence == pytest.approx(0.96)
    assert [(row.low, row.high, row.forecasts, row.hit_rate) for row in found.next_agent_bins] == [
        (0.3, 0.4, 1, 0.0),
        (0.9, 1.0, 2, 0.5),
    ]
