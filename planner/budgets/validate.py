"""Checking a budget plan without a solver.

Everything is computed again from the problem, in whole numbers and by code that the model does not use. The bound is
checked too: by weak duality any prices at or above 0 prove an upper bound, so a plan carries its proof with it.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from apportion.planner.budgets.problem import PROBABILITY_SCALE, QUANTUM_TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apportion.planner.budgets.plan import Allocation, BudgetPlan
    from apportion.planner.budgets.problem import AgentNeed, BudgetProblem

GAP_OF_OPTIMAL = 1e-3
"""The largest gap with which a plan may call itself optimal."""


def validate_budget(problem: BudgetProblem, plan: BudgetPlan) -> tuple[str, ...]:
    """Return what is wrong with a plan, in words; nothing means that it is valid.

    Args:
        problem: What was to be planned.
        plan: Any plan, whoever made it.
    """
    strangers = tuple(_wrong_agents(problem, plan))
    if strangers:
        return strangers
    budgets = {allocation.agent_id: allocation for allocation in plan.allocations}
    pairs = [(agent, budgets[agent.id]) for agent in problem.agents]
    pieces = [_pieces(agent) for agent in problem.agents]
    return (
        *_wrong_fingerprint(problem, plan),
        *_broken_agent_limits(pairs),
        *_broken_shared_limits(problem, pairs),
        *_wrong_cut_off(pairs),
        *_wrong_objective(plan, pairs, pieces),
        *_wrong_bound(problem, plan, pieces),
        *_wrong_gap(plan),
    )


def _wrong_agents(problem: BudgetProblem, plan: BudgetPlan) -> Iterator[str]:
    """Every agent gets exactly one budget, in its own stage."""
    stages = {agent.id: agent.stage_id for agent in problem.agents}
    counts = Counter(allocation.agent_id for allocation in plan.allocations)
    for agent_id in stages.keys() - counts.keys():
        yield f"agent {agent_id!r} gets no budget"
    for allocation in plan.allocations:
        agent_id = allocation.agent_id
        if agent_id not in stages:
            yield f"agent {agent_id!r} is not in the problem"
        elif counts[agent_id] > 1:
            yield f"agent {agent_id!r} gets {counts[agent_id]} budgets"
        elif allocation.stage_id != stages[agent_id]:
            yield f"agent {agent_id!r} runs in stage {stages[agent_id]!r}, not in {allocation.stage_id!r}"


def _wrong_fingerprint(problem: BudgetProblem, plan: BudgetPlan) -> Iterator[str]:
    """The plan was made for this problem."""
    if plan.fingerprint != problem.fingerprint:
        yield "the plan was made for another problem: the fingerprints differ"


def _broken_agent_limits(pairs: list[tuple[AgentNeed, Allocation]]) -> Iterator[str]:
    """An agent gets at least its floor, at most its cap, and whole quanta in between."""
    for agent, budget in pairs:
        if budget.tokens < agent.floor_tokens:
            yield f"agent {agent.id!r} gets {budget.tokens:,} tokens, less than its floor of {agent.floor_tokens:,}"
        elif agent.max_tokens is not None and budget.tokens > agent.max_tokens:
            yield f"agent {agent.id!r} gets {budget.tokens:,} tokens, more than its cap of {agent.max_tokens:,}"
        elif (budget.tokens - agent.floor_tokens) % QUANTUM_TOKENS:
            yield f"agent {agent.id!r} gets {budget.tokens:,} tokens, not whole quanta above its floor"


def _broken_shared_limits(problem: BudgetProblem, pairs: list[tuple[AgentNeed, Allocation]]) -> Iterator[str]:
    """The agents of a stage stay within its cap, and all agents within the limit less the reserve."""
    used: Counter[str] = Counter()
    for agent, budget in pairs:
        used[agent.stage_id] += budget.tokens
    for stage in problem.stages:
        if stage.max_tokens is not None and used[stage.id] > stage.max_tokens:
            yield f"stage {stage.id!r} gets {used[stage.id]:,} tokens, more than its cap of {stage.max_tokens:,}"
    if problem.max_tokens is not None and used.total() + problem.reserve_tokens > problem.max_tokens:
        yield (
            f"the workflow gets {used.total():,} tokens and keeps {problem.reserve_tokens:,} in reserve, "
            f"more than its limit of {problem.max_tokens:,}"
        )


def _wrong_cut_off(pairs: list[tuple[AgentNeed, Allocation]]) -> Iterator[str]:
    """The cut-off probability is what the demand quantiles say."""
    for agent, budget in pairs:
        expected = _survival(agent, budget.tokens)
        if abs(budget.cut_off_probability - expected) > 1e-6:
            yield f"agent {agent.id!r} is cut off with probability {expected:.6f}, not {budget.cut_off_probability:.6f}"


def _wrong_objective(
    plan: BudgetPlan, pairs: list[tuple[AgentNeed, Allocation]], pieces: list[list[_Piece]]
) -> Iterator[str]:
    """The objective is the value of the tokens above the floors."""
    value = 0
    for (agent, budget), parts in zip(pairs, pieces, strict=True):
        quanta = (budget.tokens - agent.floor_tokens) // QUANTUM_TOKENS
        value += sum([part.slope * (min(part.end, quanta) - min(part.start, quanta)) for part in parts])
    if value != plan.objective:
        yield f"the budgets are worth {value:,}, not {plan.objective:,}"


def _wrong_bound(problem: BudgetProblem, plan: BudgetPlan, pieces: list[list[_Piece]]) -> Iterator[str]:
    """The bound is the Lagrangian value at the plan's prices.

    sum over limits of price * room + sum over agents and segments of length * max(0, slope - prices above it)
    """
    prices = {price.limit: price.price for price in plan.prices}
    known = {
        "workflow",
        *[f"stage:{stage.id}" for stage in problem.stages],
        *[f"agent:{agent.id}" for agent in problem.agents],
    }
    for limit in prices.keys() - known:
        yield f"the price of {limit!r} belongs to no limit"
    floors: Counter[str] = Counter()
    proven = 0
    for agent, parts in zip(problem.agents, pieces, strict=True):
        floors[agent.stage_id] += agent.floor_tokens
        price = prices.get("workflow", 0) + prices.get(f"stage:{agent.stage_id}", 0)
        proven += sum([max(0, part.slope - price) * (part.end - part.start) for part in parts])
    limits = [(f"stage:{stage.id}", stage.max_tokens, floors[stage.id]) for stage in problem.stages]
    limits.append(("workflow", problem.max_tokens, floors.total() + problem.reserve_tokens))
    for limit, tokens, taken in limits:
        if tokens is not None:
            proven += prices.get(limit, 0) * ((tokens - taken) // QUANTUM_TOKENS)
        elif limit in prices:
            yield f"the price of {limit!r} belongs to no limit"
    if proven != plan.bound:
        yield f"the prices prove a bound of {proven:,}, not {plan.bound:,}"


def _wrong_gap(plan: BudgetPlan) -> Iterator[str]:
    """The objective stays below the bound, and gap and status say how far."""
    if plan.objective > plan.bound:
        yield f"the objective {plan.objective:,} exceeds the bound {plan.bound:,}"
        return
    gap = (plan.bound - plan.objective) / plan.bound if plan.bound else 0.0
    if abs(gap - plan.gap) > 1e-9:
        yield f"the gap is {gap:.6%}, not {plan.gap:.6%}"
    if (plan.status == "OPTIMAL") != (gap <= GAP_OF_OPTIMAL):
        yield f"a plan with a gap of {gap:.6%} is not {plan.status}"


class _Piece(NamedTuple):
    """Quanta `start` to `end` above an agent's floor, and what each is worth."""

    start: int
    end: int
    slope: int


