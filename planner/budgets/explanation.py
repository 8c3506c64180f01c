"""Why a budget plan is as it is, in short words.

A point is one token that is used, times the weight of its agent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion.planner.budgets.problem import QUANTUM_TOKENS
from apportion.planner.budgets.segments import SLOPE_PER_POINT, value_curve
from apportion.records import Record, Share, Tokens

if TYPE_CHECKING:
    from apportion.planner.budgets.plan import Allocation, BudgetPlan, LimitPrice
    from apportion.planner.budgets.problem import AgentNeed, BudgetProblem


class LimitReason(Record):
    """A limit that binds.

    Attributes:
        limit: `"workflow"`, `"stage:ID"` or `"agent:ID"`.
        points_per_1k_tokens: What 1,000 more tokens would gain there, beyond the prices of the limits above.
        text: The same in words.
    """

    limit: str
    points_per_1k_tokens: float
    text: str


class AgentReason(Record):
    """Why an agent gets this much.

    Attributes:
        agent_id: The agent run.
        tokens: What it may use.
        cut_off_probability: How likely it needs more.
        held_by: The limit that keeps it from getting more, or `None` where more would be worth nothing.
        text: The same in words.
    """

    agent_id: str
    tokens: Tokens
    cut_off_probability: Share
    held_by: str | None
    text: str


class BudgetExplanation(Record):
    """A plan in words: as a whole, per binding limit, per agent."""

    summary: str
    limits: tuple[LimitReason, ...]
    agents: tuple[AgentReason, ...]
    degraded: tuple[str, ...] = ()

    def __str__(self) -> str:
        degraded = [f"Degraded: {reason}." for reason in self.degraded]
        limits = [limit.text for limit in self.limits]
        return "\n".join([self.summary, *degraded, *limits, *[agent.text for agent in self.agents]])


def explain_budget(problem: BudgetProblem, plan: BudgetPlan) -> BudgetExplanation:
    """Return why the plan is as it is.

    Args:
        problem: What was to be planned.
        plan: A valid plan for it.
    """
    prices = {price.limit: price for price in plan.prices}
    budgets = {allocation.agent_id: allocation for allocation in plan.allocations}
    return BudgetExplanation(
        summary=_summary(problem, plan),
        limits=tuple(_limit_reason(price) for price in plan.prices),
        agents=tuple(_agent_reason(agent, budgets[agent.id], prices) for agent in problem.agents),
        degraded=plan.degraded,
    )


def _summary(problem: BudgetProblem, plan: BudgetPlan) -> str:
    given = sum(allocation.tokens for allocation in plan.allocations)
    spendable = problem.spendable_tokens
    limit = "no limit" if spendable is None else f"{spendable:,} tokens to spend"
    quality = "no plan is better" if plan.objective == plan.bound else f"at most {plan.gap:.2%} below the best plan"
    return (
        f"{len(plan.allocations)} agents get {given:,} tokens, with {limit}, worth {plan.points:,.0f} points above the "
        f"floors; {quality} (bound: {plan.bound_source})."
    )


def _limit_reason(price: LimitPrice) -> LimitReason:
    name = _limit_name(price.limit)
    return LimitReason(
        limit=price.limit,
        points_per_1k_tokens=price.per_1k_tokens,
        text=f"{name[0].upper()}{name[1:]} binds: 1,000 more tokens would gain {price.per_1k_tokens:,.0f} points.",
    )


def _agent_reason(agent: AgentNeed, budget: Allocation, prices: dict[str, LimitPrice]) -> AgentReason:
    held_by, why = _why_not_more(agent, budget, prices)
    return AgentReason(
        agent_id=agent.id,
        tokens=budget.tokens,
        cut_off_probability=budget.cut_off_probability,
        held_by=held_by,
        text=f"{agent.id} gets {budget.tokens:,} tokens and needs more with {budget.cut_off_probability:.0%} "
        f"probability: {why}.",
    )


def _why_not_more(agent: AgentNeed, budget: Allocation, prices: dict[str, LimitPrice]) -> tuple[str | None, str]:
    """Return the limit that holds an agent back, and the comparison that decided.

    The most specific limit with a price is named: it is the first that would have to give way.
    """
    own, stage, workflow = f"agent:{agent.id}", f"stage:{agent.stage_id}", "workflow"
    if own in prices:
        return own, f"held by its own cap of {agent.max_tokens:,}"
    next_slope = _next_slope(agent, budget)
    if next_slope == 0:
        asked = (
            "its forecast asks for no more" if budget.tokens > agent.floor_tokens else "its floor covers its forecast"
        )
        return None, asked
    limit = next((limit for limit in (stage, workflow) if limit in prices), None)
    if limit is None:
        return None, "no limit holds it, so that the plan could be better"
    price = sum(prices[name].price for name in (stage, workflow) if name in prices)
    here, elsewhere = next_slope * 1000 / SLOPE_PER_POINT, price * 1000 / SLOPE_PER_POINT
    return limit, f"1,000 more would gain {here:,.0f} points here, and cost {elsewhere:,.0f} in {_limit_name(limit)}"


def _next_slope(agent: AgentNeed, budget: Allocation) -> int:
    """Return what the next quantum of an agent would be worth; 0 beyond its forecast."""
    curve = value_curve(agent)
    left = (budget.tokens - agent.floor_tokens) // QUANTUM_TOKENS
    for slope, quanta in zip(curve.slopes, curve.quanta, strict=True):
        if left < quanta:
            return slope
        left -= quanta
    return curve.refused_slope


def _limit_name(limit: str) -> str:
    kind, _, name = limit.partition(":")
    return f"the {kind}" if not name else f"{kind} {name}"
