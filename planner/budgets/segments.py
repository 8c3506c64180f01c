"""The problem in quanta: concave values in a few linear segments, and the room above the floors.

The value of a budget b for an agent with weight w and demand D is w * E[min(D, b)], the tokens it is expected to
use. Its derivative is the newsvendor's critical ratio (Arrow, Harris and Marschak, "Optimal Inventory Policy",
Econometrica 19, 1951): one more token is worth

    w * P(D > b) = w * (1 - F(b)).

F never decreases, hence the value is concave, and P(D > b) is the probability that the agent is cut off at b.
Only quantiles of F are known. Between two of them F is taken as linear, and the value between them as the chord:
a segment from quantile p to quantile r has the slope w * (1 - (p + r) / 2), exact at both ends.

- Below the first quantile, F rises linearly from 0 at zero tokens.
- Beyond the last quantile nothing is known; more tokens are worth nothing there, so the last segment ends at it.
- Equal quantiles are a jump of F: they make no segment, but the slope drops.

Slopes are whole numbers: points per token, times `2 * PROBABILITY_SCALE`. Those of one agent decrease strictly.
A quantum that straddles a quantile counts to the segment before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from apportion.errors import InfeasiblePlanError
from apportion.planner.budgets.problem import PROBABILITY_SCALE, QUANTUM_TOKENS

if TYPE_CHECKING:
    from apportion.planner.budgets.problem import BudgetProblem
    from apportion.records import Demand

SLOPE_PER_POINT = 2 * PROBABILITY_SCALE
"""Slope of a token that is used for certain, by an agent of weight 1."""


class Worker(Protocol):
    """Whoever uses tokens: an agent of a budget problem, or a variant of the joint one."""

    @property
    def demand(self) -> Demand:
        """How many tokens it will use."""
        ...

    @property
    def weight(self) -> int:
        """Points per token."""
        ...

    @property
    def floor_tokens(self) -> int:
        """What it gets at least."""
        ...

    @property
    def max_tokens(self) -> int | None:
        """What it gets at most."""
        ...


class Curve(NamedTuple):
    """Value of an agent's tokens above its floor, as segments of falling slope.

    Attributes:
        slopes: Value of one quantum in each segment, strictly decreasing, above 0.
        quanta: Length of each segment, above 0.
        refused_slope: Value of the first quantum that the agent's own cap refuses; 0 where no cap cuts the curve.
    """

    slopes: tuple[int, ...]
    quanta: tuple[int, ...]
    refused_slope: int


class QuantizedProblem(NamedTuple):
    """What the bound, the greedy plan and CP-SAT work on; the validator deliberately does not.

    Attributes:
        curves: One per agent.
        stage_of: Index of each agent's stage.
        stage_rooms: Quanta that each stage can take above its agents' floors; `None` means no limit.
        workflow_room: The same for the workflow.
    """

    curves: tuple[Curve, ...]
    stage_of: tuple[int, ...]
    stage_rooms: tuple[int | None, ...]
    workflow_room: int | None


def quantize(problem: BudgetProblem) -> QuantizedProblem:
    """Return the problem in quanta above the floors.

    Raises:
        InfeasiblePlanError: The floors alone break a limit.
    """
    index = {stage.id: position for position, stage in enumerate(problem.stages)}
    stage_of = tuple([index[agent.stage_id] for agent in problem.agents])
    floors = [0] * len(problem.stages)
    for stage, agent in zip(stage_of, problem.agents, strict=True):
        floors[stage] += agent.floor_tokens
    spare_tokens = [
        None if stage.max_tokens is None else stage.max_tokens - floor
        for stage, floor in zip(problem.stages, floors, strict=True)
    ]
    spendable = problem.spendable_tokens
    spare_of_workflow = None if spendable is None else spendable - sum(floors)
    _require_floors_fit(problem, stage_of, spare_tokens, spare_of_workflow)
    return QuantizedProblem(
        curves=tuple([value_curve(agent) for agent in problem.agents]),
        stage_of=stage_of,
        stage_rooms=tuple([_quanta(spare) for spare in spare_tokens]),
        workflow_room=_quanta(spare_of_workflow),
    )


def value_curve(agent: Worker) -> Curve:
    """Return the value of the agent's tokens above its floor.

    >>> from apportion.records import Demand
    >>> from apportion.planner.budgets.problem import AgentNeed
    >>> demand = Demand(probabilities=(0.5, 0.9), tokens=(640, 1280))
    >>> value_curve(AgentNeed(id="a", stage_id="s", demand=demand))
    Curve(slopes=(15000, 6000), quanta=(10, 10), refused_slope=0)
    """
    room = _quanta(None if agent.max_tokens is None else agent.max_tokens - agent.floor_tokens)
    slopes: list[int] = []
    quanta: list[int] = []
    start = before = 0
    for probability, tokens in zip(agent.demand.probabilities, agent.demand.tokens, strict=True):
        scaled = round(probability * PROBABILITY_SCALE)
        slope = agent.weight * (SLOPE_PER_POINT - before - scaled)
        before = scaled
        end = -((agent.floor_tokens - tokens) // QUANTUM_TOKENS)
        if end <= start or slope == 0:
            continue
        if room is not None and start == room:
            return Curve(tuple(slopes), tuple(quanta), slope)
        stop = end if room is None else min(end, room)
        if slopes and slopes[-1] == slope:
            quanta[-1] += stop - start
        else:
            slopes.append(slope)
            quanta.append(stop - start)
        start = stop
        if stop < end:
            return Curve(tuple(slopes), tuple(quanta), slope)
    return Curve(tuple(slopes), tuple(quanta), 0)


def cut_off_probability(demand: Demand, tokens: int) -> float:
    """Return the probability that more than `tokens` are needed; beyond the largest quantile, an upper bound of it.

    >>> from apportion.records import Demand
    >>> cut_off_probability(Demand(probabilities=(0.5, 0.9), tokens=(100, 200)), 150)
    0.3
    """
    start, before = 0, 0.0
    for probability, end in zip(demand.probabilities, demand.tokens, strict=True):
        if tokens < end:
            return round(1 - before - (probability - before) * (tokens - start) / (end - start), 9)
        start, before = end, probability
    return round(1 - before, 9)


def _quanta(tokens: int | None) -> int | None:
    return None if tokens is None else tokens // QUANTUM_TOKENS


def _require_floors_fit(
    problem: BudgetProblem, stage_of: tuple[int, ...], spare_of_stages: list[int | None], spare_of_workflow: int | None
) -> None:
    """Refuse a problem whose floors alone break a limit; each broken limit is a conflict on its own.

    The limit with the fewest agents is named, because there the least has to be understood; the others are counted
    in the hint.
    """
    broken = [
        (stage_of.count(position), f"stage {problem.stages[position].id!r}", -spare)
        for position, spare in enumerate(spare_of_stages)
        if spare is not None and spare < 0
    ]
    if spare_of_workflow is not None and spare_of_workflow < 0:
        broken.append((len(stage_of), "the workflow", -spare_of_workflow))
    if not broken:
        return
    agents, limit, missing = min(broken, key=lambda conflict: conflict[0])
    others = [f"{name} lacks {tokens:,}" for _, name, tokens in broken if name != limit]
    also = f"; also {', '.join(others)}" if others else ""
    raise InfeasiblePlanError(
        f"the floors of {agents} agents exceed the limit of {limit} by {missing:,} tokens",
        missing_tokens=missing,
        hint=f"Raise the limit or lower floor_tokens{also}",
    )
