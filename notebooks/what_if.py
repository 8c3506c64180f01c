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
# # What if?
#
# A plan answers one question: who may use how much, and what happens to each piece of context. Before you set a
# budget you have others. What would a tighter one cost in work? Who would give way first? What if the model became
# dearer, or one agent did not run at all? This notebook asks them of a real workflow.
#
# Every answer is a plan with a **certificate**: a proven bound on how much better any other plan could be. Where a
# chart shows a band, the truth lies inside it.

# %%
from pathlib import Path

import altair as alt

from apportion import SkipLog, read_logs
from apportion.planner.explanation import explain
from apportion.planner.logged import problem_from_log
from apportion.planner.solver import plan_workflow
from apportion.planner.sweeps import pareto, sweep
from apportion.planner.whatif import STUDY

repo = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "fixtures" / "logs").is_dir())

# %% [markdown]
# ## The workflow
#
# A session of Claude Code, recorded while somebody worked on an open-source project (source and licence are in
# `fixtures/README.md`). The main agent runs on a large model. It sends out two sub-agents: *Explore* reads the code
# on a small model, *Plan* drafts a change on the large one.
#
# `problem_from_log` cuts the session into *legs* of up to eight calls: each gets a budget, and a decision about every
# piece of its prompt. Sub-agents may be deferred, and *Plan* may run on the small model. What is an assumption and what
# comes from the log is listed in the docstring of `apportion.planner.logged`. One **point** is a token of work that is
# used for certain, times a weight of 10.

# %%
(log,) = read_logs(repo / "fixtures" / "logs" / "sessions" / "claude-code-cipherbox.jsonl.zst", SkipLog())
LARGE, SMALL = "claude-opus-4-6", "claude-haiku-4-5-20251001"
problem = problem_from_log(log, simplified={LARGE: SMALL})
print(
    f"{len(problem.agents)} legs of {log.agents} agent runs, {log.calls} calls, {len(problem.items)} pieces of context"
)

# %% [markdown]
# ## The plan without a limit
#
# With no limit on tokens or money everybody gets what they are likely to need, less the last half percent of value:
# forecasts are not that sharp, so a plan gives it up where that lowers the bill.
#
# No piece of context is masked. That is not for lack of trying: the explanation below compares each piece with its
# stub. A masked piece is fetched back with some probability, and fetching is one more call over a prompt of more than
# 60,000 tokens. For pieces of a few hundred tokens, or with few calls left to save on, that does not pay here.

# %%
plan = plan_workflow(problem, deadline_ms=None, effort=STUDY)
explain(problem, plan)

# %% [markdown]
# ## How much does a tighter budget cost?
#
# The same workflow under eight limits on the bill. Each plan starts from what the last one taught.

# %%
swept = sweep(problem, budgets_usd=[plan.cost_usd * step / 10 for step in range(3, 11)])
rows = [row | {"share": row["points"] / plan.points} for row in swept.to_rows() if row["fits"]]
half = min(rows, key=lambda row: abs(row["budget_usd"] - plan.cost_usd / 2))
swept

# %%
title = f"Half of the money buys {half['share']:.0%} of the value"
base = alt.Chart(alt.Data(values=rows)).encode(
    x=alt.X("budget_usd:Q", title="limit on the bill (US dollars)", axis=alt.Axis(format="$.2f"))
)
value = base.mark_line(point=True).encode(
    y=alt.Y("points:Q", title="value of the plan (points)", axis=alt.Axis(format="~s")),
    tooltip=["budget_usd:Q", "cost_usd:Q", "points:Q", "bound_points:Q", "agents_deferred:Q"],
)
bound = base.mark_line(strokeDash=[4, 4], color="grey").encode(y="bound_points:Q")
(bound + value).properties(title=[title, "solid: the plan; dashed: what no plan can exceed"], width=560, height=280)

# %% [markdown]
# The curve is concave: the first dollars buy work that is almost certainly needed, the last ones buy insurance against
# rare long runs. Where it bends is the place for a budget. Where the two lines touch, nothing is left to gain.
#
# ### Who gives way first?
#
# The share of its unlimited work budget that each leg keeps, as money gets scarce.

# %%
kept = [
    {
        "agent": agent.agent_id,
        "budget_usd": round(point.max_cost_nusd / 1e9, 2),
        "kept": agent.work_tokens / max(1, plan.agent(agent.agent_id).work_tokens),
        "runs as": agent.variant_id or "deferred",
    }
    for point in swept.points
    if point.plan is not None and point.max_cost_nusd is not None
    for agent in point.plan.agents
]
tightest = [row for row in kept if row["budget_usd"] == kept[0]["budget_usd"]]
first = min(tightest, key=lambda row: row["kept"])["agent"]
order = [agent.id for agent in problem.agents]
cells = alt.Chart(alt.Data(values=kept)).encode(
    x=alt.X("budget_usd:O", title="limit on the bill (US dollars)"), y=alt.Y("agent:N", sort=order, title=None)
)
heat = cells.mark_rect().encode(
    color=alt.Color("kept:Q", title="work tokens kept", scale=alt.Scale(scheme="blues", domain=[0, 1])),
    tooltip=["agent:N", "budget_usd:O", "kept:Q", "runs as:N"],
)
marks = (
    cells.transform_filter("datum['runs as'] != 'full'")
    .mark_text(fontSize=10, fontWeight="bold")
    .encode(text=alt.Text("runs as:N"), color=alt.value("#e07b39"))
)
(heat + marks).properties(title=f"At the tightest limit {first} gives up most", width=560, height=280)

