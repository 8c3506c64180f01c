"""Many what-ifs in a row: how value and bill follow the budget, and what is worth having of tokens, bill and value.

    sweep(problem, budgets_tokens=[200_000, 400_000, 800_000])
    pareto(problem, points=12)

Each plan starts from what the last one taught (`Replanner`), so that a sweep costs little more than a plan or two. The
budgets rise: what fits a smaller budget fits a larger one, so value is never lost on the way, but for what the second
phase gives up for a lower bill.

A bound for a larger budget holds for every smaller one as well. Hence the bounds of a sweep never fall as the budget
rises, and are at least as tight as those of the single plans.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import Field

from apportion.errors import InfeasiblePlanError, ProblemError
from apportion.planner.plan import OPTIMAL_GAP, Nusd, Plan
from apportion.planner.problem import UNITS_PER_POINT, TokenPrices
from apportion.planner.replan import Replanner
from apportion.planner.solver import plan_workflow
from apportion.planner.tables import html_table, points, text_table, usd
from apportion.planner.whatif import STUDY, changed_problem, nusd_limit, plan_cheapest, tokens_limit
from apportion.records import Record, Tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from apportion.planner.problem import Problem
    from apportion.planner.solver import Effort

MOST_POINTS = 10_000
"""More points on a front, or budgets in a sweep, are a mistake."""


class SweepPoint(Record):
    """The plan for one budget.

    Attributes:
        max_tokens: Limit of the workflow in tokens, or `None` for none.
        max_cost_nusd: The same for cost.
        plan: The plan, or `None` where nothing fits.
        bound: Proven upper bound on the value of any plan within this budget; `None` where nothing fits.
        missing: Where nothing fits: what limits lack, each in its unit.
    """

    max_tokens: Tokens | None
    max_cost_nusd: Nusd | None
    plan: Plan | None
    bound: int | None
    missing: dict[str, int] = Field(default_factory=dict)

    @property
    def gap(self) -> float | None:
        """How far the plan is from the best one at most, as a share of the bound."""
        if self.plan is None or self.bound is None:
            return None
        return (self.bound - self.plan.objective) / max(1, abs(self.bound))

    def to_row(self) -> dict[str, Any]:
        """Return the point as a flat row; what does not exist is `None`."""
        plan = self.plan
        prices = {} if plan is None else {price.limit: price for price in plan.prices}
        more_tokens, more_cost = prices.get("tokens"), prices.get("cost")
        return {
            "budget_tokens": self.max_tokens,
            "budget_usd": None if self.max_cost_nusd is None else self.max_cost_nusd / 1e9,
            "fits": plan is not None,
            "points": None if plan is None else plan.points,
            "bound_points": None if self.bound is None else self.bound / UNITS_PER_POINT,
            "gap": self.gap,
            "tokens": None if plan is None else plan.tokens,
            "cost_usd": None if plan is None else plan.cost_usd,
            "agents_deferred": None if plan is None else len(plan.deferred),
            "pieces_shortened": None if plan is None else _shortened(plan),
            "points_per_1k_tokens": None if more_tokens is None else more_tokens.points_per_1k_tokens,
            "points_per_cent": None if more_cost is None else more_cost.points_per_cent,
        }


class Sweep(Record):
    """Plans for rising budgets.

    Attributes:
        axis: What the budgets limit.
        points: One entry per budget, each once, in rising order.
    """

    axis: Literal["tokens", "usd"]
    points: tuple[SweepPoint, ...]

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one flat row per budget, for tables and plots."""
        return [point.to_row() for point in self.points]

    def __str__(self) -> str:
        return "\n".join(text_table(_SWEEP_HEAD, self._rows()))

    def _repr_html_(self) -> str:
        """Return the sweep for a notebook."""
        return html_table(_SWEEP_HEAD, self._rows())

    def _rows(self) -> list[tuple[str, ...]]:
        return [_sweep_row(point, self.axis) for point in self.points]


_SWEEP_HEAD = ("budget", "points", "at most", "tokens", "cost", "deferred", "shortened")


def _sweep_row(point: SweepPoint, axis: str) -> tuple[str, ...]:
    limit = point.max_tokens if axis == "tokens" else point.max_cost_nusd
    budget = "none" if limit is None else f"{limit:,}" if axis == "tokens" else usd(limit)
    if point.plan is None or point.bound is None:
        lacks = ", ".join(f"{name}: {amount:,}" for name, amount in point.missing.items())
        return (budget, f"nothing fits; missing {lacks}" if lacks else "nothing fits", *[""] * 5)
    return (
        budget,
        points(point.plan.points),
        points(point.bound / UNITS_PER_POINT),
        f"{point.plan.tokens:,}",
        usd(point.plan.cost_nusd),
        str(len(point.plan.deferred)),
        str(_shortened(point.plan)),
    )


