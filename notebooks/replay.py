# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What would my agents have cost with a plan, and what would I have lost?
#
# You have logs of a month of agent runs, and a bill. Would planning have made the bill smaller? By how much, for which
# of your workflows? And what would your agents have missed?
#
# A **replay** answers that without running an agent again. It walks through each log call by call, plans as a live
# orchestrator would, which sees nothing that comes later, and sets two columns side by side: *baseline* is what was
# sent, *planned* what would have been sent. Where a later output quotes what the plan had left out, an extra call is
# charged. What it cannot know: whether an agent would have done something else on a shorter prompt.
#
# This runs on the small logs in `fixtures/logs`, of many tools and few long sessions. Point `LOGS` at your own, such
# as `~/.claude/projects`; `apportion replay LOGS --html report.html` shows the same as a page.

# %%
from html import escape
from pathlib import Path

import altair as alt
from IPython.display import HTML

from apportion.planner.replay.engine import replay

repo = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "fixtures" / "logs").is_dir())
LOGS = repo / "fixtures" / "logs"
COLOURS = alt.Scale(domain=["baseline", "planned"], range=["#8a929c", "#1f6feb"])
share = alt.Axis(format=".0%")


def table(rows: list[dict[str, object]]) -> HTML:
    """Show rows as a table; the first one names the columns."""
    lines = [list(rows[0]), *[[written(value) for value in row.values()] for row in rows]]
    cells = ["".join(f"<td>{escape(cell)}</td>" for cell in line) for line in lines]
    return HTML("<table>" + "".join(f"<tr>{line}</tr>" for line in cells) + "</table>")


def written(value: object) -> str:
    """Write a figure with as many digits as it deserves."""
    if isinstance(value, int | float):
        return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.2f}"
    return str(value)


def percent(value: float | None) -> str:
    """Write a share, or that it is unknown."""
    return "unknown" if value is None else f"{value:.1%}"


report = replay(LOGS, against=["rule-a"])
bill, visible = report.ledgers.bill_usd, report.ledgers.visible_tokens
print(f"{report.workflows} workflows, {report.calls} calls, {report.agents} agent runs")
print(f"bill: ${bill.baseline or 0:.2f} as logged, ${bill.planned or 0:.2f} planned, {percent(bill.saved_share)} less")

# %% [markdown]
# ## The five ledgers
#
# Saved tokens are not saved money: most prompt tokens are read from a cache at a tenth of the price, and a plan that
# changes what is cached makes it dearer. So there are five ledgers, and no one of them is the result alone. Only
# workflows whose models have a known price are in the bill.

# %%
table(
    [
        {"ledger": name, "baseline": ledger.baseline, "planned": ledger.planned, "saved": percent(ledger.saved_share)}
        for name, ledger in (
            ("visible tokens", visible),
            ("real prompt tokens", report.ledgers.real_prompt_tokens),
            ("transmitted tokens", report.ledgers.transmitted_tokens),
            ("bill (US dollars)", bill),
        )
    ]
    + [
        {
            "ledger": "prefix kept from call to call (share)",
            "baseline": report.ledgers.prefix_stability.baseline,
            "planned": report.ledgers.prefix_stability.planned,
            "saved": "",
        }
    ]
)

# %% [markdown]
# ## Where did the money go?
#
# By agent type: sub-agents have contexts of their own, and pay for them. Agents below five cents are left out.

# %%
spent = [
    {"agent": f"{row.agent} ({row.source})", "side": side, "usd": getattr(row.bill_usd, side)}
    for row in report.per_agent
    for side in ("baseline", "planned")
    if (row.bill_usd.baseline or 0) >= 0.05
]
most = max((row for row in spent if row["side"] == "baseline"), key=lambda row: row["usd"])
alt.Chart(alt.Data(values=spent)).mark_bar().encode(
    x=alt.X("usd:Q", title="bill (US dollars)", axis=alt.Axis(format="$.2f")),
    y=alt.Y("agent:N", title=None, sort="-x"),
    yOffset="side:N",
    color=alt.Color("side:N", title=None, scale=COLOURS),
    tooltip=["agent:N", "side:N", "usd:Q"],
).properties(
    title=f"Dearest: {most['agent']}, {most['usd'] / (bill.baseline or 1):.0%} of the bill", width=460, height=320
)

