"""What if the budget, the agents, the context, a price or the wanted quality were different?

    plan = plan_workflow(problem, deadline_ms=None)
    print(plan.what_if(budget_tokens=400_000, without=["reviewer"], price={"claude-opus-4-6": 2}))
    print(plan.what_if(quality=0.9 * plan.points))

A what-if is a plan for a changed problem (`changed_problem`), made from nothing, so that it is the plan that would have
been made, and a comparison with the plan at hand. Where a quality is wanted, it is the other way round: the cheapest
plan that is worth at least that (`plan_cheapest`). `sweeps` asks many such questions in a row.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from apportion.errors import InfeasiblePlanError, InputError, ProblemError
from apportion.planner.choice import cost, value, violations
from apportion.planner.columns import select
from apportion.planner.comparison import compare
from apportion.planner.compiled import compile_problem
from apportion.planner.dual import VALUE, Prices, Weights
from apportion.planner.exact import lower_cost, solve_exactly
from apportion.planner.master import Master, Work
from apportion.planner.problem import UNITS_PER_POINT, Model, Problem, TokenPrices
from apportion.planner.solver import Clock, Effort, Search, finish, plan_workflow
from apportion.planner.tables import points

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from apportion.planner.choice import Choice
    from apportion.planner.comparison import Comparison
    from apportion.planner.compiled import Compiled
    from apportion.planner.plan import Plan
    from apportion.planner.problem import Agent, Item

Priced = TypeVar("Priced", bound=TokenPrices)

STUDY = Effort(gap=1e-3, steps=24, rounds=4, per_agent=8, decide=0.02, cheapen=0.02, exact=0.5)
"""For questions that nobody waits for before a call: gaps of a tenth of a percent, mostly within a second."""

ROUNDS = 6
"""Rounds of column generation for the cheapest plan; the first ones gain most."""

EXACT = 0.5
"""Deterministic time of CP-SAT on the whole model, where columns do not tell."""

MOST_USD = 9_000_000.0
"""The largest limit in US dollars: in nano-dollars it is nearly 2^53."""


def what_if(
    plan: Plan,
    *,
    problem: Problem | None = None,
    budget_tokens: float | None = None,
    budget_usd: float | None = None,
    without: Iterable[str] = (),
    price: Mapping[str, float] | None = None,
    quality: float | None = None,
    effort: Effort = STUDY,
    deadline_ms: float | None = None,
) -> Comparison:
    """Plan again under changes, and compare.

    Args:
        plan: The plan at hand.
        problem: Its problem, if the plan does not remember it.
        budget_tokens: Limit of the workflow in tokens, `math.inf` for none; `None` leaves it as it is.
        budget_usd: The same in US dollars.
        without: Agents or pieces of context that are left out.
        price: Factors by which all prices of models are multiplied.
        quality: Points that the plan must be worth at least; looked for is then the cheapest such plan.
        effort: How hard to look. Where the plan at hand was made with less, part of what changes is due to that: the
            comparison says how far it may be from the best one.
        deadline_ms: When to stop improving; never by default, so that the answer does not depend on the clock.

    Returns:
        The plan at hand, the other plan, and what changes from the one to the other.

    Raises:
        ProblemError: The plan does not remember its problem and none was named, or a change is not possible.
        InfeasiblePlanError: Nothing fits any more, or nothing is worth that much.
    """
    named = plan.problem if problem is None else plan.of(problem).problem
    factors = dict(price or {})
    left_out = _names(without)
    changed = changed_problem(
        named, budget_tokens=budget_tokens, budget_usd=budget_usd, without=left_out, price=factors
    )
    if quality is None:
        other = plan_workflow(changed, deadline_ms=deadline_ms, effort=effort)
    else:
        other = plan_cheapest(changed, quality, deadline_ms=deadline_ms, effort=effort)
    change = "; ".join(_in_words(budget_tokens, budget_usd, left_out, factors, quality)) or "nothing changes"
    return compare(plan, other, change=change, aim="value" if quality is None else "cost")


def _in_words(
    tokens: float | None, usd: float | None, without: tuple[str, ...], price: Mapping[str, float], quality: float | None
) -> Iterable[str]:
    if tokens is not None:
        yield "no limit on tokens" if tokens == math.inf else f"a budget of {tokens:,.0f} tokens"
    if usd is not None:
        yield "no limit on cost" if usd == math.inf else f"a budget of ${usd:,.10g}"
    if without:
        yield f"without {', '.join(without)}"
    for model, factor in price.items():
        yield f"{model} at {factor:g} times its prices"
    if quality is not None:
        yield f"the cheapest plan worth at least {points(quality)} points"


# The changed problem.


def changed_problem(
    problem: Problem,
    *,
    budget_tokens: float | None = None,
    budget_usd: float | None = None,
    without: Iterable[str] = (),
    price: Mapping[str, float] | None = None,
) -> Problem:
    """Return a problem with changes; the arguments are those of `what_if`.

    An agent that is left out is there no longer, and nothing waits for it: what needed its result does not need it any
    more, what it would have reported is not reported, and nobody holds what it would have got. A piece that is left out
    is as if it had never been there: the cached prefix is that much shorter, and intact.

    Raises:
        ProblemError: A name is unknown, or an amount is not possible.
    """
    limits = _changed_limits(problem, budget_tokens, budget_usd)
    models = _changed_models(problem, price or {})
    agents, items = _left_out(problem, _names(without))
    try:
        return Problem.parse(problem.fields_with(models=models, agents=agents, items=items, **limits))
    except InputError as error:
        raise ProblemError(error.message, hint=error.hint) from error


def tokens_limit(tokens: float) -> int | None:
    """Return a budget as a limit, `None` for no limit.

    Raises:
        ProblemError: It is not a whole number of tokens, or negative.
    """
    if tokens == math.inf:
        return None
    if isinstance(tokens, bool) or not tokens >= 0 or tokens != int(tokens):
        raise ProblemError(f"budget_tokens must be a whole number of at least 0, not {tokens!r}")
    return int(tokens)


def nusd_limit(usd: float) -> int | None:
    """Return a budget in US dollars as a limit in nano-dollars, rounded down; `None` for no limit.

    Raises:
        ProblemError: It is negative or too large.
    """
    if usd == math.inf:
        return None
    if isinstance(usd, bool) or not 0 <= usd <= MOST_USD:
        raise ProblemError(f"budget_usd must be an amount from 0 to {MOST_USD:,.0f}, or math.inf, not {usd!r}")
    return int(_exactly(usd) * 10**9)


def _exactly(number: float) -> Fraction:
    """Return what is meant by a number as it is written: 1.1 is eleven tenths.

    >>> _exactly(1.1)
    Fraction(11, 10)
    """
    return Fraction(repr(float(number)))


def _changed_limits(problem: Problem, tokens: float | None, usd: float | None) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if tokens is not None:
        limits["max_tokens"] = tokens_limit(tokens)
        limits["reserve_tokens"] = 0 if limits["max_tokens"] is None else problem.reserve_tokens
    if usd is not None:
        limits["max_cost_nusd"] = nusd_limit(usd)
    return limits


def _changed_models(problem: Problem, price: Mapping[str, float]) -> tuple[Model, ...]:
    unknown = sorted(price.keys() - problem.model_of.keys())
    if unknown:
        known = ", ".join(sorted(problem.model_of))
        raise ProblemError(f"price names the model {unknown[0]!r}, which does not exist", hint=f"Known: {known}")
    for name, factor in price.items():
        if isinstance(factor, bool) or not 0 <= factor < math.inf:
            raise ProblemError(f"the price of model {name!r} cannot be multiplied by {factor!r}")
    return tuple(_priced(model, _exactly(price.get(model.id, 1))) for model in problem.models)


def _priced(model: Model, factor: Fraction) -> Model:
    """Return a model with all its prices multiplied, checked as always."""
    tiers = [_multiplied(tier, factor).model_dump() for tier in model.tiers]
    try:
        return Model.model_validate(_multiplied(model, factor).model_dump() | {"tiers": tiers})
    except ValidationError as error:
        raise ProblemError(
            f"the price of model {model.id!r} is too high when it is multiplied by {float(factor):g}",
            hint="Prices go up to 1,000 US dollars per 1,000 tokens",
        ) from error


def _multiplied(prices: Priced, factor: Fraction) -> Priced:
    """Return prices times a factor, rounded up: against the plan."""
    return prices.model_copy(
        update={name: math.ceil(getattr(prices, name) * factor) for name in TokenPrices.model_fields}
    )


def _names(without: Iterable[str]) -> tuple[str, ...]:
    return (without,) if isinstance(without, str) else tuple(dict.fromkeys(without))


def _left_out(problem: Problem, without: tuple[str, ...]) -> tuple[tuple[Agent, ...], tuple[Item, ...]]:
    if not without:
        return problem.agents, problem.items
    agents = {agent.id for agent in problem.agents}
    for name in without:
        if (name in agents) == (name in problem.item_of):
            what = "both an agent and a piece" if name in agents else "neither an agent nor a piece"
            raise ProblemError(f"cannot leave out {name!r}: it is {what}", hint="Name agents and pieces by their ids")
    gone = frozenset(without)
    kept = tuple(_without(agent, gone) for agent in problem.agents if agent.id not in gone)
    return kept, tuple(item for item in problem.items if item.id not in gone)


def _without(agent: Agent, gone: frozenset[str]) -> Agent:
    """Return an agent that knows nothing of the agents and pieces that are gone."""
    uses = [
        use.model_copy(update={"held_if_kept_by": None}) if use.held_if_kept_by in gone else use
        for use in agent.uses
        if use.item_id not in gone
    ]
    return agent.model_copy(
        update={
            "uses": tuple(uses),
            "cached_uses": sum(use.item_id not in gone for use in agent.uses[: agent.cached_uses]),
            "reports_to": None if agent.reports_to in gone else agent.reports_to,
            "after": tuple(name for name in agent.after if name not in gone),
        }
    )


# The cheapest plan of a quality.


def plan_cheapest(
    problem: Problem,
    least_points: float,
    *,
    deadline_ms: float | None = None,
    effort: Effort = STUDY,
    running: Plan | None = None,
) -> Plan:
    """Return the cheapest plan that is worth at least so many points, with a lower bound on what one can cost.

    Its certificate is `cost_bound_nusd`: no plan worth `least_value` costs less. `gap` says how far it is from the most
    valuable plan, as always.

    Args:
        problem: What is to be planned.
        least_points: What the plan must be worth.
        deadline_ms: When to stop improving; `None` means never.
        effort: How hard to look.
        running: A plan from which to start, as in `plan_workflow`.

    Raises:
        ProblemError: `least_points` is not a number.
        InfeasiblePlanError: No plan fits, or none is worth that much.
    """
    if isinstance(least_points, bool) or not math.isfinite(least_points) or abs(least_points) > 2**53:
        raise ProblemError(f"quality must be a number of points, not {least_points!r}")
    search = CheapestSearch(compile_problem(problem), effort, Clock(deadline_ms))
    search.start_from(running)
    search.reach(math.ceil(_exactly(least_points) * UNITS_PER_POINT))
    return finish(problem, search)


class CheapestSearch(Search):
    """A search for the cheapest plan of at least some value, instead of the best one.

    Args:
        compiled: The problem as arrays.
        effort: How hard to look; its gap is that of the cost.
        clock: The deadline.
    """

    def __init__(self, compiled: Compiled, effort: Effort, clock: Clock) -> None:
        super().__init__(compiled, effort, clock)
        self._wanted = -(2**62)

    @property
    def done(self) -> bool:
        """Whether the plan found is valuable enough, and then whether it is cheap enough."""
        if self.choice is None or value(self.compiled, self.choice) < self._wanted:
            return False
        return self.least_value is None or self._dear <= self.effort.gap

    @property
    def _dear(self) -> float:
        """By which share of the cost the plan may be too dear."""
        assert self.choice is not None
        paid = cost(self.compiled, self.choice)
        return (paid - (self.cost_bound or 0)) / max(1, paid)

    def reach(self, least: int) -> None:
        """Look for the cheapest plan that is worth at least `least` value units.

        Raises:
            InfeasiblePlanError: There is none, or none was found.
        """
        self._wanted = least
        if self.done:
            self.pool(self.dual.price(self.dual.zero(), VALUE, latency=True))
        else:
            self.maximise_value()
        if not self.done:
            self._look_further()
        self.least_value = least
        prices, weights = self._generate_cheap_columns(least)
        if self.clock.over:
            return
        for work in (Work.near_margin(self.compiled, self.dual.reduced(prices, weights).segments), None):
            self._ask_for_cheapest(least, prices, weights, work or Work.undecided(self.compiled))
            if self.done or self.clock.over:
                return
        if self._keep_cheaper(self._cheapest_of_all(least)):
            self.source = "cp-sat"

    def _look_further(self) -> None:
        """Ask CP-SAT about the whole model for a plan that is valuable enough."""
        if self.bound >= self._wanted:
            answer = solve_exactly(
                self.compiled, hint=self.choice, lower=self._wanted, upper=self.bound, deterministic_time=EXACT
            )
            if not answer.complaints:
                self._offer(answer.choice)
        if self.done:
            self.source = "cp-sat"
            return
        found = "nothing" if self.choice is None else points(value(self.compiled, self.choice) / UNITS_PER_POINT)
        proven = points(self.bound / UNITS_PER_POINT)
        raise InfeasiblePlanError(
            f"no plan worth {points(self._wanted / UNITS_PER_POINT)} points was found: the best one is worth {found},"
            f" and none is worth more than {proven}",
            hint="Ask for less, raise a limit, or look harder with effort=THOROUGH of the solver",
        )

    def _generate_cheap_columns(self, least: int) -> tuple[Prices, Weights]:
        """Let the linear relaxation and the agents take turns, until its cost is near the bound."""
        assert self.choice is not None
        prices, weights = self._prices_of_cost(least)
        self.pool(self.dual.price(self.dual.zero(), VALUE, latency=True))
        self.pool.add_frugal()
        self.pool.add_choice(self.choice)
        for _ in range(ROUNDS):
            if self.clock.over:
                break
            relaxed = Master(self.dual, self.pool.columns(), Work.undecided(self.compiled)).relax(least)
            if relaxed is None:
                break
            prices, weights = relaxed.prices, relaxed.weights
            pricing = self.dual.price(prices, weights, latency=True)
            bound = weights.value * least - pricing.bound
            self._raise_cost_bound(bound)
            self.pool.add_around(prices, weights, pricing)
            if -relaxed.objective - bound <= self.effort.gap / 3 * abs(bound):
                break
        return prices, weights

    def _ask_for_cheapest(self, least: int, prices: Prices, weights: Weights, work: Work) -> None:
        """Let CP-SAT combine the columns that are best at the last prices."""
        pool = self.pool.columns()
        rows = select(self.dual, pool, [prices], per_agent=2 * self.effort.per_agent, weights=weights)
        answer = Master(self.dual, pool.take(rows), work).cheapest(
            least, limit=self._limits(self.effort.decide), gap=self.effort.gap / 2, hint=self.choice
        )
        self._keep_cheaper(answer.choice)

    def _cheapest_of_all(self, least: int) -> Choice | None:
        assert self.choice is not None
        answer = lower_cost(self.compiled, start=self.choice, least_value=least, deterministic_time=EXACT)
        return None if answer.complaints else answer.choice

    def _keep_cheaper(self, other: Choice | None) -> bool:
        assert self.choice is not None
        if other is None or violations(self.compiled, other) or value(self.compiled, other) < self._wanted:
            return False
        if cost(self.compiled, other) >= cost(self.compiled, self.choice):
            return False
        self.choice = other
        return True