def _shortened(plan: Plan) -> int:
    return sum(piece.form != "keep" for agent in plan.agents for piece in agent.pieces)


def sweep(
    problem: Problem,
    *,
    budgets_tokens: Iterable[float] | None = None,
    budgets_usd: Iterable[float] | None = None,
    effort: Effort = STUDY,
) -> Sweep:
    """Plan a workflow for many budgets, of tokens or of US dollars; its other limits stay as they are.

    A budget for which nothing fits is an answer, not an error: it says what is missing.

    Args:
        problem: What is to be planned.
        budgets_tokens: Limits of the workflow in tokens, `math.inf` for none.
        budgets_usd: Limits of the workflow in US dollars; instead of the former.
        effort: How hard to look.

    Raises:
        ProblemError: A budget is not possible, or not exactly one kind of budgets is given.
    """
    if (budgets_tokens is None) == (budgets_usd is None):
        raise ProblemError("a sweep needs either budgets_tokens or budgets_usd")
    budgets = sorted({*(budgets_tokens or ()), *(budgets_usd or ())})
    _require_few("budgets", len(budgets))
    steps = [
        _Budget(tokens_limit(budget), problem.max_cost_nusd)
        if budgets_usd is None
        else _Budget(problem.max_tokens, nusd_limit(budget))
        for budget in budgets
    ]
    axis: Literal["tokens", "usd"] = "tokens" if budgets_usd is None else "usd"
    planner = _Planner(problem, effort)
    if steps:
        least = _leanest(problem, effort) if axis == "tokens" else _cheapest(problem, effort)
        planner.know(least)
        if axis == "usd" and least is not None:
            planner.least_nusd = least.cost_bound_nusd or 0
        planner.point(steps[-1])  # columns of the largest budget serve all others
    return Sweep(
        axis=axis,
        points=tuple(_with_shared_bounds([planner.point(step) for step in steps])),
    )


def _with_shared_bounds(rising: Sequence[SweepPoint]) -> Iterator[SweepPoint]:
    """Lower each bound to the least one of the larger budgets; limits that rise make no plan worse."""
    least: int | None = None
    shared = []
    for point in reversed(rising):
        if point.bound is not None:
            least = point.bound if least is None else min(least, point.bound)
        shared.append(point if point.bound is None else point.model_copy(update={"bound": least}))
    yield from reversed(shared)


def _require_few(what: str, number: int) -> None:
    if number > MOST_POINTS:
        raise ProblemError(f"{number:,} {what} are too many", hint=f"Ask for {MOST_POINTS:,} at most")


class _Budget(NamedTuple):
    """Limits of the workflow."""

    max_tokens: int | None
    max_cost_nusd: int | None


class _Planner:
    """Plans one problem for budget after budget, each from the best plan known that fits.

    Attributes:
        least_nusd: What any plan is known to cost at least.
    """

    def __init__(self, problem: Problem, effort: Effort) -> None:
        self._problem = problem
        self._effort = effort
        self._replanner: Replanner | None = None
        self._known: list[Plan] = []
        self.least_nusd = 0

    def know(self, plan: Plan | None) -> None:
        """Start from a plan wherever it fits and nothing better is known."""
        if plan is not None:
            self._known.append(plan)

    def point(self, budget: _Budget) -> SweepPoint:
        """Return the plan within a budget, or what it lacks."""
        if budget.max_cost_nusd is not None and budget.max_cost_nusd < self.least_nusd:
            lacks = self.least_nusd - budget.max_cost_nusd
            return SweepPoint(**budget._asdict(), plan=None, bound=None, missing={"cost": lacks})
        try:
            plan = self._plan(budget)
        except InfeasiblePlanError as error:
            return SweepPoint(**budget._asdict(), plan=None, bound=None, missing=error.missing)
        self.know(plan)
        return SweepPoint(**budget._asdict(), plan=plan, bound=plan.bound)

    def _plan(self, budget: _Budget) -> Plan:
        reserve = 0 if budget.max_tokens is None else self._problem.reserve_tokens
        if budget.max_tokens is not None and reserve > budget.max_tokens:
            lacks = reserve - budget.max_tokens
            raise InfeasiblePlanError("the reserve alone exceeds the budget", missing={"tokens": lacks})
        limits = {**budget._asdict(), "reserve_tokens": reserve}
        if self._replanner is None:
            problem = self._problem.model_copy(update=limits)
            self._replanner = Replanner(problem, deadline_ms=None, effort=self._effort)
            return self._replanner.plan
        self._replanner.plan = self._best_known(budget, reserve) or self._replanner.plan
        return self._replanner.replan(deadline_ms=None, **limits)

    def _best_known(self, budget: _Budget, reserve: int) -> Plan | None:
        fitting = [
            plan
            for plan in self._known
            if (budget.max_tokens is None or plan.tokens <= budget.max_tokens - reserve)
            and (budget.max_cost_nusd is None or plan.cost_nusd <= budget.max_cost_nusd)
        ]
        return max(fitting, key=lambda plan: plan.objective, default=None)