# %% [markdown]
# ## Which workflows gain?
#
# A plan has nothing to do in a workflow of two calls. What it can save grows with the number of calls that send the
# same results again.

# %%
gains = [
    {
        "workflow": row.id,
        "source": row.source,
        "calls": row.calls,
        "saved": row.ledgers.bill_usd.saved_share,
        "usd": row.ledgers.bill_usd.baseline,
    }
    for row in report.per_workflow
    if row.ledgers.bill_usd.saved_share is not None
]
short = [row for row in gains if row["calls"] < 10]
idle = sum(row["saved"] < 0.01 for row in short)
alt.Chart(alt.Data(values=gains)).mark_circle(opacity=0.7).encode(
    x=alt.X("calls:Q", title="model calls of the workflow (logarithmic)", scale=alt.Scale(type="log")),
    y=alt.Y("saved:Q", title="saved of the bill (share)", axis=share),
    size=alt.Size("usd:Q", title="bill (US dollars)"),
    tooltip=["workflow:N", "source:N", "calls:Q", "usd:Q", "saved:Q"],
).properties(
    title=f"Of {len(short)} workflows below ten calls, {idle} save less than one percent", width=460, height=300
)

# %% [markdown]
# A point below zero would be a workflow that planning made dearer. The rule that no plan is taken whose expected bill
# is above doing nothing keeps them few; since a plan cannot know what will be needed, it does not exclude them.

# %%
worst = report.worst_workflow
print(f"dearer than doing nothing: {report.dearer.workflows} of {report.dearer.of} workflows with a known price")
print("worst:", "unknown" if worst is None else f"{worst.bill_saved_share:+.1%} of the bill saved")

# %% [markdown]
# ## What did the plan do, and why?
#
# Results of tools are named by reference where the prompt holds the same bytes, rewritten where that loses nothing, and
# left out behind a handle where later calls repay it. The tokens are added up over all calls in which the shorter form
# stood.

# %%
done: dict[tuple[str, str], int] = {}
for row in report.actions:
    done[row.action, row.reason] = done.get((row.action, row.reason), 0) + row.saved_tokens
largest = sorted(done.items(), key=lambda item: -item[1])[:10]
acts = [{"why": reason, "action": action, "tokens": tokens} for (action, reason), tokens in largest]
masked = sum(tokens for (action, _), tokens in done.items() if action == "mask")
alt.Chart(alt.Data(values=acts)).mark_bar().encode(
    x=alt.X("tokens:Q", title="visible tokens saved over all calls", axis=alt.Axis(format="~s")),
    y=alt.Y("why:N", title=None, sort="-x", axis=alt.Axis(labelLimit=340)),
    color=alt.Color("action:N", title=None),
    tooltip=["action:N", "why:N", "tokens:Q"],
).properties(title=f"Leaving out behind handles: {masked / sum(done.values()):.0%} of it", width=360)

# %% [markdown]
# ## What would I have lost?
#
# Three questions, from mild to hard. Is a fact of the logged prompt still *visible* in the planned one? If not, does it
# come back byte for byte by its handle? And of the facts that the agent's next step then really used, how many could
# it see? The last one is what hurts.

# %%
facts = report.facts
kept = [
    {"facts": "of all prompts", "where": "visible", "share": facts.visible_share},
    {"facts": "of all prompts", "where": "visible or behind a handle", "share": facts.recoverable_share},
    {"facts": "used by the next step", "where": "visible", "share": facts.next_action_visible},
    {"facts": "used by the next step", "where": "visible or behind a handle", "share": facts.next_action_recoverable},
]
alt.Chart(alt.Data(values=kept)).mark_bar().encode(
    x=alt.X("share:Q", title="facts (share)", axis=share, scale=alt.Scale(domain=[0, 1])),
    y=alt.Y("facts:N", title=None),
    yOffset="where:N",
    color=alt.Color("where:N", title=None, scale=alt.Scale(range=["#1f6feb", "#a8c7fa"])),
    tooltip=["facts:N", "where:N", "share:Q"],
).properties(title=f"Out of sight of the next step: {1 - (facts.next_action_visible or 0):.1%}", width=420, height=110)

# %% [markdown]
# Where an output quotes what had been left out, the replay charges one more call over the whole prompt, and the result
# from then on. These are the pieces that it fetched back, the largest first.