def _pieces(agent: AgentNeed) -> list[_Piece]:
    """Return the value of an agent's quanta, quantile by quantile, up to its cap."""
    levels = (0, *[round(probability * PROBABILITY_SCALE) for probability in agent.demand.probabilities])
    ends = [0, *[_whole_quanta_up_to(agent, tokens) for tokens in agent.demand.tokens]]
    return [
        _Piece(start, end, agent.weight * (PROBABILITY_SCALE - low + PROBABILITY_SCALE - high))
        for (start, end), (low, high) in zip(pairwise(ends), pairwise(levels), strict=True)
    ]


def _whole_quanta_up_to(agent: AgentNeed, tokens: int) -> int:
    """Return the quanta that take an agent from its floor to a quantile, as far as its cap allows."""
    needed = max(0, tokens - agent.floor_tokens + QUANTUM_TOKENS - 1) // QUANTUM_TOKENS
    if agent.max_tokens is None:
        return needed
    return min(needed, (agent.max_tokens - agent.floor_tokens) // QUANTUM_TOKENS)


def _survival(agent: AgentNeed, tokens: int) -> float:
    """Return the probability of needing more than `tokens`, with F linear between its quantiles."""
    corners = [(0, 0.0), *zip(agent.demand.tokens, agent.demand.probabilities, strict=True)]
    below = [corner for corner in corners if corner[0] <= tokens]
    left, reached = below[-1]
    if len(below) == len(corners):
        return 1.0 - reached
    right, next_probability = corners[len(below)]
    share = (tokens - left) / (right - left)
    return 1.0 - (reached + share * (next_probability - reached))
