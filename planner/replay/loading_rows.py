"""The report's rows on loading: what was loaded ahead, and what would stand in prompts instead of all tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion.planner.replay.loading import estimate_loading
from apportion.planner.report.schema import LoadingRow, PreloadRow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from apportion.planner.replay.loading import LoadingEstimate
    from apportion.planner.replay.results import NextFigures, WorkflowResult

EVERYWHERE = "all sources"


def preload_rows(by_source: Mapping[str, Sequence[WorkflowResult]]) -> list[PreloadRow]:
    """Return what loading ahead would have come to, in all sources and in each; nothing without trained models."""
    parts = {source: [each for result in group for each in result.next_agents] for source, group in by_source.items()}
    whole = [each for part in parts.values() for each in part]
    return [_preload_row(source, part) for source, part in [(EVERYWHERE, whole), *parts.items()] if part]


def loading_rows(by_source: Mapping[str, Sequence[WorkflowResult]]) -> list[LoadingRow]:
    """Return the estimate for each source."""
    runs = [each for group in by_source.values() for result in group for each in result.loadings]
    bills = {source: _bill(group) for source, group in by_source.items()}
    return [_loading_row(each, bills.get(each.source)) for each in estimate_loading(runs)]


def _preload_row(source: str, forecasts: Sequence[NextFigures]) -> PreloadRow:
    loaded = [each for each in forecasts if each.sure and each.named]
    agents = sum(each.came for each in forecasts)
    hits = sum(each.hit for each in loaded)
    return PreloadRow(
        source=source,
        agents=agents,
        loaded=len(loaded),
        hits=hits,
        wasted=len(loaded) - hits,
        missed=agents - hits,
        hit_rate=_share(hits, len(loaded)),
        coverage=_share(hits, agents),
    )


def _loading_row(found: LoadingEstimate, bill: float | None) -> LoadingRow:
    saved = found.tool_tokens - found.sent_tokens
    return LoadingRow(
        source=found.source,
        basis=found.basis,
        brief=found.brief,
        estimate=found.basis != "logged",
        runs=found.runs,
        calls=found.calls,
        overhead_tokens=round(found.overhead_tokens, 1),
        tool_tokens=round(found.tool_tokens, 1),
        sent_tokens=round(found.sent_tokens, 1),
        saved_share_of_tools=_share(saved, found.tool_tokens),
        saved_share_of_head=None if found.head_tokens is None else _share(saved, found.head_tokens),
        saved_share_of_overhead=_share(saved, found.overhead_tokens),
        missed_calls_share=_share(found.missed_calls, found.calls),
        overhead_cost_saved_share=_share(found.saved_usd, found.overhead_usd),
        bill_saved_share=None if bill is None else _share(found.saved_usd, bill),
    )


def _bill(results: Sequence[WorkflowResult]) -> float | None:
    """Return the baseline bill, or `None` where that of a workflow is not known."""
    if any(not result.totals.priced_workflows for result in results):
        return None
    return sum(result.totals.bill[0] for result in results)


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 6) if whole else None
