"""A tighter bound by cases: an agent runs in one way, or in any other.

Prices prove nothing below what fractions of plans could reach: half of an agent deferred, half of it running. Where
that leaves a gap, the question is split: with one variant of an agent (or its deferral) alone, and without it. Each
case has prices of its own and with them a bound; the whole is worth no more than the best case (Land and Doig, "An
Automatic Method of Solving Discrete Programming Problems", Econometrica 28, 1960). CP-SAT has no part in this.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from apportion.planner.dual import VALUE, Cases

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from apportion.planner.compiled import Compiled
    from apportion.planner.dual import Dual, Prices, Pricing

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


class Ways(NamedTuple):
    """The ways of running agents that cases tell apart: their variants, and deferral.

    Attributes:
        of_mode: Way of each mode; shape (modes,).
        of_deferral: Way of each agent's deferral; shape (agents,).
        agent: Agent of each way.
    """

    of_mode: Ints
    of_deferral: Ints
    agent: Ints

    @classmethod
    def of(cls, compiled: Compiled) -> Ways:
        """Number the ways of a problem."""
        names = [(mode.agent, mode.variant) for mode in compiled.modes]
        number = {name: position for position, name in enumerate(dict.fromkeys(names))}
        agents = len(compiled.problem.agents)
        agent = [name[0] for name in number] + list(range(agents))
        return cls(np.array([number[name] for name in names]), len(number) + np.arange(agents), np.array(agent))


class _Case(NamedTuple):
    """A part of the question: worth most first, in the order in which they arose among equals."""

    negative_bound: float
    number: int
    cases: Cases
    prices: Prices
    shares: Floats


def bound_by_cases(
    dual: Dual, prices: Prices, *, target: float, cases: int, steps: int, stop: Callable[[], bool]
) -> float:
    """Return an upper bound on the value of every plan, at most `target` if so many cases suffice.

    Args:
        dual: The bounds of the problem.
        prices: Prices to begin with, the better the fewer cases are needed.
        target: A bound with which the caller is content.
        cases: How many cases to bound at most.
        steps: Subgradient steps for each.
        stop: Whether to come to an end before that.
    """
    ways = Ways.of(dual.compiled)
    compiled = dual.compiled
    whole = Cases(np.ones(len(compiled.modes), dtype=np.bool_), compiled.deferrable.copy())
    settled = -np.inf
    waiting = [_bounded(dual, ways, 0, whole, prices, np.inf, steps)]
    made = 1
    while waiting and -waiting[0].negative_bound > target and made < cases and not stop():
        case = heappop(waiting)
        way = _undecided(ways, case)
        if way is None:
            settled = max(settled, -case.negative_bound)
            continue
        for part in _split(ways, case.cases, way):
            made += 1
            heappush(waiting, _bounded(dual, ways, made, part, case.prices, -case.negative_bound, steps))
    return max([settled, *[-case.negative_bound for case in waiting]])


def _bounded(dual: Dual, ways: Ways, number: int, cases: Cases, prices: Prices, at_most: float, steps: int) -> _Case:
    """Bound a case, and see how often agents choose each of their ways while the prices move."""
    chosen = np.zeros(len(ways.agent))

    def count(pricing: Pricing, /) -> None:
        runs = pricing.mode >= 0
        chosen[ways.of_mode[pricing.mode[runs]]] += 1.0
        chosen[ways.of_deferral[~runs]] += 1.0

    best, pricing = dual.descend(prices, VALUE, steps=steps, latency=True, visit=count, cases=cases)
    shares = chosen / max(1.0, float(chosen.sum()) / len(dual.compiled.problem.agents))
    return _Case(-min(at_most, pricing.bound), number, cases, best, shares)


def _undecided(ways: Ways, case: _Case) -> int | None:
    """Return the way about which prices are most in two minds; `None` if agents are left no choice."""
    open_ways = np.zeros(len(ways.agent), dtype=np.bool_)
    open_ways[ways.of_mode[case.cases.runs]] = True
    open_ways[ways.of_deferral[case.cases.defers]] = True
    choices = np.bincount(ways.agent, weights=open_ways)
    open_ways &= choices[ways.agent] > 1
    if not open_ways.any():
        return None
    doubt = np.where(open_ways, np.minimum(case.shares, 1.0 - case.shares), -1.0)
    return int(doubt.argmax())


def _split(ways: Ways, cases: Cases, way: int) -> tuple[Cases, Cases]:
    """Return the case of one way alone, and that of all others of its agent."""
    of_agent = ways.agent[way]
    mode_is, deferral_is = ways.of_mode == way, ways.of_deferral == way
    mode_of, deferral_of = ways.agent[ways.of_mode] == of_agent, ways.agent[ways.of_deferral] == of_agent
    alone = Cases(cases.runs & (~mode_of | mode_is), cases.defers & (~deferral_of | deferral_is))
    others = Cases(cases.runs & ~mode_is, cases.defers & ~deferral_is)
    return alone, others
