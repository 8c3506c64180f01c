"""A bound that does not come from CP-SAT, and the greedy plan that reaches it.

The agents' caps lie under the stage caps, and these under the workflow's limit: the limits are nested (laminar), so
the feasible budgets form a polymatroid, and taking the steepest segments first, as far as the limits allow, gives
the best of all plans, in whole quanta as well as in fractions (Edmonds 1970; Federgruen and Groenevelt, "The Greedy
Procedure for Resource Allocation Problems", Operations Research 34, 1986).

The bound does not rely on that theorem. It is the Lagrangian value at the prices read off the greedy plan,

    sum over segments of length * max(0, slope - workflow price - stage price)
    + workflow price * workflow room + sum over stages of stage price * stage room,

and by weak duality *any* prices at or above 0 give a valid upper bound. If it equals the greedy value, both are
proven. Coupled problems lose this exactness, and only there does a solver gain over greedy.
"""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from apportion.planner.budgets.plan import LimitPrice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apportion.planner.budgets.problem import BudgetProblem
    from apportion.planner.budgets.segments import QuantizedProblem

BOUND_SOURCE = "laminar dual"
"""How plans name the bound of this module."""


class GreedyPlan(NamedTuple):
    """The greedy plan and its proof.

    Attributes:
        quanta: Quanta in each segment, per agent.
        value: What they are worth.
        bound: Proven upper bound on the value of any plan.
        workflow_price: Value of one more quantum for the workflow; 0 where its limit does not bind.
        stage_prices: The same per stage, beyond the price of the workflow.
    """

    quanta: tuple[tuple[int, ...], ...]
    value: int
    bound: int
    workflow_price: int
    stage_prices: tuple[int, ...]


class _Piece(NamedTuple):
    """One segment of one agent, ordered by falling slope."""

    slope: int
    stage: int
    agent: int
    segment: int
    quanta: int


def plan_greedily(problem: QuantizedProblem) -> GreedyPlan:
    """Fill the steepest segments first, and prove how good that is.

    Segments of equal slope share what is left in proportion to their lengths: equals are treated alike.
    """
    pieces = _pieces(problem)
    taken = [[0] * len(curve.quanta) for curve in problem.curves]
    workflow_left = problem.workflow_room
    stages_left = list(problem.stage_rooms)
    for _, group in groupby(pieces, key=attrgetter("slope")):
        equals = list(group)
        given = _give(equals, workflow_left, stages_left)
        for piece, quanta in zip(equals, given, strict=True):
            taken[piece.agent][piece.segment] = quanta
            left = stages_left[piece.stage]
            if left is not None:
                stages_left[piece.stage] = left - quanta
        if workflow_left is not None:
            workflow_left -= sum(given)
    workflow_price, stage_prices = _prices(pieces, taken, stages_left)
    return GreedyPlan(
        quanta=tuple([tuple(row) for row in taken]),
        value=sum([piece.slope * taken[piece.agent][piece.segment] for piece in pieces]),
        bound=lagrangian(problem, workflow_price, stage_prices),
        workflow_price=workflow_price,
        stage_prices=stage_prices,
    )


def lagrangian(problem: QuantizedProblem, workflow_price: int, stage_prices: Sequence[int]) -> int:
    """Return the upper bound that the given prices prove; a price on a limit that does not exist is ignored."""
    bound = 0 if problem.workflow_room is None else workflow_price * problem.workflow_room
    base = 0 if problem.workflow_room is None else workflow_price
    prices = [0 if room is None else price for room, price in zip(problem.stage_rooms, stage_prices, strict=True)]
    bound += sum([price * room for room, price in zip(problem.stage_rooms, prices, strict=True) if room])
    for curve, stage in zip(problem.curves, problem.stage_of, strict=True):
        price = base + prices[stage]
        for slope, quanta in zip(curve.slopes, curve.quanta, strict=True):
            if slope <= price:
                break
            bound += (slope - price) * quanta
    return bound


