"""The charts of the HTML report: which figures they show, drawn and as a table."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from apportion.planner.report import figures
from apportion.planner.report.drawing import Bar, Unit, draw_bars, draw_histogram, draw_lines, draw_marks
from apportion.planner.report.schema import Ledger
from apportion.planner.report.wording import is_changed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apportion.planner.report.schema import ReplayReport, StageRow, WorkflowRow

AGENTS = 20
"""How many agents are drawn."""

WORKFLOWS = 50
"""How many workflows are drawn."""

_LABEL_CHARS = 28
_MAX_BINS = 24

_Named = tuple[str, dict[str, str], Ledger]
"""A label, the full names behind it, and a ledger."""

_TOKENS = Unit("Tokens", "visible tokens", "tokens", figures.tokens, "visible_tokens")
_USD = Unit("Bill", "bill", "US dollars", figures.usd, "bill_usd")


class Chart(NamedTuple):
    """One chart: what it shows, how it is drawn, and the same figures as a table.

    `spec` is `None` where the report holds nothing to draw; `numeric_from` is the first column of figures.
    """

    id: str
    title: str
    caption: str
    spec: dict[str, Any] | None
    headers: list[str]
    rows: list[list[str]]
    numeric_from: int = 1


def all_charts(report: ReplayReport) -> list[Chart]:
    """Return all charts of a report in the order in which they are shown.

    Raises:
        ImportError: The extra `report` is not installed.
    """
    return [
        _kinds(report),
        _spread(report),
        _per_call(report, _TOKENS),
        _per_call(report, _USD),
        _agents(report, _TOKENS),
        _agents(report, _USD),
        _stages(report, _TOKENS),
        _stages(report, _USD),
        _workflows(report, _TOKENS),
        _workflows(report, _USD),
    ]


def forecast_chart(report: ReplayReport) -> Chart:
    """Return the chart that sets what was used beside what was forecast and allocated.

    Raises:
        ImportError: The extra `report` is not installed.
    """
    used = sorted((row for row in report.per_agent if row.used_tokens), key=lambda row: -(row.used_tokens or 0))
    shown = used[:AGENTS]
    several = len({row.source for row in report.per_agent}) > 1
    labels = _labels([f"{row.agent} ({row.source})" if several else row.agent for row in shown])
    values: list[dict[str, Any]] = [
        {
            "label": label,
            "used": row.used_tokens,
            "forecast": row.likely_tokens,
            "allocated": row.allocated_tokens,
            "Agent": figures.plain(row.agent),
            "Source": figures.plain(row.source),
            "Used": figures.tokens(row.used_tokens),
            "Forecast": figures.tokens(row.likely_tokens),
            "Allocated": figures.tokens(row.allocated_tokens),
        }
        for label, row in zip(labels, shown, strict=True)
    ]
    columns = ["Agent", "Source", "Used", "Forecast", "Allocated"]
    which = f"The {len(shown)} agents that used most of {len(used):,}" if len(used) > len(shown) else "All agents"
    return Chart(
        "forecast",
        "Forecast, allocated and used",
        f"{which}, in total tokens added up over stages.",
        draw_marks(values) if values else None,
        columns,
        [[value[column] for column in columns] for value in values],
        numeric_from=2,
    )


def _stages(report: ReplayReport, unit: Unit) -> Chart:
    """Draw the stages one by one, all agents with a known figure together."""
    parts: dict[tuple[int, int], list[StageRow]] = {}
    lasts = {row.first_stage: 0 for row in report.per_stage}
    for row in report.per_stage:
        lasts[row.first_stage] = max(lasts[row.first_stage], row.last_stage)
    for row in report.per_stage:
        parts.setdefault((row.first_stage, lasts[row.first_stage]), []).append(row)
    bars = []
    for (first, last), rows in sorted(parts.items()):
        known: list[Ledger] = [each for row in rows if (each := getattr(row, unit.field)).baseline is not None]
        if not known:
            continue
        baseline, planned = (sum(getattr(each, side) or 0.0 for each in known) for side in ("baseline", "planned"))
        total = Ledger(baseline=baseline, planned=planned, saved_share=1 - planned / baseline if baseline else None)
        full = {"Stage": _range(first, last), "Calls": f"{sum(row.calls for row in rows):,}"}
        bars.append(Bar(_range(first, last), full, baseline, planned, _change(total)))
    return Chart(
        f"stage-{unit.field}",
        f"{unit.title} per stage",
        f"Turns of the user, by {unit.name} of all agents with a known figure; 0 is what came before the first turn.",
        draw_bars(bars, unit, f"{unit.title} per stage: {unit.name}, baseline and planned"),
        ["Stage", "Calls", "Baseline", "Planned", "Saved"],
        [[*bar.full.values(), unit.write(bar.baseline), unit.write(bar.planned), bar.note] for bar in bars],
    )


def _kinds(report: ReplayReport) -> Chart:
    rows = sorted(report.per_kind, key=lambda row: row.tokens_baseline, reverse=True)
    bars = [
        Bar(
            figures.plain(row.kind).replace("_", " "),
            {"Kind": figures.plain(row.kind)},
            row.tokens_baseline,
            row.tokens_planned,
            f"{figures.tokens(row.tokens_baseline)} → {figures.tokens(row.tokens_planned)}",
        )
        for row in rows
    ]
    return Chart(
        "kinds",
        "Where tokens went",
        "Tokens in the prompts by kind of content, added up over all calls.",
        draw_bars(bars, _TOKENS, "Where prompt tokens went, by kind of content"),
        ["Kind", "Baseline", "Planned"],
        [[bar.full["Kind"], figures.tokens(bar.baseline), figures.tokens(bar.planned)] for bar in bars],
    )


def _spread(report: ReplayReport) -> Chart:
    shares = [
        row.ledgers.bill_usd.saved_share for row in report.per_workflow if row.ledgers.bill_usd.saved_share is not None
    ]
    bins = [(_bin_label(low, high), low < 0, amount) for low, high, amount in _bins([share * 100 for share in shares])]
    return Chart(
        "spread",
        "How the saving is spread",
        "Workflows by the share of their bill that planning saves; below zero, planning made them dearer.",
        draw_histogram(bins) if bins else None,
        ["Bill saved", "Workflows"],
        [[label, f"{amount:,}"] for label, _, amount in bins],
    )


def _per_call(report: ReplayReport, unit: Unit) -> Chart:
    points = [
        (point, baseline, planned)
        for point in report.per_call
        if (baseline := getattr(point, f"{unit.field}_baseline")) is not None
        and (planned := getattr(point, f"{unit.field}_planned")) is not None
    ]
    lines = [
        {
            "call": (point.first_call + point.last_call) / 2,
            "value": value,
            "series": series,
            "Calls": _range(point.first_call, point.last_call),
            "Mean of": figures.count(point.calls, "call"),
            "Baseline": unit.write(baseline),
            "Planned": unit.write(planned),
        }
        for point, baseline, planned in points
        for series, value in (("Baseline", baseline), ("Planned", planned))
    ]
    return Chart(
        f"call-{unit.field}",
        f"{unit.title} per call",
        f"Mean {unit.name} of the n-th call in an agent run. Few runs are long: the right end rests on few calls.",
        draw_lines(lines, unit) if lines else None,
        ["Call of the run", "Calls", "Baseline", "Planned"],
        [
            [
                _range(point.first_call, point.last_call),
                f"{point.calls:,}",
                unit.write(baseline),
                unit.write(planned),
            ]
            for point, baseline, planned in points
        ],
    )


def _agents(report: ReplayReport, unit: Unit) -> Chart:
    several = len({row.source for row in report.per_agent}) > 1
    named = [
        (
            f"{row.agent} ({row.source})" if several else row.agent,
            {"Agent": row.agent, "Source": row.source, "Runs": f"{row.runs:,}", "Calls": f"{row.calls:,}"},
            getattr(row, unit.field),
        )
        for row in report.per_agent
    ]
    return _ranking(f"agent-{unit.field}", f"{unit.title} per agent", "agents", named, AGENTS, unit)


def _workflows(report: ReplayReport, unit: Unit) -> Chart:
    same = [row for row in report.per_workflow if not is_changed(row) and unit.ledger(row).baseline is not None]
    folded = same if len(same) > 1 else []
    left_out = {row.id for row in folded}
    named = [
        (row.id, {"Workflow": row.id, "Source": row.source, "Calls": f"{row.calls:,}"}, unit.ledger(row))
        for row in report.per_workflow
        if row.id not in left_out
    ]
    chart_id, title = f"workflow-{unit.field}", f"{unit.title} per workflow"
    return _ranking(chart_id, title, "workflows", named, WORKFLOWS, unit, rest=_folded(folded, unit))


def _folded(rows: Sequence[WorkflowRow], unit: Unit) -> list[_Named]:
    """Return one entry for workflows that planning left as they were, or none for no workflows."""
    if not rows:
        return []
    total = sum(unit.ledger(row).baseline or 0.0 for row in rows)
    label = f"{figures.count(len(rows), 'workflow')} unchanged"
    sources = ", ".join(sorted({row.source for row in rows}))
    full = {"Workflow": label, "Source": sources, "Calls": f"{sum(row.calls for row in rows):,}"}
    return [(label, full, Ledger(baseline=total, planned=total, saved_share=0.0 if total else None))]


def _ranking(
    chart_id: str,
    title: str,
    noun: str,
    named: Iterable[_Named],
    limit: int,
    unit: Unit,
    rest: Sequence[_Named] = (),
) -> Chart:
    known = [item for item in named if item[2].baseline is not None and item[2].planned is not None]
    largest = [*sorted(known, key=lambda item: item[2].baseline or 0.0, reverse=True)[:limit], *rest]
    bars = [
        Bar(
            label,
            {name: figures.plain(value) for name, value in full.items()},
            ledger.baseline or 0.0,
            ledger.planned or 0.0,
            _change(ledger),
        )
        for label, (_, full, ledger) in zip(_labels([item[0] for item in largest]), largest, strict=True)
    ]
    drawn = len(bars) - len(rest)
    which = f"The {drawn} largest of {len(known):,}" if len(known) > drawn else f"All {drawn}"
    which += " changed" if rest else ""
    last = " The last row holds all that planning left as they were." if rest else ""
    columns = list(bars[0].full) if bars else [noun.title()]
    return Chart(
        chart_id,
        title,
        f"{which} {noun} with a known figure, by {unit.name}; beside each bar, what planning saves.{last}",
        draw_bars(bars, unit, f"{title}: {unit.name}, baseline and planned"),
        [*columns, "Baseline", "Planned", "Saved"],
        [
            [
                *bar.full.values(),
                unit.write(bar.baseline),
                unit.write(bar.planned),
                figures.percent(item[2].saved_share),
            ]
            for bar, item in zip(bars, largest, strict=True)
        ],
        numeric_from=2,
    )


def _change(ledger: Ledger) -> str:
    if ledger.saved_share is None:
        return ""
    if abs(ledger.saved_share) < figures.SAME:
        return "same"
    return f"{figures.percent(abs(ledger.saved_share))} {'less' if ledger.saved_share > 0 else 'MORE'}"


def _labels(names: Sequence[str]) -> list[str]:
    """Shorten names in the middle and number those that became equal, because an axis merges equal labels."""
    seen: Counter[str] = Counter()
    labels = []
    for name in names:
        text = figures.plain(name)
        if len(text) > _LABEL_CHARS:
            text = f"{text[: _LABEL_CHARS // 3]}…{text[-(_LABEL_CHARS - _LABEL_CHARS // 3 - 1) :]}"
        seen[text] += 1
        labels.append(text if seen[text] == 1 else f"{text} #{seen[text]}")
    return labels


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _bins(percentages: Sequence[float]) -> list[tuple[float, float, int]]:
    """Count percentages in bins of a round width; exactly zero has a bin of its own, and none is empty."""
    if not percentages:
        return []
    span = max(*percentages, 0.0) - min(*percentages, 0.0)
    width = next((width for width in (1.0, 2.0, 5.0, 10.0, 25.0, 100.0) if span / width <= _MAX_BINS), span / _MAX_BINS)
    lows = Counter(math.floor(value / width) * width for value in percentages if value)
    bins = [(low, low + width, amount) for low, amount in lows.items()]
    same = sum(not value for value in percentages)
    return sorted([*bins, (0.0, 0.0, same)] if same else bins)


def _bin_label(low: float, high: float) -> str:
    return f"{low:g} to {high:g} %" if low < high else "0 %, the same"