# %% [markdown]
# A row that stays dark is cheap work: *Explore* runs on the small model, so cutting it saves next to nothing. A cell
# with a label is a leg that does not run in full. Follow the row of *Plan*: as long as money is scarce it runs on the
# small model, and when it moves to the large one, the main legs in the same column get lighter. They pay for it. No
# rule that gives each agent its share would find that.

# %% [markdown]
# ## Tokens, bill and value together
#
# Tokens and money are not the same: the small model sends as many tokens for less, and runs that are deferred save
# more of one than of the other. The Pareto front holds plans of which none is beaten in all three.

# %%
front = pareto(problem, points=12)
front

# %%
points = front.to_rows()
leanest, best = points[0], max(points, key=lambda row: row["points"])
title = (
    f"{1 - leanest['tokens'] / best['tokens']:.0%} fewer tokens are possible,"
    f" for {1 - leanest['points'] / best['points']:.0%} less value"
)
alt.Chart(alt.Data(values=points)).mark_circle(size=140).encode(
    x=alt.X(
        "tokens:Q", title="expected tokens of the workflow", axis=alt.Axis(format="~s"), scale=alt.Scale(zero=False)
    ),
    y=alt.Y("points:Q", title="value (points)", axis=alt.Axis(format="~s")),
    color=alt.Color("cost_usd:Q", title="bill (US dollars)", scale=alt.Scale(scheme="viridis")),
    tooltip=["tokens:Q", "cost_usd:Q", "points:Q", "gap:Q", "agents_deferred:Q", "pieces_shortened:Q"],
).properties(title=[title, "each point is a plan that no other one beats in all three"], width=560, height=300)

# %% [markdown]
# Most tokens are sent again and again, not written: each call carries the system prompt, the tools and the history. The
# point on the left is what the mandatory legs must send anyway, with no sub-agent and hardly any work: two thirds of
# all tokens, and next to no value. A token budget near it buys nothing. Points of nearly the same tokens and different
# colours show what money buys at the same size: the model that does the work. The tooltip has each point's certificate.

# %% [markdown]
# ## What if the large model cost twice as much?
#
# Without a limit on the bill the same work would be done, at twice the price. Under a limit something has to give. The
# limit here is what the bill was at half of the money.

# %%
limited = next(point.plan for point in swept.points if point.max_cost_nusd == round(half["budget_usd"] * 1e9)) or plan
dearer = limited.what_if(price={LARGE: 2})
dearer

# %%
changes = [
    row | {"change": row["work_tokens_after"] - row["work_tokens_before"]}
    for row in dearer.to_rows()
    if row["work_tokens_after"] != row["work_tokens_before"]
]
moved = ", ".join(dearer.other_variant + dearer.newly_deferred) or "no leg"
alt.Chart(alt.Data(values=changes)).mark_bar().encode(
    x=alt.X("change:Q", title="change of work tokens"),
    y=alt.Y("agent:N", sort=order, title=None),
    color=alt.condition("datum.change < 0", alt.value("#b3401a"), alt.value("#2a6f97")),
    tooltip=["agent:N", "variant_before:N", "variant_after:N", "work_tokens_before:Q", "work_tokens_after:Q"],
).properties(
    title=[
        f"At twice the price the same money buys {-dearer.points / limited.points:.0%} less value",
        f"runs in another variant or not at all: {moved}",
    ],
    width=560,
    height=240,
)

# %% [markdown]
# The legs on the large model fall to the least that they must get, and even the legs on the small one, whose price is
# what it was, give some: what they free is needed to run the others at all. The loss is far less than half, since
# what goes first was least likely to be needed.
#
# ## What if *Plan* did not run at all?
#
# This is not the same as deferring it: it is no longer there, nobody waits for it, and its value is not missed. The
# comparison says what its run takes from the others, and whether they can use what becomes free.

# %%
alone = limited.what_if(without=["Plan 1"])
alone

# %% [markdown]
# ## How cheap can it be for nearly the same work?
#
# The other way round: the least bill for a given share of the value, with a proof of how cheap it could be at best.
# This is the curve to look at before asking for the best plan.

# %%
asked = []
for percent in (60, 70, 80, 90, 95, 99):
    other = plan.what_if(quality=plan.points * percent / 100).after
    proven = (other.cost_bound_nusd or 0) / 1e9
    asked.append({"percent": percent, "cost_usd": other.cost_usd, "proven": proven})
ninety = next(row for row in asked if row["percent"] == 90)
cheap = alt.Chart(alt.Data(values=asked)).encode(
    x=alt.X("percent:Q", title="value kept (% of the best plan)", scale=alt.Scale(zero=False))
)
band = cheap.mark_area(opacity=0.3).encode(y="proven:Q", y2="cost_usd:Q")
line = cheap.mark_line(point=True).encode(
    y=alt.Y("cost_usd:Q", title="least bill found (US dollars)", axis=alt.Axis(format="$.2f")),
    tooltip=["percent:Q", "cost_usd:Q", "proven:Q"],
)
(band + line).properties(
    title=[
        f"The last 10 % of the value cost {1 - ninety['cost_usd'] / plan.cost_usd:.0%} of the bill",
        "the band reaches down to what is proven to be the least",
    ],
    width=560,
    height=260,
)

# %% [markdown]
# ## In short
#
# - Budget where the value curve bends, not where the forecast ends: the tail is insurance, and it is dear.
# - Look at the heat map before the first overrun: it tells whose work will be cut, in which order.
# - A budget in tokens and one in money cut different things; the front shows both.
# - A certificate tells whether looking harder would pay. Here it mostly would not.
#
# The calls are one line each: `plan.what_if(...)`, `sweep(...)`, `pareto(...)`; every answer has `to_rows()` for your
# own plots. See `docs/planning.md`.
