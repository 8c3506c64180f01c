"""Adds up what the replays of single workflows found, and turns it into a report."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, fields
from importlib.metadata import version
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import numpy as np

from apportion.models.evaluation import calibration_error, calibration_noise, hit_rate_above
from apportion.planner.replay.baselines import BASELINES
from apportion.planner.replay.loading_rows import loading_rows, preload_rows
from apportion.planner.replay.results import (
    ActionFigures,
    CallFigures,
    NextFigures,
    StageFigures,
    Totals,
    WorkflowResult,
    add_pairs,
)
from apportion.planner.report.schema import (
    ActionRow,
    AgainstRow,
    AgainstSource,
    AgentRow,
    BudgetUse,
    CallPoint,
    ConfidenceBin,
    Dearer,
    DiffUse,
    Facts,
    KindRow,
    Ledger,
    Ledgers,
    LeftOutRow,
    LoggedUsage,
    NextAgentPair,
    NextAgentRow,
    Percentiles,
    PlanSummary,
    ReplayReport,
    Simulator,
    Skipped,
    SourceRow,
    Stability,
    StageRow,
    Variance,
    VarianceFigures,
    WorkflowRow,
    WorstWorkflow,
)
from apportion.prices import prices_as_of
from apportion.records import Feature

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apportion.planner.planner import PlanOptions
    from apportion.telemetry.reading import SkipLog

EVERYWHERE = "all sources"
"""Stands for all sources together."""

CALL_RANGES = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377)
"""First calls of the ranges over which the n-th calls of agent runs are averaged."""

STAGE_RANGES = (0, 1, 2, 3, 4, 5, 8, 13, 21, 34, 55, 89)
"""First stages of the ranges over which agent types are added up."""

CONFIDENCE_BINS = 10
"""Bins of forecasts by how sure they were."""

KEPT_PAIRS = 100
"""Pairs of agents whose forecasts a report holds."""

KEPT_LEFT_OUT = 200
"""Pieces that were left out which a report holds; their sums are complete."""

SAME_BILL = 1e-9
"""Relative difference below which two bills are the same: the rest is rounding."""

KEPT_MESSAGES = 200
"""Messages about skipped input that a report holds; the counts are complete."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """How a replay ran: what does not come from the workflows themselves."""

    complete: bool
    seconds: float
    peak_memory_mb: float | None
    settings: dict[str, str | int | float | bool | None]
    limited: bool = False


def build_report(
    results: Iterable[WorkflowResult],
    options: PlanOptions,
    skipped: SkipLog,
    facts: RunFacts,
    *,
    against: Sequence[str] = (),
) -> ReplayReport:
    """Return the report on a number of replayed workflows, which were replayed against the named baselines as well."""
    ordered = sorted(results, key=lambda result: (result.source, result.id))
    by_source: dict[str, list[WorkflowResult]] = defaultdict(list)
    for result in ordered:
        by_source[result.source].append(result)
    return ReplayReport(
        **_figures(_total(ordered)),
        version=version("apportion"),
        complete=facts.complete,
        limited=facts.limited,
        seconds=round(facts.seconds, 3),
        peak_memory_mb=facts.peak_memory_mb,
        settings=facts.settings,
        prices_as_of=prices_as_of(),
        **_unpriced(ordered),
        skipped=Skipped(
            files=skipped.files,
            lines=skipped.lines,
            unused=skipped.unused,
            messages=[str(message) for message in skipped.messages[:KEPT_MESSAGES]],
        ),
        plan=_plan(ordered),
        variance=_variance(ordered),
        budget=_budget(ordered, options),
        dearer=_dearer(ordered),
        worst_workflow=_worst(ordered),
        simulator=_simulator(_total(ordered)),
        per_source=[_source_row(source, group) for source, group in by_source.items()],
        per_workflow=[_workflow_row(result) for result in ordered],
        per_agent=[row for source, group in by_source.items() for row in _agent_rows(source, group)],
        per_call=_call_points(ordered),
        per_kind=_kind_rows(ordered),
        against=[_against_row(name, ordered, options) for name in against],
        next_agent=_next_agent_rows(by_source),
        preload=[] if Feature.PRELOAD in options.off else preload_rows(by_source),
        loading=[] if Feature.LAZY in options.off else loading_rows(by_source),
        per_stage=[row for source, group in by_source.items() for row in _stage_rows(source, group)],
        actions=[row for source, group in by_source.items() for row in _action_rows(source, group)],
        left_out=_left_out_rows(ordered),
        left_out_pieces=sum(result.left_out_pieces for result in ordered),
        next_agent_pairs=_next_agent_pairs(ordered),
        next_agent_bins=_next_agent_bins(ordered),
    )


def _next_agent_rows(by_source: dict[str, list[WorkflowResult]]) -> list[NextAgentRow]:
    parts = {source: [each for result in group for each in result.next_agents] for source, group in by_source.items()}
    whole = [each for part in parts.values() for each in part]
    return [_next_agent_row(source, part) for source, part in [(EVERYWHERE, whole), *parts.items()] if part]


def _next_agent_row(source: str, forecasts: Sequence[NextFigures]) -> NextAgentRow:
    confidences, hits = [each.confidence for each in forecasts], [each.hit for each in forecasts]
    hit_rate, coverage = hit_rate_above([float(each.sure) for each in forecasts], hits, 0.5)
    return NextAgentRow(
        source=source,
        forecasts=len(forecasts),
        coverage=coverage,
        hit_rate=hit_rate,
        calibration_error=calibration_error(confidences, hits),
        calibration_noise=calibration_noise(confidences),
    )


def _next_agent_pairs(results: Sequence[WorkflowResult]) -> list[NextAgentPair]:
    pairs: defaultdict[tuple[str, str], list[NextFigures]] = defaultdict(list)
    for result in results:
        for each in result.next_agents:
            pairs[each.after, each.predicted].append(each)
    often = sorted(pairs.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        NextAgentPair(
            after=after,
            predicted=predicted,
            forecasts=len(part),
            sure=sum(each.sure for each in part),
            confidence=round(mean(each.confidence for each in part), 6),
            hits=sum(each.hit for each in part),
        )
        for (after, predicted), part in often[:KEPT_PAIRS]
    ]


def _next_agent_bins(results: Sequence[WorkflowResult]) -> list[ConfidenceBin]:
    bins: defaultdict[int, list[NextFigures]] = defaultdict(list)
    for result in results:
        for each in result.next_agents:
            bins[min(CONFIDENCE_BINS - 1, int(each.confidence * CONFIDENCE_BINS))].append(each)
    return [
        ConfidenceBin(
            low=nth / CONFIDENCE_BINS,
            high=(nth + 1) / CONFIDENCE_BINS,
            forecasts=len(part),
            confidence=round(mean(each.confidence for each in part), 6),
            hit_rate=round(mean(each.hit for each in part), 6),
        )
        for nth, part in sorted(bins.items())
    ]


def _stage_rows(source: str, results: Sequence[WorkflowResult]) -> list[StageRow]:
    """Add agent types up over ranges of stages; long sessions have hundreds of turns."""
    calls: defaultdict[tuple[str, int], list[CallFigures]] = defaultdict(list)
    stages: defaultdict[tuple[str, int], list[StageFigures]] = defaultdict(list)
    for result in results:
        for call in result.calls:
            calls[call.agent, _stage_range(call.stage)].append(call)
        for stage in result.stages:
            stages[stage.agent, _stage_range(stage.stage)].append(stage)
    rows = []
    for (agent, first), figures in sorted(calls.items()):
        planned = stages[agent, first]
        allocated = [stage.allocated_tokens for stage in planned if stage.allocated_tokens is not None]
        rows.append(
            StageRow(
                source=source,
                agent=agent,
                first_stage=first,
                last_stage=max(call.stage for call in figures),
                calls=len(figures),
                visible_tokens=_ledger(_sum_pairs(call.visible for call in figures)),
                bill_usd=_bill_ledger(figures),
                likely_tokens=sum(stage.likely_tokens for stage in planned) or None,
                allocated_tokens=sum(allocated) or None,
                used_tokens=round(sum(stage.used_tokens for stage in planned)) or None,
            )
        )
    return rows


def _stage_range(stage: int) -> int:
    return max(first for first in STAGE_RANGES if first <= stage)


def _action_rows(source: str, results: Sequence[WorkflowResult]) -> list[ActionRow]:
    sums: dict[tuple[str, str, str], ActionFigures] = {}
    for result in results:
        for key, figures in result.actions.items():
            sums[key] = ActionFigures(*add_pairs(sums[key], figures)) if key in sums else figures
    most_first = sorted(sums.items(), key=lambda item: (-item[1].saved_tokens, item[0]))
    return [
        ActionRow(
            source=source,
            agent=agent,
            action=action,
            reason=reason,
            pieces=figures.pieces,
            tokens=figures.tokens,
            sent_tokens=figures.sent_tokens,
            saved_tokens=figures.saved_tokens,
            fetched=figures.fetched,
        )
        for (agent, action, reason), figures in most_first
    ]


def _left_out_rows(results: Sequence[WorkflowResult]) -> list[LeftOutRow]:
    found = [(result, each) for result in results for each in result.left_out]
    found.sort(key=lambda pair: (-pair[1].saved_tokens, pair[0].id, pair[1].call))
    return [
        LeftOutRow(
            workflow=result.id,
            agent=each.agent,
            call=each.call + 1,
            kind=each.kind,
            tool=each.tool,
            action=each.action,
            reason=each.reason,
            tokens=each.tokens,
            sent_tokens=each.sent_tokens,
            saved_tokens=each.saved_tokens,
            fetched=each.fetched,
            handle=each.handle,
            head=each.head,
        )
        for result, each in found[:KEPT_LEFT_OUT]
    ]


def _total(results: Iterable[WorkflowResult]) -> Totals:
    total = Totals()
    for result in results:
        total += result.totals
    return total


def _figures(totals: Totals) -> dict[str, Any]:
    """Return the fields that every row has."""
    usage = totals.usage
    return {
        "workflows": totals.workflows,
        "priced_workflows": totals.priced_workflows,
        "calls": totals.calls,
        "agents": totals.agents,
        "usage": LoggedUsage(**usage.model_dump(exclude={"estimated"}), estimated=sorted(usage.estimated)),
        "ledgers": Ledgers(
            visible_tokens=_ledger(totals.visible),
            real_prompt_tokens=_ledger(totals.real),
            transmitted_tokens=_ledger(totals.transmitted),
            bill_usd=_ledger(totals.bill, digits=6) if totals.priced_workflows else _UNKNOWN,
            prefix_stability=Stability(
                baseline=_share(totals.kept_prefix[0], totals.previous_prompt[0]),
                planned=_share(totals.kept_prefix[1], totals.previous_prompt[1]),
            ),
        ),
        "facts": Facts(
            visible_share=_share(totals.facts[1], totals.facts[0]),
            recoverable_share=_share(totals.facts[2], totals.facts[0]),
            next_action_visible=_share(totals.support[1], totals.support[0]),
            next_action_after_expansion=_share(totals.support[2], totals.support[0]),
            next_action_recoverable=_share(totals.support[3], totals.support[0]),
            expansions=totals.expansions,
            expansions_per_100_calls=_share(100.0 * totals.expansions, totals.calls),
            extra_calls=totals.extra_calls,
        ),
        "diff": _diff(totals),
    }


def _diff(totals: Totals) -> DiffUse:
    diffs = totals.diffs
    counts = {column.name: getattr(diffs, column.name) for column in fields(diffs)}
    reasons = {name: dict(sorted(counts[name].items())) for name in ("fallbacks", "handoff_fallbacks")}
    share = _share(diffs.transport_only_tokens, totals.transmitted[0])
    return DiffUse(**counts | reasons, transport_only_share=share)


_UNKNOWN = Ledger(baseline=None, planned=None, saved_share=None)


def _ledger(pair: tuple[float, float], *, digits: int = 0) -> Ledger:
    baseline, planned = (round(value, digits) for value in pair)
    saved = _share(baseline - planned, baseline)
    return Ledger(baseline=baseline, planned=planned, saved_share=saved)


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 6) if whole else None


def _against_row(name: str, results: Sequence[WorkflowResult], options: PlanOptions) -> AgainstRow:
    others = [result.against[name] for result in results if name in result.against]
    by_source: dict[str, list[WorkflowResult]] = defaultdict(list)
    for other in others:
        by_source[other.source].append(other)
    baseline = BASELINES[name]
    return AgainstRow(
        name=name,
        summary=baseline.summary,
        note=baseline.note(options),
        budget=_budget(others, options),
        **_compared(others),
        per_source=[AgainstSource(source=source, **_compared(group)) for source, group in by_source.items()],
    )


def _compared(results: Sequence[WorkflowResult]) -> dict[str, Any]:
    """Return the fields in which a baseline is compared."""
    figures = _figures(_total(results))
    return {
        "ledgers": figures["ledgers"],
        "facts": figures["facts"],
        "dearer": _dearer(results),
        "worst_workflow": _worst(results),
    }


def _source_row(source: str, results: Sequence[WorkflowResult]) -> SourceRow:
    total = _total(results)
    return SourceRow(
        **_figures(total),
        source=source,
        framework=", ".join(sorted({result.framework for result in results})),
        **_unpriced(results),
        dearer=_dearer(results),
        worst_workflow=_worst(results),
        simulator=_simulator(total),
        plan=_plan(results),
        variance=_variance(results),
    )


def _unpriced(results: Sequence[WorkflowResult]) -> dict[str, Any]:
    """Return which models have no known price, and how many workflows have calls whose log names no model."""
    models = {model for result in results for model in result.unpriced_models}
    return {
        "unpriced_models": sorted(model for model in models if model is not None),
        "unnamed_model_workflows": sum(None in result.unpriced_models for result in results),
    }


def _workflow_row(result: WorkflowResult) -> WorkflowRow:
    return WorkflowRow(
        **_figures(result.totals),
        id=result.id,
        source=result.source,
        framework=result.framework,
        degraded=sorted(result.degraded),
    )


def _plan(results: Sequence[WorkflowResult]) -> PlanSummary:
    plans = [plan for result in results for plan in result.plans]
    return PlanSummary(
        count=len(plans),
        ms=_percentiles([plan.ms for plan in plans]),
        gap=_percentiles([plan.gap for plan in plans if plan.gap is not None]),
        status=dict(sorted(Counter(plan.status for plan in plans).items())),
        degraded=dict(sorted(Counter(reason for result in results for reason in result.degraded).items())),
    )


def _percentiles(values: Sequence[float]) -> Percentiles:
    if not values:
        return Percentiles(p50=None, p95=None)
    p50, p95 = np.percentile(values, [50, 95])
    return Percentiles(p50=round(float(p50), 6), p95=round(float(p95), 6))


def _variance(results: Sequence[WorkflowResult]) -> Variance:
    stages = [stage for result in results for stage in result.stages if stage.used_tokens > 0]
    of_agent: defaultdict[str, list[StageFigures]] = defaultdict(list)
    for stage in stages:
        of_agent[stage.agent].append(stage)
    often = sorted(of_agent, key=lambda agent: (-len(of_agent[agent]), agent))
    return Variance(
        **_variance_of(stages).model_dump(), by_agent={agent: _variance_of(of_agent[agent]) for agent in often}
    )


def _variance_of(stages: Sequence[StageFigures]) -> VarianceFigures:
    if not stages:
        return VarianceFigures(count=0, coverage=None, width=None, bias=None)
    allocated = [
        (stage.allocated_tokens - stage.used_tokens) / stage.used_tokens
        for stage in stages
        if stage.allocated_tokens is not None
    ]
    budgeted = [(stage.allocated_tokens, stage.used_tokens) for stage in stages if stage.allocated_tokens is not None]
    used = sum(stage.used_tokens for stage in stages)
    return VarianceFigures(
        count=len(stages),
        coverage=_share(sum(stage.used_tokens <= stage.likely_tokens for stage in stages), len(stages)),
        width=round(median(stage.likely_tokens / stage.used_tokens for stage in stages), 4),
        bias=round(median(allocated), 4) if allocated else None,
        weighted_width=_share(sum(stage.likely_tokens for stage in stages), used),
        weighted_bias=_share(sum(one - other for one, other in budgeted), sum(other for _, other in budgeted)),
    )


def _budget(results: Sequence[WorkflowResult], options: PlanOptions) -> BudgetUse | None:
    budget = options.budget
    if budget.max_tokens is None and budget.max_usd is None:
        return None
    return BudgetUse(
        max_tokens=budget.max_tokens,
        max_usd=budget.max_usd,
        workflows_over_baseline=sum(result.calls_beyond[0] > 0 for result in results),
        workflows_over_planned=sum(result.calls_beyond[1] > 0 for result in results),
        calls_beyond_baseline=sum(result.calls_beyond[0] for result in results),
        calls_beyond_planned=sum(result.calls_beyond[1] for result in results),
    )


def _bill_saved(result: WorkflowResult) -> float | None:
    """Return the saved share of the bill, or `None` where it is unknown; differences by rounding are none."""
    baseline, planned = result.totals.bill
    if not result.totals.priced_workflows or baseline == 0:
        return None
    saved = 1.0 - planned / baseline
    return 0.0 if abs(saved) <= SAME_BILL else saved


def _dearer(results: Sequence[WorkflowResult]) -> Dearer:
    dearer = sum((_bill_saved(result) or 0.0) < 0 for result in results)
    priced = sum(result.totals.priced_workflows for result in results)
    return Dearer(workflows=dearer, of=priced, share=_share(dearer, priced))


def _worst(results: Sequence[WorkflowResult]) -> WorstWorkflow | None:
    saved = [(share, result.id) for result in results if (share := _bill_saved(result)) is not None]
    if not saved:
        return None
    share, workflow = min(saved)
    return WorstWorkflow(id=workflow, bill_saved_share=round(share, 6))


def _simulator(totals: Totals) -> Simulator:
    known = totals.bill_of_logged[1] > 0
    return Simulator(
        read_share_simulated=_share(*totals.read_simulated),
        read_share_logged=_share(*totals.read_logged),
        bill_usd_simulated=round(totals.bill_of_logged[0], 6) if known else None,
        bill_usd_logged=round(totals.bill_of_logged[1], 6) if known else None,
    )


def _agent_rows(source: str, results: Sequence[WorkflowResult]) -> list[AgentRow]:
    runs: Counter[str] = Counter()
    calls: dict[str, list[CallFigures]] = defaultdict(list)
    used: Counter[str] = Counter()
    allocated: Counter[str] = Counter()
    likely: Counter[str] = Counter()
    for result in results:
        runs.update(result.runs_by_agent)
        for call in result.calls:
            calls[call.agent].append(call)
        for stage in result.stages:
            used[stage.agent] += round(stage.used_tokens)
            allocated[stage.agent] += stage.allocated_tokens or 0
            likely[stage.agent] += stage.likely_tokens
    return [
        AgentRow(
            source=source,
            agent=agent,
            runs=runs[agent],
            calls=len(figures),
            visible_tokens=_ledger(_sum_pairs(call.visible for call in figures)),
            bill_usd=_bill_ledger(figures),
            allocated_tokens=allocated[agent] or None,
            used_tokens=used[agent] or None,
            likely_tokens=likely[agent] or None,
        )
        for agent, figures in sorted(calls.items())
    ]


def _bill_ledger(figures: Sequence[CallFigures]) -> Ledger:
    if any(call.bill is None for call in figures):
        return _UNKNOWN
    return _ledger(_sum_pairs(call.bill for call in figures if call.bill is not None), digits=6)


def _sum_pairs(pairs: Iterable[tuple[float, float]]) -> tuple[float, float]:
    total = (0.0, 0.0)
    for pair in pairs:
        total = add_pairs(total, pair)
    return total


def _call_points(results: Sequence[WorkflowResult]) -> list[CallPoint]:
    """Average the n-th calls of all runs over ranges of n."""
    buckets: dict[int, list[CallFigures]] = defaultdict(list)
    for result in results:
        for call in result.calls:
            buckets[max(first for first in CALL_RANGES if first <= call.call + 1)].append(call)
    points = []
    for first, figures in sorted(buckets.items()):
        visible = _sum_pairs(call.visible for call in figures)
        bills = [call.bill for call in figures if call.bill is not None]
        bill = _sum_pairs(bills)
        points.append(
            CallPoint(
                first_call=first,
                last_call=max(call.call + 1 for call in figures),
                calls=len(figures),
                visible_tokens_baseline=round(visible[0] / len(figures), 1),
                visible_tokens_planned=round(visible[1] / len(figures), 1),
                bill_usd_baseline=bill[0] / len(bills) if bills else None,
                bill_usd_planned=bill[1] / len(bills) if bills else None,
            )
        )
    return points


def _kind_rows(results: Sequence[WorkflowResult]) -> list[KindRow]:
    kinds: dict[str, tuple[int, int]] = {}
    for result in results:
        for kind, pair in result.kinds.items():
            kinds[kind] = add_pairs(kinds.get(kind, (0, 0)), pair)
    ordered = sorted(kinds.items(), key=lambda item: -item[1][0])
    return [KindRow(kind=kind, tokens_baseline=pair[0], tokens_planned=pair[1]) for kind, pair in ordered]
