# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # How good are the forecasts?
#
# A budget is worth as much as the forecast behind it. This notebook learns demand from logs, and judges it on workflows
# that were not learned from: do the 90 % intervals hold 90 % of what was used? How wide are they? Is the model better
# than a rule of thumb? And where does it fail?
#
# It runs on the small logs in `fixtures/logs`, of many tools and few workflows each, so every number here is rough and
# most intervals are wide. Point `LOGS` at your own logs for figures that mean something to you;
# `python benchmarks/demand.py LOGS` prints the same as tables.

# %%
from collections import Counter
from html import escape
from pathlib import Path

import altair as alt
import numpy as np
from IPython.display import HTML

from apportion import SkipLog, read_logs
from apportion.models.calibration import LEVELS, pinball
from apportion.models.demand import DemandModel
from apportion.models.examples import examples_of
from apportion.models.features import FEATURES
from apportion.models.held_out import Judged, by_source, by_workflow, judge, last_values, plain_quantiles

repo = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "fixtures" / "logs").is_dir())
LOGS = repo / "fixtures" / "logs"
BOOST = False  # boosting needs hundreds of workflows; with your own logs, set it


def table(rows: list[dict[str, object]]) -> HTML:
    """Show rows as a table; the first one names the columns."""
    lines = [list(rows[0]), *[[f"{v:,.2f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]]
    cells = ["".join(f"<td>{escape(cell)}</td>" for cell in line) for line in lines]
    return HTML("<table>" + "".join(f"<tr>{line}</tr>" for line in cells) + "</table>")


# %% [markdown]
# ## What there is to learn from
#
# A *run* is one agent in one context window in one stage, and a *stage* is one turn of the user. Claude Code's logs do
# not show system prompts and tool schemas: the first counted prompt says how large they are.

# %%
examples = examples_of(read_logs(LOGS, SkipLog()))
counts = {
    level: Counter(example.caller.source for example in getattr(examples, level))
    for level in ("workflows", "stages", "runs", "calls")
}
table(
    [{"source": source} | {level: counts[level][source] for level in counts} for source in sorted(counts["workflows"])]
)

# %% [markdown]
# These are the features: what is known before a call. A test changes everything that comes after, and none may move.

# %%
table([feature._asdict() for feature in FEATURES])

# %% [markdown]
# ## Forecasts of what was not learned from
#
# Five times a model is learned from four fifths of the workflows and asked about the rest. All events of a workflow
# stay on one side, because they resemble each other.

# %%
LEVELS_SHOWN = {
    "output": "output of a call",
    "growth": "growth per call",
    "calls": "calls of a run",
    "run": "tokens of a run",
    "stage": "tokens of a stage",
    "workflow": "tokens of a workflow",
}
parts: dict[str, list[Judged]] = {}
losses: dict[str, list[np.ndarray]] = {}
for train, test in by_workflow(examples):
    model = DemandModel(boost=BOOST).fit_examples(train)
    known = judge(model, train)
    for level, part in judge(model, test).items():
        parts.setdefault(level, []).append(part)
        if level in LEVELS_SHOWN:
            rivals = {
                "model": part.quantiles,
                "quantiles of all": plain_quantiles(known[level], part, by_type=False),
                "quantiles of the agent type": plain_quantiles(known[level], part, by_type=True),
                "last value": last_values(known[level], part),
            }
            losses.setdefault(level, []).append(
                np.stack([pinball(part.values, quantiles) for quantiles in rivals.values()], axis=1)
            )
found = {level: Judged.joined(each) for level, each in parts.items()}

# %% [markdown]
# ## Do they hold what they promise?
#
# The reliability diagram: a quantile forecast at 75 % should not be exceeded three times out of four. On the diagonal
# it holds. Above it the forecast is too high, below it too low. Counts such as the number of calls have ties, which
# lift the curve: where most runs have one call, a quantile of one call is undercut by none.

# %%
reliability = [
    {"level": name, "promised": promised, "kept": float(np.mean(found[level].values <= found[level].quantiles[:, at]))}
    for level, name in LEVELS_SHOWN.items()
    if level in found
    for at, promised in enumerate(LEVELS)
]
worst = max(reliability, key=lambda row: abs(row["kept"] - row["promised"]))
share = alt.Axis(format=".0%")
diagonal = alt.Chart(alt.Data(values=[{"x": 0}, {"x": 1}])).mark_line(color="grey", strokeDash=[4, 4])
curves = alt.Chart(alt.Data(values=reliability)).mark_line(point=True)
(
    diagonal.encode(x="x:Q", y="x:Q")
    + curves.encode(
        x=alt.X("promised:Q", title="level of the quantile (share)", axis=share),
        y=alt.Y("kept:Q", title="values that stayed below it (share)", axis=share),
        color=alt.Color("level:N", title=None),
        tooltip=["level:N", "promised:Q", "kept:Q"],
    )
).properties(
    title=f"Farthest off: {worst['level']} at {worst['promised']:.0%}, where {worst['kept']:.0%} stay below",
    width=420,
    height=360,
)

# %% [markdown]
# ## Who is covered, and at what price?
#
# Coverage without width is cheap: an interval from nothing to everything covers all. So both are shown, for each source
# with at least ten runs. The width is the upper by the lower bound; on a logarithmic axis.

# %%
covered = []
for level in ("output", "run", "stage"):
    of_level = found[level]
    sources = np.array([caller.source for caller in of_level.callers])
    for source in sorted(set(sources)):
        part = of_level.where(sources == source)
        if len(part) >= 10:
            covered.append(
                {
                    "level": LEVELS_SHOWN[level],
                    "source": source,
                    "n": len(part),
                    "coverage": part.coverage,
                    "width": part.spread,
                }
            )
low = min(covered, key=lambda row: row["coverage"])
points = (
    alt.Chart(alt.Data(values=covered))
    .mark_circle()
    .encode(
        x=alt.X("coverage:Q", title="within the 90 % interval (share)", axis=share, scale=alt.Scale(zero=False)),
        y=alt.Y("width:Q", title="upper by lower bound (ratio)", scale=alt.Scale(type="log")),
        size=alt.Size("n:Q", title="examples (count)"),
        color=alt.Color("level:N", title=None),
        tooltip=["source:N", "level:N", "n:Q", "coverage:Q", "width:Q"],
    )
)
promise = alt.Chart(alt.Data(values=[{"x": 0.9}])).mark_rule(color="grey", strokeDash=[4, 4]).encode(x="x:Q")
(points + promise).properties(
    title=f"Least covered: {low['source']}, {low['level']}, with {low['coverage']:.0%} of {low['n']}",
    width=480,
    height=320,
)

# %%
table(sorted(covered, key=lambda row: row["coverage"]))

# %% [markdown]
# ## Better than a rule of thumb?
#
# The pinball loss is what a forecast loses, over all its quantiles, in units of logarithms: 0.1 is about 10 %. The
# rules are the quantiles of all that was seen, those of the agent type, and the last value of the same workflow. They
# are not calibrated; the model is.

# %%
RIVALS = ("model", "quantiles of all", "quantiles of the agent type", "last value")
compared = [
    {"level": name, "forecast": rival, "loss": float(np.concatenate(losses[level])[:, at].mean())}
    for level, name in LEVELS_SHOWN.items()
    if level in losses
    for at, rival in enumerate(RIVALS)
]
best = {
    name: min((r for r in compared if r["level"] == name), key=lambda r: r["loss"]) for name in LEVELS_SHOWN.values()
}
beaten = [name for name, row in best.items() if row["forecast"] != "model"]
alt.Chart(alt.Data(values=compared)).mark_bar().encode(
    x=alt.X("loss:Q", title="mean pinball loss (log units)"),
    y=alt.Y("forecast:N", title=None, sort=list(RIVALS)),
    color=alt.Color("forecast:N", legend=None, scale=alt.Scale(domain=list(RIVALS))),
    row=alt.Row(
        "level:N", title=None, sort=list(LEVELS_SHOWN.values()), header=alt.Header(labelAngle=0, labelAlign="left")
    ),
    tooltip=["level:N", "forecast:N", "loss:Q"],
).properties(title=f"A rule of thumb does better for: {', '.join(beaten) or 'nothing'}", width=380, height=70)

# %% [markdown]
# ## Slack is shared
#
# Runs of a workflow do not all hit their bound at once. Pooled intervals of stages and workflows use that; the
# alternative is to add the bounds of the single runs up. Only stages and workflows of two or more runs are counted.

# %%
pooled = []
for level in ("stage", "workflow"):
    for kind, name in (("pool", "pooled"), ("sum", "bounds added up")):
        judged = found.get(f"{level}_{kind}")
        if judged is not None:
            width = np.exp(judged.quantiles[:, -1]) - np.exp(judged.quantiles[:, 0])
            pooled.append(
                {
                    "level": level,
                    "interval": name,
                    "n": len(judged),
                    "coverage": judged.coverage,
                    "median width (tokens)": float(np.median(width)),
                }
            )
table(pooled)

# %%
alt.Chart(alt.Data(values=pooled)).mark_bar().encode(
    x=alt.X("median width (tokens):Q", title="median width of the 90 % interval (tokens)", axis=alt.Axis(format="~s")),
    y=alt.Y("interval:N", title=None),
    color=alt.Color("interval:N", legend=None),
    row=alt.Row("level:N", title=None),
    tooltip=["level:N", "interval:N", "coverage:Q", "median width (tokens):Q"],
).properties(title="What pooling saves", width=420, height=70)

# %% [markdown]
# ## The failures
#
# The runs that exceeded their interval by most. What they have in common is usually one thing: many more calls than any
# earlier run of that kind. The number of calls is the part that nobody knows before.

# %%
runs = found["run"]
excess = runs.values - runs.quantiles[:, -1]
table(
    [
        {
            "source": runs.callers[row].source,
            "agent": runs.callers[row].agent,
            "used (tokens)": round(float(np.expm1(runs.values[row]))),
            "upper bound (tokens)": round(float(np.expm1(runs.quantiles[row, -1]))),
            "times the bound": float(np.exp(excess[row])),
        }
        for row in np.argsort(-excess)[:10]
        if excess[row] > 0
    ]
)

# %%
scatter = [
    {
        "forecast": float(np.expm1(runs.quantiles[row, LEVELS.index(0.5)])) + 1,
        "used": float(np.expm1(runs.values[row])) + 1,
        "interval": "within" if runs.quantiles[row, 0] <= runs.values[row] <= runs.quantiles[row, -1] else "outside",
        "source": runs.callers[row].source,
    }
    for row in range(len(runs))
]
log = alt.Scale(type="log")
alt.Chart(alt.Data(values=scatter)).mark_circle(opacity=0.5).encode(
    x=alt.X("forecast:Q", title="median forecast (tokens)", scale=log, axis=alt.Axis(format="~s")),
    y=alt.Y("used:Q", title="used (tokens)", scale=log, axis=alt.Axis(format="~s")),
    color=alt.Color(
        "interval:N", title="90 % interval", scale=alt.Scale(range=["#b3401a", "#2a6f97"], domain=["outside", "within"])
    ),
    tooltip=["source:N", "forecast:Q", "used:Q"],
).properties(title="Forecast and use of all runs", width=420, height=360)

# %% [markdown]
# ## A tool that was never seen
#
# The hardest test: all workflows of one source are left out, and forecast from those of the others. Then there is no
# agent type to learn from, often not even the framework, and the intervals promise more than they can know. The first
# weeks with a new tool look like this; the history within a workflow helps from its second stage on.

# %%
unseen = []
for source, train, test in by_source(examples):
    if len(test.runs) >= 10:
        part = judge(DemandModel(boost=BOOST).fit_examples(train), test)["run"]
        unseen.append({"source": source, "runs": len(part), "coverage": part.coverage, "width": part.spread})
outside = [row["source"] for row in unseen if not 0.85 <= row["coverage"] <= 0.95]
bars = alt.Chart(alt.Data(values=unseen)).encode(y=alt.Y("source:N", title=None, sort="x"))
(
    bars.mark_bar().encode(
        x=alt.X(
            "coverage:Q", title="runs within the 90 % interval (share)", axis=share, scale=alt.Scale(domain=[0, 1])
        ),
        tooltip=["source:N", "runs:Q", "coverage:Q", "width:Q"],
    )
    + promise
).properties(
    title=f"Farther than five points from 90 %: {len(outside)} of {len(unseen)} sources", width=420, height=220
)

# %% [markdown]
# ## In short
#
# - Read coverage and width together, per source: a promise kept by endless width is no help to a budget.
# - Plan for sums: pooled intervals are what a joint plan may spend, and the more runs, the narrower they are.
#   With little to calibrate them on, as here for stages, they can be wider than added bounds; the table says so.
# - Expect little of a new tool's first forecasts; ask again after some twenty workflows.
# - What stays uncertain is the number of calls. Prompts follow from it almost to the token.
