"""How the charts of the HTML report are drawn, as Vega-Lite specifications.

Two colours mean the same everywhere: grey is the baseline, the accent is the plan; a third marks what became dearer.
Colours are CSS variables, so that the page alone decides about light, dark and print. Strings from logs enter as data
values only, never as part of an expression.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from apportion.planner.report import figures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import altair as alt

    from apportion.planner.report.schema import Ledger, WorkflowRow

BASELINE, PLANNED, BAD, INK = "var(--baseline)", "var(--planned)", "var(--bad)", "var(--ink)"

_ROW_PX = 22

_CONFIG: dict[str, Any] = {
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "gridColor": "var(--grid)",
        "domain": False,
        "ticks": False,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelPadding": 6,
    },
    "text": {"fill": INK, "fontSize": 12},
}


class Bar(NamedTuple):
    """One row of a bar chart: its label, its full names for the tooltip, two values, and a note beside them."""

    label: str
    full: dict[str, str]
    baseline: float
    planned: float
    note: str


class Unit(NamedTuple):
    """What a chart measures: how it is called, how the axis and a figure are written, and the field of the report."""

    title: str
    name: str
    axis: str
    write: Callable[[float | None], str]
    field: str

    def ledger(self, row: WorkflowRow) -> Ledger:
        """Return what a workflow has of it."""
        found: Ledger = getattr(row.ledgers, self.field)
        return found


def draw_bars(bars: Sequence[Bar], unit: Unit, description: str) -> dict[str, Any] | None:
    """Draw the planned bar inside the baseline bar, one row each."""
    if not bars:
        return None
    import altair as alt

    values = [
        {
            "label": bar.label,
            "baseline": bar.baseline,
            "planned": bar.planned,
            "end": max(bar.baseline, bar.planned),
            "note": bar.note,
            "dearer": bar.planned > bar.baseline * (1 + figures.SAME),
            **bar.full,
            "Baseline": unit.write(bar.baseline),
            "Planned": unit.write(bar.planned),
            "Change": bar.note,
        }
        for bar in bars
    ]
    largest = max(max(bar.baseline, bar.planned) for bar in bars)
    scale = alt.Scale(domain=[0, largest * 1.45 or 1.0], nice=False)
    tooltip = [alt.Tooltip(f"{name}:N", title=name) for name in (*bars[0].full, "Baseline", "Planned", "Change")]
    axis = alt.Axis(title=unit.axis, labelExpr=_label_expression(unit, largest), tickCount=5)
    base = alt.Chart().encode(
        y=alt.Y("label:N", sort=None, title=None, axis=alt.Axis(labelLimit=260, labelColor=INK)), tooltip=tooltip
    )
    layers = [
        base.mark_bar(height=14, color=BASELINE).encode(x=alt.X("baseline:Q", scale=scale, axis=axis)),
        base.mark_bar(height=7).encode(
            x=alt.X("planned:Q", scale=scale),
            color=alt.Color("dearer:N", scale=alt.Scale(domain=[False, True], range=[PLANNED, BAD]), legend=None),
        ),
        base.mark_text(align="left", dx=6).encode(x=alt.X("end:Q", scale=scale), text="note:N"),
    ]
    return _spec(alt.layer(*layers), values, description, height=_ROW_PX * len(bars))


def draw_lines(values: list[dict[str, Any]], unit: Unit) -> dict[str, Any]:
    """Draw baseline and planned as lines over the number of the call, each named at its end."""
    import altair as alt

    last = max(value["call"] for value in values)
    scale = alt.Scale(domain=["Baseline", "Planned"], range=[BASELINE, PLANNED])
    colour = alt.Color("series:N", scale=scale, legend=None)
    largest = max(value["value"] for value in values)
    base = alt.Chart().encode(
        x=alt.X(
            "call:Q",
            title="call of the agent run (logarithmic)",
            scale=alt.Scale(type="log", base=2, domain=[0.9, max(2.0, last * 3)], nice=False),
            axis=alt.Axis(format="~s", grid=False, values=_ticks(last)),
        ),
        y=alt.Y(
            "value:Q",
            title=unit.axis,
            scale=alt.Scale(zero=True),
            axis=alt.Axis(labelExpr=_label_expression(unit, largest), tickCount=5),
        ),
        tooltip=[alt.Tooltip(f"{name}:N", title=name) for name in ("Calls", "Mean of", "Baseline", "Planned")],
    )
    layers = [
        base.mark_line(strokeWidth=2.5).encode(color=colour),
        base.mark_circle(size=60, opacity=1).encode(color=colour),
        *(
            base.transform_filter(f"datum.call == {last} && datum.series == '{series}'")
            .mark_text(align="left", dx=8, dy=shift)
            .encode(text="series:N")
            for series, shift in _apart(values, last)
        ),
    ]
    return _spec(alt.layer(*layers), values, f"Mean {unit.name} by number of the call", height=260)


def _apart(values: Sequence[dict[str, Any]], last: float) -> list[tuple[str, int]]:
    """Return the series, the higher end first, with shifts in pixels that keep their labels apart."""
    ends = sorted((value for value in values if value["call"] == last), key=lambda value: value["value"], reverse=True)
    return [(end["series"], shift) for end, shift in zip(ends, (-6, 6), strict=True)]


def draw_histogram(bins: Sequence[tuple[str, bool, int]]) -> dict[str, Any]:
    """Draw how many workflows fall into each `(label, dearer, workflows)`, a row each; what is dearer stands out."""
    import altair as alt

    values = [
        {"label": label, "workflows": amount, "dearer": dearer, "note": f"{amount:,}", "Bill saved": label}
        for label, dearer, amount in bins
    ]
    scale = alt.Scale(domain=[0, max(amount for _, _, amount in bins) * 1.2], nice=False)
    base = alt.Chart().encode(
        y=alt.Y("label:N", sort=None, title=None, axis=alt.Axis(labelColor=INK)),
        x=alt.X("workflows:Q", title="workflows", scale=scale, axis=alt.Axis(tickCount=5, tickMinStep=1, format="~s")),
        tooltip=["Bill saved:N", alt.Tooltip("note:N", title="Workflows")],
    )
    layers = [
        base.mark_bar(height=14).encode(
            color=alt.Color("dearer:N", scale=alt.Scale(domain=[False, True], range=[PLANNED, BAD]), legend=None),
        ),
        base.mark_text(align="left", dx=6).encode(text="note:N"),
    ]
    return _spec(
        alt.layer(*layers), values, "Number of workflows by share of the bill saved", height=_ROW_PX * len(bins)
    )


def draw_marks(values: list[dict[str, Any]]) -> dict[str, Any]:
    """Draw what was used as bars, and on each a mark for what was forecast and one for what was allocated."""
    import altair as alt

    names = ("used", "forecast", "allocated")
    largest = max(value[name] or 0 for value in values for name in names)
    write = Unit("", "", "tokens", figures.tokens, "")
    scale = alt.Scale(domain=[0, largest * 1.05], nice=False)
    axis = alt.Axis(title="total tokens", labelExpr=_label_expression(write, largest), tickCount=5)
    base = alt.Chart().encode(
        y=alt.Y("label:N", sort=None, title=None, axis=alt.Axis(labelLimit=260, labelColor=INK)),
        tooltip=[alt.Tooltip(f"{name}:N", title=name) for name in ("Agent", "Source", "Used", "Forecast", "Allocated")],
    )
    layers = [
        base.mark_bar(height=14, color=BASELINE).encode(x=alt.X("used:Q", scale=scale, axis=axis)),
        base.mark_tick(thickness=3, size=16, opacity=1, color=INK).encode(x=alt.X("forecast:Q", scale=scale)),
        base.mark_tick(thickness=3, size=16, opacity=1, color=PLANNED).encode(x=alt.X("allocated:Q", scale=scale)),
    ]
    description = "Tokens used by each agent, beside what was forecast and allocated"
    return _spec(alt.layer(*layers), values, description, height=_ROW_PX * len(values))


def _spec(
    chart: alt.LayerChart | alt.FacetChart, values: list[dict[str, Any]], description: str, *, height: float
) -> dict[str, Any]:
    import altair as alt

    sized = chart.properties(
        data=alt.Data(values=values),  # type: ignore[no-untyped-call]  # untyped in altair
        width="container",
        height=height,
        autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
        description=description,
    )
    return {**sized.to_dict(), "config": _CONFIG}


def _ticks(last: float) -> list[int]:
    return [2**power for power in range(max(1, math.floor(math.log2(max(last, 1)))) + 1)]


def _label_expression(unit: Unit, largest: float) -> str:
    """Return the expression that writes an axis label: `20 k`, `1.5 M`, `$0.02`."""
    if unit.write is figures.tokens:
        return "replace(replace(format(datum.value, '~s'), 'G', 'B'), /([kMBT])$/, ' $1')"
    if largest >= 1000:
        return "replace(format(datum.value, '$~s'), /([kMBT])$/, ' $1')"
    decimals = 0 if largest >= 10 else 2 if largest >= 0.1 else 2 - math.floor(math.log10(largest)) if largest else 2
    return f"datum.value === 0 ? '$0' : format(datum.value, '$,.{decimals}f')"