def _cheapest(problem: Problem, effort: Effort, running: Plan | None = None) -> Plan | None:
    """Return the cheapest plan, whatever it is worth and whatever its limit on cost; `None` where nothing fits."""
    try:
        return plan_cheapest(changed_problem(problem, budget_usd=math.inf), WORTHLESS, effort=effort, running=running)
    except InfeasiblePlanError:
        return None


def _leanest(problem: Problem, effort: Effort) -> Plan | None:
    """Return a plan of few tokens, whatever it is worth and whatever its limit on tokens; `None` where nothing fits.

    It is the cheapest one where each token costs the same.
    """
    free = changed_problem(problem, budget_tokens=math.inf)
    even = dict.fromkeys(TokenPrices.model_fields, 1000)
    models = tuple(
        model.model_copy(update=even | {"tiers": tuple(tier.model_copy(update=even) for tier in model.tiers)})
        for model in free.models
    )
    stages = tuple(stage.model_copy(update={"max_cost_nusd": None}) for stage in free.stages)
    lean = _cheapest(free.model_copy(update={"models": models, "stages": stages}), effort)
    if lean is None:
        return None
    try:
        return plan_workflow(
            changed_problem(free, budget_tokens=lean.tokens), deadline_ms=None, effort=effort, running=lean
        )
    except InfeasiblePlanError:
        return None


WORTHLESS = -(2**31)
"""Points that any plan is worth."""


# The front.


class FrontPoint(Record):
    """A plan of which nothing can be had for nothing.

    Attributes:
        plan: The plan; `tokens`, `cost_nusd` and `objective` are what the front is about.
        max_tokens: The limit on tokens under which it was found, or `None`.
        max_cost_nusd: The same for cost.
        bound: Proven upper bound on the value of any plan within these limits.
        gap: How far the plan is from that, as a share of it: its certificate.
    """

    plan: Plan
    max_tokens: Tokens | None
    max_cost_nusd: Nusd | None
    bound: int
    gap: Annotated[float, Field(ge=0.0)]

    def to_row(self) -> dict[str, Any]:
        """Return the point as a flat row."""
        return {
            "tokens": self.plan.tokens,
            "cost_usd": self.plan.cost_usd,
            "points": self.plan.points,
            "bound_points": self.bound / UNITS_PER_POINT,
            "gap": self.gap,
            "certified": "optimal" if self.gap <= OPTIMAL_GAP else "near-optimal",
            "agents_deferred": len(self.plan.deferred),
            "pieces_shortened": _shortened(self.plan),
        }