def limit_prices(problem: BudgetProblem, quantized: QuantizedProblem, greedy: GreedyPlan) -> tuple[LimitPrice, ...]:
    """Return the limits that bind, each with the value of one more quantum: workflow, stages, then agents' caps."""
    prices = [LimitPrice(limit="workflow", price=greedy.workflow_price)] if greedy.workflow_price else []
    prices += [
        LimitPrice(limit=f"stage:{stage.id}", price=price)
        for stage, price in zip(problem.stages, greedy.stage_prices, strict=True)
        if price
    ]
    for agent, curve, stage in zip(problem.agents, quantized.curves, quantized.stage_of, strict=True):
        price = curve.refused_slope - greedy.workflow_price - greedy.stage_prices[stage]
        if price > 0:
            prices.append(LimitPrice(limit=f"agent:{agent.id}", price=price))
    return tuple(prices)


def _pieces(problem: QuantizedProblem) -> list[_Piece]:
    """Return all segments, the steepest first; equal slopes by stage, then in the order of the agents."""
    pieces = [
        _Piece(slope, stage, agent, segment, quanta)
        for agent, (curve, stage) in enumerate(zip(problem.curves, problem.stage_of, strict=True))
        for segment, (slope, quanta) in enumerate(zip(curve.slopes, curve.quanta, strict=True))
    ]
    pieces.sort(key=lambda piece: (-piece.slope, piece.stage, piece.agent))
    return pieces


def _give(pieces: list[_Piece], workflow_left: int | None, stages_left: list[int | None]) -> list[int]:
    """Share what is left among pieces of equal slope: first among their stages, then within each."""
    if len(pieces) == 1:
        return [_least(pieces[0].quanta, stages_left[pieces[0].stage], workflow_left)]
    by_stage: dict[int, list[int]] = {}
    for piece in pieces:
        by_stage.setdefault(piece.stage, []).append(piece.quanta)
    takes = [_least(sum(wanted), stages_left[stage]) for stage, wanted in by_stage.items()]
    shares = share_out(_least(sum(takes), workflow_left), takes)
    return [
        quanta for share, wanted in zip(shares, by_stage.values(), strict=True) for quanta in share_out(share, wanted)
    ]


def share_out(total: int, wanted: Sequence[int]) -> list[int]:
    """Share a total in proportion to what is wanted, in whole numbers: largest remainders first, then in order.

    Nobody gets more than wanted as long as the total is at most their sum.

    >>> share_out(10, [10, 5, 5])
    [5, 3, 2]
    """
    whole = sum(wanted)
    if total == whole:
        return list(wanted)
    shares = [total * part // whole for part in wanted]
    order = sorted(range(len(wanted)), key=lambda position: (-(total * wanted[position] % whole), position))
    for position in order[: total - sum(shares)]:
        shares[position] += 1
    return shares


def _least(quanta: int, *limits: int | None) -> int:
    for limit in limits:
        if limit is not None and limit < quanta:
            quanta = limit
    return quanta


def _prices(pieces: list[_Piece], taken: list[list[int]], stages_left: list[int | None]) -> tuple[int, tuple[int, ...]]:
    """Read the dual prices off a greedy plan.

    `waiting[s]` is the steepest slope of stage s that is not served in full. Where one waits although its stage has
    room, the workflow is used up, and costs what the best such segment would pay. A used-up stage costs what its own
    best one would pay beyond that. Where two limits run out at the same quantum, prices are not unique, and that of a
    stage is an upper bound.
    """
    waiting = [0] * len(stages_left)
    for piece in pieces:
        if not waiting[piece.stage] and taken[piece.agent][piece.segment] < piece.quanta:
            waiting[piece.stage] = piece.slope
    free = [slope for slope, left in zip(waiting, stages_left, strict=True) if left != 0]
    workflow_price = max(free, default=0)
    return workflow_price, tuple(
        [max(0, slope - workflow_price) if left == 0 else 0 for slope, left in zip(waiting, stages_left, strict=True)]
    )