# %%
fetched = [
    {
        "agent": row.agent,
        "before call": row.call,
        "tool": row.tool or row.kind,
        "tokens": row.tokens,
        "tokens saved until then": row.saved_tokens,
        "why left out": row.reason,
    }
    for row in report.left_out
    if row.fetched
]
print(f"{facts.expansions} of {report.left_out_pieces} pieces that were left out were fetched back")
table(sorted(fetched, key=lambda row: -row["tokens"])[:8] or [{"nothing": "was fetched back"}])

# %% [markdown]
# ## Is it better than a simple rule?
#
# The best known rule of thumb masks what was seen once when the cache is cold, and every twenty calls what is older
# than ten. It was replayed on the same logs and is billed in the same way.

# %%
(rule,) = report.against
sides = (("apportion", report), ("rule-a", rule))
compared = [
    {"who": who, "what": what, "share": value}
    for who, side in sides
    for what, value in (
        ("saved of the bill", side.ledgers.bill_usd.saved_share),
        ("saved of the visible tokens", side.ledgers.visible_tokens.saved_share),
        ("worst workflow: saved of its bill", side.worst_workflow and side.worst_workflow.bill_saved_share),
    )
]
gap = (bill.saved_share or 0) - (rule.ledgers.bill_usd.saved_share or 0)
alt.Chart(alt.Data(values=compared)).mark_bar().encode(
    x=alt.X("share:Q", title="saved (share; below zero: dearer)", axis=share),
    y=alt.Y("what:N", title=None, sort=None, axis=alt.Axis(labelLimit=240)),
    yOffset=alt.YOffset("who:N", sort=None),
    color=alt.Color("who:N", title=None, scale=alt.Scale(domain=["apportion", "rule-a"], range=["#1f6feb", "#b3741a"])),
    tooltip=["who:N", "what:N", "share:Q"],
).properties(title=f"The plan saves {100 * gap:+.1f} points of the bill more than the rule", width=420, height=150)

# %%
table([{"who": who, "dearer than doing nothing": percent(side.dearer.share)} for who, side in sides])

# %% [markdown]
# ## Were the budgets right?
#
# Before a stage begins, its demand is forecast and tokens are allocated. Points below the diagonal used less than they
# were given. Without a limit nothing is scarce, and a plan allocates what is likely to be needed and more.

# %%
budgets = [
    {
        "agent": row.agent,
        "stage": f"{row.first_stage} to {row.last_stage}",
        "used": row.used_tokens,
        "allocated": row.allocated_tokens,
    }
    for row in report.per_stage
    if row.used_tokens and row.allocated_tokens
]
over = sum(row["used"] > row["allocated"] for row in budgets)
log = alt.Scale(type="log")
ends = [min(row["used"] for row in budgets), max(row["allocated"] for row in budgets)]
diagonal = alt.Chart(alt.Data(values=[{"x": end} for end in ends])).mark_line(color="grey", strokeDash=[4, 4])
points = (
    alt.Chart(alt.Data(values=budgets))
    .mark_circle(size=60)
    .encode(
        x=alt.X("allocated:Q", title="allocated (tokens, logarithmic)", scale=log, axis=alt.Axis(format="~s")),
        y=alt.Y("used:Q", title="used (tokens, logarithmic)", scale=log, axis=alt.Axis(format="~s")),
        color=alt.Color("agent:N", title=None, legend=None),
        tooltip=["agent:N", "stage:N", "used:Q", "allocated:Q"],
    )
)
(diagonal.encode(x="x:Q", y="x:Q") + points).properties(
    title=f"{over} of {len(budgets)} agents and stages used more than they were allocated", width=380, height=320
)

# %% [markdown]
# ## In short
#
# - Look at the bill and the next step's facts together: either alone can be made to look good.
# - Long sessions pay for all of it. If your workflows have a handful of calls, leave planning off.
# - Look at the worst workflow before the mean: it is the one you will hear about.
# - A saving that you would not have missed is the point; what was fetched back tells where the plan was wrong.
#
# Next: `apportion replay LOGS --budget-usd 1 --html report.html` for a limit, `--against clear-10` for another rule,
# `apportion train` for forecasts that know your agents, and `notebooks/what_if.ipynb` for a single workflow in depth.