class Pareto(Record):
    """What can be had of few tokens, a low bill and much value: no point is better than another in all three.

    Attributes:
        points: The points, by rising tokens, then cost.
        tried: How many limits were tried.
    """

    points: tuple[FrontPoint, ...]
    tried: int

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one flat row per point, for tables and plots."""
        return [point.to_row() for point in self.points]

    def __str__(self) -> str:
        return "\n".join([self._summary(), "", *text_table(_FRONT_HEAD, self._rows())])

    def _repr_html_(self) -> str:
        """Return the front for a notebook."""
        return f"<p>{escape(self._summary())}</p>{html_table(_FRONT_HEAD, self._rows())}"

    def _summary(self) -> str:
        worst = max((point.gap for point in self.points), default=0.0)
        return f"{len(self.points)} plans out of {self.tried} limits tried; certified gap at most {worst:.2%}."

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                f"{point.plan.tokens:,}",
                usd(point.plan.cost_nusd),
                points(point.plan.points),
                points(point.bound / UNITS_PER_POINT),
                f"{point.gap:.2%}",
                str(len(point.plan.deferred)),
                str(_shortened(point.plan)),
            )
            for point in self.points
        ]


_FRONT_HEAD = ("tokens", "cost", "points", "at most", "gap", "deferred", "shortened")


def pareto(problem: Problem, points: int = 12, *, effort: Effort = STUDY) -> Pareto:
    """Return a front of tokens, bill and value.

    The limits of the problem hold; within them, limits on tokens are tried from what must run at least to what is
    wanted without one, and within each of these limits on cost likewise (the epsilon-constraint method: Haimes, Lasdon
    and Wismer, "On a Bicriterion Formulation of the Problems of Integrated System Identification and System
    Optimization", IEEE Transactions on Systems, Man, and Cybernetics 1, 1971). Plans that another one beats in all
    three are left out, so the front may hold fewer points.

    Args:
        problem: What is to be planned.
        points: How many limits to try, about.
        effort: How hard to look.

    Raises:
        ProblemError: `points` is not a whole number of at least 1.
        InfeasiblePlanError: Nothing fits the limits of the problem.
    """
    if isinstance(points, bool) or not isinstance(points, int) or points < 1:
        raise ProblemError(f"points must be a whole number of at least 1, not {points!r}")
    _require_few("points", points)
    first = plan_workflow(problem, deadline_ms=None, effort=effort)
    whole = _Budget(problem.max_tokens, problem.max_cost_nusd)
    found = [SweepPoint(**whole._asdict(), plan=first, bound=first.bound)]
    first = plan_workflow(problem, deadline_ms=None, effort=effort)
    whole = _Budget(problem.max_tokens, problem.max_cost_nusd)
    found = [SweepPoint(**whole._asdict(), plan=first, bound=first.bound)]
    planner = _Planner(problem, effort)
    planner.know(first)
    leanest = _leanest(problem, effort) or first
    planner.know(leanest)
    dearest = DEAREST * first.cost_nusd if whole.max_cost_nusd is None else whole.max_cost_nusd
    rows = math.ceil(math.sqrt(points))
    for tokens in _levels(leanest.tokens, first.tokens, rows):
        limit = tokens + problem.reserve_tokens
        point = planner.point(_Budget(limit, dearest))
        found.append(point)
        if point.plan is not None:
            narrowed = changed_problem(problem, budget_tokens=limit)
            cheapest = _cheapest(narrowed, effort, running=point.plan) or point.plan
            planner.know(cheapest)
            costs = _levels(cheapest.cost_nusd, point.plan.cost_nusd, math.ceil(points / rows))[:-1]
            found += [planner.point(_Budget(limit, most)) for most in costs]
    return Pareto(points=tuple(_front(_with_grid_bounds(found))), tried=len(found))


DEAREST = 2
"""Where the cost has no limit, one is set so many times above the first plan's: limits that stay are quicker."""


def _levels(least: int, most: int, number: int) -> list[int]:
    """Return so many rising limits, both ends included.

    >>> _levels(10, 100, 4)
    [10, 40, 70, 100]
    """
    if number == 1 or most <= least:
        return [most]
    return sorted({least + (most - least) * step // (number - 1) for step in range(number)})


def _with_grid_bounds(found: Iterable[SweepPoint]) -> list[SweepPoint]:
    """Lower each bound to the least one of limits that allow at least as much; leave out where nothing fits."""
    bounds = [(_limits(point), point.bound, point) for point in found if point.bound is not None]
    return [
        point.model_copy(
            update={"bound": min(bound for (t, c), bound, _ in bounds if t >= tokens and c >= cost)},
        )
        for (tokens, cost), _, point in bounds
    ]


def _limits(point: SweepPoint) -> tuple[float, float]:
    tokens, cost = point.max_tokens, point.max_cost_nusd
    return math.inf if tokens is None else tokens, math.inf if cost is None else cost


def _front(found: Iterable[SweepPoint]) -> Iterator[FrontPoint]:
    """Yield the points that no other one beats, each once."""
    plans = [(point.plan, point) for point in found if point.plan is not None]
    by_tokens = sorted(plans, key=lambda pair: (pair[0].tokens, pair[0].cost_nusd, -pair[0].objective))
    kept: list[Plan] = []
    for plan, point in by_tokens:
        if any(other.cost_nusd <= plan.cost_nusd and other.objective >= plan.objective for other in kept):
            continue
        kept.append(plan)
        assert point.bound is not None
        assert point.gap is not None
        yield FrontPoint(
            plan=plan,
            max_tokens=point.max_tokens,
            max_cost_nusd=point.max_cost_nusd,
            bound=point.bound,
            gap=point.gap,
        )
