"""Measure which share of system prompt and tool schemas can be left out, and how many calls then miss a tool.

    python benchmarks/overhead_share.py PATHS... [--quick] [--json FILE]

PATHS are logs that any importer reads. Workflows are held out in five folds: what a run needs is forecast by what the
other folds have taught, with the task's text. `basis` says where the sizes of tools come from: `logged` are true
schemas, `measured` those that Claude Code 2.1.42 sends, `assumed` 40 % of the overhead, spread evenly over the tools
that are known. `forms` are `brief` (a tool may stand with brief descriptions, and can be called), or `lines` (whole, or
one line). `head` is system prompt and tool schemas, `overhead` everything that no text of the log accounts for. `miss`
is the share of calls that needed a tool that was not loaded. `cost` is what of the overhead's cost is saved, `bill` of
the whole logged bill at list prices; both deduct the extra calls. Nothing was run again: how well models work with
brief descriptions is not measured here.

The last rows vary the limit of misses, without brief forms: what is saved at which rate of missing tools.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from _harness import Mark, arguments, report
from apportion.models.tool_needs import ToolNeeds, runs_of
from apportion.planner.loading import MAX_MISS_RATE
from apportion.planner.replay.billing import tariff
from apportion.planner.replay.loading import RunLoading, estimate_loading, run_loadings
from apportion.prices import lookup
from apportion.telemetry.importers import SkipLog, read_logs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apportion.planner.replay.loading import LoadingEstimate
    from apportion.telemetry.events import WorkflowLog

LIMITS = (0.002, 0.005, 0.01, 0.02, 0.05)
ENOUGH = 1_000
"""A source with fewer calls cannot be judged by the marks: one miss in a hundred is ten of them."""

QUICK_WORKFLOWS = 40


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__ or "", paths=True, quick=f"only the first {QUICK_WORKFLOWS} workflows")
    skipped = SkipLog()
    runs: list[RunLoading] = []
    texts: dict[int, str | None] = {}
    bills: dict[str, float | None] = {}
    for log in islice(read_logs(options.paths, skipped), QUICK_WORKFLOWS if options.quick else None):
        task = {(run.agent, run.calls, tuple(run.used.items())): run.text for run in runs_of(log)}
        for each in run_loadings(log):
            texts[len(runs)] = task.get((each.run.agent, each.run.calls, tuple(each.run.used.items())))
            runs.append(each)
        paid, before = _bill(log), bills.get(log.source, 0.0)
        bills[log.source] = None if paid is None or before is None else before + paid
    rows = [_row(each, MAX_MISS_RATE, bills) for each in estimate_loading(runs, text=texts)]
    marks = [mark for row in rows for mark in _marks(row)]
    rows += [
        _row(each, limit, bills)
        for limit in LIMITS
        for each in estimate_loading(runs, max_miss_rate=limit, text=texts)
        if not each.brief and each.calls >= ENOUGH
    ]
    marks += _calibration(runs, texts)
    read = f"{skipped.files} files and {skipped.lines} lines skipped"
    few = f"marks need {ENOUGH:,} calls of a source whose sizes of tools are known"
    report("overhead_share", rows, marks, packages=("scikit-learn",), file=options.json, notes=(read, few, options.cut))


def _row(each: LoadingEstimate, limit: float, bills: dict[str, float | None]) -> dict[str, Any]:
    saved, bill = each.tool_tokens - each.sent_tokens, bills.get(each.source)
    return {
        "source": each.source,
        "basis": each.basis,
        "forms": "brief" if each.brief else "lines",
        "limit": limit,
        "runs": each.runs,
        "calls": each.calls,
        "overhead": round(each.overhead_tokens),
        "tools": round(each.tool_tokens),
        "sent": round(each.sent_tokens),
        "of_tools": saved / max(1.0, each.tool_tokens),
        "of_head": saved / each.head_tokens if each.head_tokens else "-",
        "of_overhead": saved / max(1.0, each.overhead_tokens),
        "miss": each.missed_calls / max(1, each.calls),
        "cost": each.saved_usd / each.overhead_usd if each.overhead_usd else "-",
        "bill": each.saved_usd / bill if bill else "-",
    }


def _marks(row: dict[str, Any]) -> Iterator[Mark]:
    if row["calls"] < ENOUGH or row["of_head"] == "-":
        return
    title = f"{row['source']}, {row['forms']}"
    yield Mark(f"{title}: system prompt and schemas saved", row["of_head"], "", ">= 0.5", holds=row["of_head"] >= 0.5)
    yield Mark(f"{title}: calls missing a tool", row["miss"], "", "<= 0.01", holds=row["miss"] <= 0.01)


def _calibration(runs: Sequence[RunLoading], texts: dict[int, str | None]) -> Iterator[Mark]:
    """Yield how well needs are calibrated on held-out workflows."""
    known = [each.run._replace(text=texts.get(nth)) for nth, each in enumerate(runs)]
    if not any(run.used for run in known):
        return
    for row in ToolNeeds().fit_runs(known).metrics():
        if row["forecasts"] >= ENOUGH:
            error = row["calibration_error"]
            yield Mark(f"{row['source']}: calibration error of needs", error, "", "<= 0.05", holds=error <= 0.05)


def _bill(log: WorkflowLog) -> float | None:
    """Return what the logged usage of a workflow costs at list prices, or `None` where a price or column is unknown."""
    total = 0.0
    model: str | None = None
    for event in log.events:
        model = event.model or model
        if event.usage is None:
            continue
        found = tariff(lookup(model) if model else None)
        prompt = event.usage.prompt_tokens
        if not found.priced or prompt is None:
            return None
        rates, used = found.at(prompt), event.usage
        written = (used.cache_write_5m or 0) + (used.cache_write_1h or 0)
        total += (used.input_uncached or 0) * rates.input + (used.cache_read or 0) * rates.prices.read
        total += written * rates.prices.write + (used.output or 0) * rates.prices.output
    return total


if __name__ == "__main__":
    main()
