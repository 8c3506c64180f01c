"""Solving the joint problem: prices bound it, columns and CP-SAT plan it, a validator and the bound judge the plan.

    1. Prices on limits and links: a bound on every plan, and columns on the way (`dual`, `columns`).
    2. If what the agents do at no price fits, nothing is better, and no solver is needed.
    3. CP-SAT is asked for a plan within the wanted gap of the bound.
    4. If it refuses, the linear relaxation of the master problem moves the prices; the dynamic programs of the agents
       turn them into a tighter bound and better columns, and it is asked again (`master`, column generation). Of many
       agents the relaxation leaves only a few torn, and CP-SAT decides about those. What prices cannot prove is split
       into cases (`branching`).
    5. Second phase: among plans of nearly that value, CP-SAT looks for a cheap one. Then memory goes to what saves most
       time; a thorough search asks for the fastest plan of that value and cost, and for the one nearest to the running.
    6. Whatever comes out passes a validator that shares no code with this.

A plan that fits always exists or its absence is proved (`elastic`). Nothing depends on the clock but the deadline, and
a plan that the deadline cut short says so.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from apportion.errors import PlanError
from apportion.planner.branching import bound_by_cases
from apportion.planner.choice import Choice, cost, from_plan, latency_ms, to_plan, value, violations
from apportion.planner.columns import Pool, reduced_values, select
from apportion.planner.compiled import compile_problem
from apportion.planner.dual import BOUND_SOURCE, VALUE, Dual, Prices, Pricing, Weights
from apportion.planner.improve import fill_work, preload_what_helps
from apportion.planner.master import Limits, Master, Relaxation, Work
from apportion.planner.plan import LimitPrice
from apportion.planner.validate import validate_plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apportion.planner.columns import Columns
    from apportion.planner.compiled import Compiled
    from apportion.planner.plan import Plan, Source, Stop
    from apportion.planner.problem import Problem

DEADLINE_MS = 250.0
"""Long enough for nearly every plan of ten agents to be finished, and short beside a model call of some seconds.

A plan that is cut short falls back to one that only fits, which is far worse than one that is a little late.
"""

GAP = 0.01
"""Certified gap at which the first answer is good enough."""

COST_GAP = 1e-6
"""CP-SAT's own gap at which the second phase stops; the deterministic time ends it sooner where that is hard."""

CONCEDED = 0.5
"""Part of the wanted gap that may be given up for a lower bill: demand forecasts are not sharper than that."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to look for a plan.

    Attributes:
        gap: Certified gap at which to stop.
        steps: Subgradient steps at the beginning.
        rounds: Rounds of column generation at most.
        per_agent: Columns of each agent that CP-SAT may combine.
        decide: Deterministic time of one decision of CP-SAT.
        cheapen: Deterministic time of CP-SAT in the second phase.
        cost_columns: Whether the second phase makes columns of its own where the first had to make some.
        cases: Cases into which the bound may be split, if prices alone do not reach the gap.
        exact: Deterministic time of CP-SAT on the whole model, if columns do not reach the gap.
    """

    gap: float = GAP
    steps: int = 16
    rounds: int = 3
    per_agent: int = 6
    decide: float = 0.02
    cheapen: float = 0.0015
    cost_columns: bool = False
    cases: int = 16
    exact: float = 0.0


CASE_STEPS = 12
"""Subgradient steps for each case of a bound by cases."""

LOWEST = -(2**52)
"""A value below that of any plan."""

FEW_AGENTS = 4
"""Up to this the whole model is asked where columns do not reach the gap: with few agents they are coarse."""

FEW_TIME = 0.05
"""Deterministic time of CP-SAT on the whole model of a few agents."""

MANY_AGENTS = 30
"""Above this the linear relaxation is rounded: it leaves only a few agents torn, however many there are."""

MANY_GAP = 0.003
"""Certified gap at which an answer about many agents is good enough."""

MANY_STEPS = 3
"""How many times more subgradient steps many agents get at the beginning: their steps are cheap beside a relaxation."""

PARTS = (1.0, 0.5)
"""How far on the way from the best prices to those of the relaxation agents are asked; all the way is often too far."""

MANY_PARTS = (0.6, 0.3, 0.1)
"""The same for many agents: their relaxation jumps about more, and steps that fall short keep the bound falling."""

MANY_ROUNDS = 3
"""How many times more rounds of column generation they get."""

TORN = 1e-6
"""What counts as fractional in the linear relaxation."""

ROUNDING_TIMES = 10
"""How much longer than about a few agents CP-SAT may decide about many."""

TIME_PER_AGENT = 0.002
"""Deterministic time per agent that CP-SAT may look for any plan at all."""

NEARLY_TORN = 40
"""Certain agents that CP-SAT may decide about as well: those with the best second choice."""

EXCHANGE_RATES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Where the second phase looks for what a unit of value may cost, as multiples of the plan's average."""

SOLVERS = (
    "ortools.sat.python.cp_model_helper",
    "ortools.linear_solver.python.model_builder_helper",
    "scipy.sparse",
)
"""What the search loads on first use."""

QUICK = Effort()
"""For an answer before an invocation."""

THOROUGH = Effort(
    gap=1e-3, steps=24, rounds=8, per_agent=16, decide=0.2, cheapen=0.1, cost_columns=True, cases=300, exact=0.5
)
"""For improvement in the background, what-if studies and proofs."""


class Search:
    """One search for a plan; keeps what a later one can start from.

    Args:
        compiled: The problem as arrays.
        effort: How hard to look.
        clock: The deadline.
    """

    def __init__(self, compiled: Compiled, effort: Effort, clock: Clock) -> None:
        self.compiled = compiled
        self.effort = effort
        self.clock = clock
        self.dual = Dual(compiled)
        self.pool = Pool(self.dual)
        self.prices = self.dual.zero()
        self.bound = self.bound_of_prices = 2**62
        self.choice: Choice | None = None
        self.running: Choice | None = None
        self.least_value: int | None = None
        self.cost_bound: int | None = None
        self.source: Source = "columns"
        self.degraded: list[str] = []
        self.master: Master | None = None

    def start_from(self, plan: Plan | None) -> None:
        """Keep a running plan as long as nothing better is found."""
        choice = None if plan is None else from_plan(self.compiled, plan)
        self.running = choice
        if choice is not None and not violations(self.compiled, choice):
            self.choice = choice
            self.pool.add_choice(choice)

    def change_limits(self, amounts: Sequence[int], clock: Clock) -> None:
        """Start anew with other amounts of the same limits; columns, prices and the last model are kept.

        What the agents do at the last prices does not depend on the amounts, so the new bound needs no pricing.
        """
        old = self.dual.amounts.copy()
        self.compiled.limits[:] = [
            limit._replace(amount=amount) for limit, amount in zip(self.compiled.limits, amounts, strict=True)
        ]
        self.dual.amounts[:] = amounts
        change = float((self.prices.limits * (self.dual.amounts - old)).sum())
        self.bound = self.bound_of_prices = _rounded_up(self.bound_of_prices + change)
        self.clock = clock
        self.choice = self.least_value = self.cost_bound = None
        self.source, self.degraded = "columns", []
        if self.master is not None:
            self.master.change_limits(amounts)

    def run(self) -> None:
        """Look for a plan of much value, and then for a cheap one of nearly that value."""
        self.maximise_value()
        if not self.clock.over:
            self.lower_cost()

    # First phase: value.

    def maximise_value(self) -> None:
        """Look for a plan whose value is within the wanted gap of the bound."""
        if self.master is not None:
            self._ask(self.master, self.effort.decide)
            if self.done:
                return
        free = self.dual.price(self.dual.zero(), VALUE, latency=True)
        self._lower_bound(self.dual.zero(), free.bound)
        self.pool(free)
        self._offer(self._unlimited(free))
        if not self.done:
            steps = self.effort.steps * (MANY_STEPS if self.many else 1)
            self._descend(self.dual.start(VALUE), steps=steps, latency=self.many)
            self.pool.add_frugal()
            self._price(self.prices, far=True)
            self._generate_columns()
        if self.choice is None:
            self._fall_back()
        self._bound_by_cases()
        if not self.done and not self.clock.over and (self.effort.exact or self.few):
            self._solve_whole()
            self._bound_by_cases()

    def _generate_columns(self) -> None:
        """Move prices by the linear relaxation, and decide whenever it is near the bound; of few agents at once."""
        if not self.many:
            self._decide(refusal_ends=False)
            if self.done:
                return
        support = np.zeros(0, dtype=np.int64)
        relaxed: Relaxation | None = None
        rounds = self.effort.rounds * (MANY_ROUNDS if self.many else 1)
        for round_number in range(rounds):
            if self.clock.over:
                return
            pool = self.pool.columns()
            rows = np.arange(len(pool.mode))
            if self.many:
                compared = [self.prices] if relaxed is None else [self.prices, relaxed.prices]
                rows = np.union1d(support, select(self.dual, pool, compared, per_agent=self.effort.per_agent))
            columns = pool.take(rows)
            relaxed = Master(self.dual, columns, self._open_work()).relax()
            if relaxed is not None:
                support = rows[relaxed.columns > TORN]
                best = self.prices
                for part in MANY_PARTS if self.many else PARTS:
                    self._price(_between(best, relaxed.prices, part))
            near = relaxed is not None and self.bound - relaxed.objective <= self.gap_wanted / 2 * abs(self.bound)
            if near or round_number + 1 == rounds:
                if self.many and relaxed is not None:
                    self._round(columns, relaxed)
                else:
                    self._decide()
                if self.done:
                    return

    def _open_work(self) -> Work:
        """Return the work that the linear relaxation decides: of many agents, only what is near the margin."""
        if not self.many:
            return Work.undecided(self.compiled)
        return Work.near_margin(self.compiled, self.dual.reduced(self.prices, VALUE).segments)

    def _round(self, columns: Columns, relaxed: Relaxation) -> None:
        """Fix the agents about which the relaxation is certain, and let CP-SAT decide about the others."""
        agents = self.compiled.agent_of[columns.mode]
        used = relaxed.columns
        most = np.zeros(len(self.compiled.problem.agents))
        np.maximum.at(most, agents, used)
        torn = (most < 1.0 - TORN) & (most > TORN)
        torn |= (most <= TORN) & ~self.compiled.deferrable
        values = reduced_values(self.dual, columns, relaxed.prices, VALUE)
        loss = self.dual.price(relaxed.prices, VALUE).agent_values[agents] - values
        spare = np.where((used > TORN) | torn[agents], np.inf, loss)
        second = np.full(len(most), np.inf)
        np.minimum.at(second, agents, spare)
        torn[np.argsort(second, kind="stable")[:NEARLY_TORN]] = True
        rows = np.flatnonzero((used > TORN) | torn[agents])
        full = self.compiled.quanta > 0
        settled = relaxed.work >= self.compiled.quanta - TORN
        number = np.arange(full.shape[1])[None, :]
        length = (settled & full).sum(axis=1)[:, None]
        free = full & (number >= length - 1) & (number <= length)
        free |= full & (relaxed.work > TORN) & ~settled
        is_torn = torn[self.compiled.agent_of][:, None]
        free |= full & is_torn
        work = Work(np.where(settled & ~free, self.compiled.quanta, 0), free)
        chosen = columns.take(rows)
        chosen = chosen._replace(needed=np.zeros_like(chosen.needed))
        master = Master(self.dual, chosen, work)
        self._ask(master, ROUNDING_TIMES * self.effort.decide)

    def _bound_by_cases(self) -> None:
        """Tighten the bound where prices alone leave a gap that is wider than wanted."""
        if self.choice is None or self.done or self.many or self.clock.over:
            return
        target = value(self.compiled, self.choice) / (1.0 - self.gap_wanted)
        bound = bound_by_cases(
            self.dual,
            self.prices,
            target=target,
            cases=self.effort.cases,
            steps=CASE_STEPS,
            stop=lambda: self.clock.over,
        )
        self.bound = min(self.bound, _rounded_up(bound))

    def _solve_whole(self) -> None:
        """Ask CP-SAT for a better plan on the whole model; its own bound is not used, only its plan."""
        from apportion.planner.exact import solve_exactly

        answer = solve_exactly(
            self.compiled,
            hint=self.choice,
            lower=None if self.choice is None else value(self.compiled, self.choice),
            upper=self.bound,
            deterministic_time=max(self.effort.exact, FEW_TIME if self.few else 0.0),
        )
        refused = answer.status in {"INFEASIBLE", "MODEL_INVALID"} and self.choice is not None
        if answer.complaints:
            self.degraded += answer.complaints
        elif refused:
            self.degraded.append(f"CP-SAT says {answer.status} of a problem for which a plan is known")
        elif answer.choice is not None and self._offer(answer.choice):
            self.source = "cp-sat"

    def _fall_back(self) -> None:
        """Find any plan that fits, or prove that there is none; then look for a better one on the whole model."""
        from apportion.planner.elastic import find_floor

        if not self._any_of_the_columns():
            self._offer(find_floor(self.compiled))
            self.source = "floor"
        if not self.clock.over and not self.many:
            self._solve_whole()

    def _any_of_the_columns(self) -> bool:
        """Ask for any plan at all: of the columns combined last, and of the most frugal ones, without work.

        Where thousands of agents press on a limit, that is far easier than the whole model.
        """
        pool = self.pool.columns()
        frugal = pool.take(np.flatnonzero(pool.needed))
        quanta = self.compiled.quanta
        idle = Work(np.zeros_like(quanta), np.zeros(quanta.shape, dtype=np.bool_))
        time_limit = max(ROUNDING_TIMES * self.effort.decide, TIME_PER_AGENT * len(self.compiled.problem.agents))
        for master in (self.master, Master(self.dual, frugal, idle)):
            if master is not None and self._offer(master.decide(LOWEST, limit=self._limits(time_limit)).choice):
                return True
        return False

    @property
    def few(self) -> bool:
        """Whether there are so few agents that columns are coarse, and the whole model is small."""
        return len(self.compiled.problem.agents) <= FEW_AGENTS

    @property
    def many(self) -> bool:
        """Whether there are so many agents that the linear relaxation is rounded."""
        return len(self.compiled.problem.agents) > MANY_AGENTS

    @property
    def gap_wanted(self) -> float:
        """The gap at which to stop; many agents allow a smaller one, because each counts for less."""
        return min(self.effort.gap, MANY_GAP) if self.many else self.effort.gap

    @property
    def done(self) -> bool:
        """Whether the plan found is within the wanted gap."""
        return self.choice is not None and self.gap <= self.gap_wanted

    @property
    def gap(self) -> float:
        """The certified gap of the plan found."""
        if self.choice is None:
            return math.inf
        return (self.bound - value(self.compiled, self.choice)) / max(1, abs(self.bound))

    def _descend(self, start: Prices, *, steps: int, latency: bool) -> None:
        """Lower the bound by subgradient steps, and collect columns on the way."""
        prices, pricing = self.dual.descend(start, steps=steps, latency=latency, visit=self.pool)
        self._lower_bound(prices, pricing.bound)

    def _price(self, prices: Prices, *, far: bool = False) -> None:
        """Let the agents answer some prices: a bound, the best columns, and others around them."""
        pricing = self.dual.price(prices, VALUE, latency=True)
        self._lower_bound(prices, pricing.bound)
        self.pool.add_around(prices, VALUE, pricing, far=far)

    def _lower_bound(self, prices: Prices, bound: float) -> None:
        """Take note of a bound and of the prices that prove it."""
        if bound == -math.inf:
            return
        whole = _rounded_up(bound)
        if whole < self.bound_of_prices:
            self.bound_of_prices, self.prices = whole, prices
            self.bound = min(self.bound, whole)

    def _unlimited(self, free: Pricing) -> Choice | None:
        """Return what the agents do at no price, as a choice."""
        if free.bound == -math.inf:
            return None
        most = self.compiled.quanta.sum(axis=1)
        modes = free.mode.tolist()
        none = (0,) * self.compiled.value.shape[1]
        return Choice(
            tuple(modes),
            tuple(none if mode < 0 else tuple(free.options[mode].tolist()) for mode in modes),
            tuple(0 if mode < 0 else int(most[mode]) for mode in modes),
            tuple(mode >= 0 and bool(free.preload[mode]) for mode in modes),
        )

    def _limits(self, deterministic_time: float) -> Limits:
        return Limits(deterministic_time, self.clock.left_s)

    def _offer(self, choice: Choice | None) -> bool:
        """Keep a choice if it can be carried out and is worth more than what is known."""
        if choice is None or violations(self.compiled, choice):
            return False
        bare = choice._replace(quanta=(0,) * len(choice.quanta))
        choice = max((fill_work(self.compiled, start) for start in (choice, bare)), key=self._worth)
        if self.choice is not None and value(self.compiled, choice) <= value(self.compiled, self.choice):
            return False
        self.choice = choice
        return True

    def _decide(self, *, refusal_ends: bool = True) -> None:
        """Let CP-SAT combine the best columns of the pool."""
        pool = self.pool.columns()
        columns = pool.take(select(self.dual, pool, [self.prices], per_agent=self.effort.per_agent))
        net = self.dual.reduced(self.prices, VALUE).segments
        master = Master(self.dual, columns, Work.near_margin(self.compiled, net))
        self._ask(master, self.effort.decide, refusal_ends=refusal_ends)

    def _ask(self, master: Master, deterministic_time: float, *, refusal_ends: bool = True) -> None:
        """Ask CP-SAT for a plan within the gap.

        Args:
            master: What to combine.
            deterministic_time: How long CP-SAT may take.
            refusal_ends: Whether to ask for the best of the columns where it refuses: it is still a plan.
        """
        self.master = master
        limit = self._limits(deterministic_time)
        answer = master.decide(self.bound - int(self.gap_wanted * abs(self.bound)), limit=limit)
        if answer.choice is None and refusal_ends:
            least = LOWEST if self.choice is None else value(self.compiled, self.choice) + 1
            answer = master.best(least, limit=limit, gap=self.effort.gap / 4, hint=self.choice)
        self._offer(answer.choice)

    def _worth(self, choice: Choice) -> int:
        return value(self.compiled, choice)

    # Third and fourth phase: latency, and staying with the running plan.

    def settle(self) -> None:
        """Use the memory for what saves most time; in a thorough search, look for the fastest and most stable plan."""
        assert self.choice is not None
        self.choice = preload_what_helps(self.compiled, self.choice)
        if not self.effort.exact or self.many or self.clock.over:
            return
        from apportion.planner.exact import lower_latency, stay_close

        least = value(self.compiled, self.choice) if self.least_value is None else self.least_value
        most_cost = cost(self.compiled, self.choice)
        time_limit = self.effort.exact / 5.0
        faster = lower_latency(
            self.compiled, start=self.choice, least_value=least, most_cost=most_cost, deterministic_time=time_limit
        )
        if faster.choice is not None and not faster.complaints:
            self.choice = faster.choice
        if self.running is None:
            return
        closer = stay_close(
            self.compiled,
            start=self.choice,
            running=self.running,
            least_value=least,
            most_cost=most_cost,
            most_latency_ms=latency_ms(self.compiled, self.choice),
            deterministic_time=time_limit,
        )
        if closer.choice is not None and not closer.complaints:
            self.choice = closer.choice

    # Second phase: cost.

    def lower_cost(self) -> None:
        """Look for a cheaper plan that is worth nearly as much, and bound how cheap one can be."""
        assert self.choice is not None
        worth = value(self.compiled, self.choice)
        least = min(worth, self.bound - int(self.gap_wanted * CONCEDED * abs(self.bound)))
        self.least_value = least
        prices, weights = self._prices_of_cost(least)
        master = self.master
        if master is None or self.effort.cost_columns:
            master = self._master_of_cost(prices, weights, least)
        if self.clock.over:
            return
        answer = master.cheapest(least, limit=self._limits(self.effort.cheapen), gap=COST_GAP, hint=self.choice)
        better = answer.choice
        if better is None or violations(self.compiled, better) or value(self.compiled, better) < least:
            return
        if cost(self.compiled, better) < cost(self.compiled, self.choice):
            self.choice = better

    def _master_of_cost(self, prices: Prices, weights: Weights, least: int) -> Master:
        """Return a master problem over columns that are good for the bill; improves the bound on it on the way."""
        assert self.choice is not None
        self.pool.add_choice(self.choice)
        relaxed = Master(self.dual, self.pool.columns(), Work.undecided(self.compiled)).relax(least)
        if relaxed is not None:
            prices, weights = relaxed.prices, relaxed.weights
            pricing = self.dual.price(prices, weights, latency=True)
            self._raise_cost_bound(weights.value * least - pricing.bound)
            self.pool.add_around(prices, weights, pricing)
        pool = self.pool.columns()
        chosen = pool.take(select(self.dual, pool, [prices], per_agent=self.effort.per_agent, weights=weights))
        work = Work.near_margin(self.compiled, self.dual.reduced(prices, weights).segments)
        return Master(self.dual, chosen, work)

    def _prices_of_cost(self, least: int) -> tuple[Prices, Weights]:
        """Return prices of the second phase: those of the first, at the exchange rate that bounds cost best."""
        assert self.choice is not None
        rate = cost(self.compiled, self.choice) / max(1, abs(self.bound))
        best = (-math.inf, self.prices, Weights(rate, 1.0))
        for factor in EXCHANGE_RATES:
            weights = Weights(rate * factor, 1.0)
            prices = Prices(self.prices.limits * weights.value, self.prices.links * weights.value)
            pricing = self.dual.price(prices, weights)
            self.pool(pricing)
            bound = weights.value * least - pricing.bound
            self._raise_cost_bound(bound)
            if bound > best[0]:
                best = (bound, prices, weights)
        return best[1], best[2]

    def _raise_cost_bound(self, bound: float) -> None:
        """Take note of a lower bound on the cost, rounded down."""
        if math.isfinite(bound):
            whole = max(0, math.ceil(bound - abs(bound) * 1e-12) - 1)
            self.cost_bound = whole if self.cost_bound is None else max(whole, self.cost_bound)


class Clock:
    """The time until the deadline; `None` never ends."""

    def __init__(self, deadline_ms: float | None) -> None:
        self._end = None if deadline_ms is None else time.perf_counter() + deadline_ms / 1e3

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, a moment at least."""
        return 3600.0 if self._end is None else max(1e-3, self._end - time.perf_counter())

    @property
    def over(self) -> bool:
        """Whether the deadline has passed."""
        return self._end is not None and time.perf_counter() >= self._end


def _rounded_up(bound: float) -> int:
    """Return a bound as a whole number, so much above that rounding in doubles cannot make it wrong."""
    return math.floor(bound + abs(bound) * 1e-12) + 1


def _between(left: Prices, right: Prices, part: float) -> Prices:
    """Return prices that are so far on the way from left to right."""
    return Prices(*(old + part * (new - old) for old, new in zip(left, right, strict=True)))


def plan_workflow(
    problem: Problem, *, deadline_ms: float | None = DEADLINE_MS, effort: Effort = QUICK, running: Plan | None = None
) -> Plan:
    """Plan a workflow: who runs how, on which context, with how much to spend.

    Equal problems get equal plans, in any thread and on any run, unless the deadline cuts the search short; the plan
    then says so.

    Args:
        problem: What is to be planned.
        deadline_ms: When to stop improving; a plan that fits is looked for all the same. `None` means never. Loading
            the solver libraries, once in a process, does not count.
        effort: How hard to look.
        running: A plan that is being carried out; it is kept if it still fits and is within the gap.

    Raises:
        InfeasiblePlanError: The mandatory part does not fit; the error names what is in conflict and what is missing.
    """
    load_solvers()
    clock = Clock(deadline_ms)
    compiled = compile_problem(problem)
    search = Search(compiled, effort, clock)
    search.start_from(running)
    search.run()
    return finish(problem, search)


def load_solvers() -> None:
    """Load the solver libraries, which takes longer than most plans; no deadline counts that."""
    for name in SOLVERS:
        import_module(name)


def finish(problem: Problem, search: Search) -> Plan:
    """Settle what is open in the plan of a search, and return it after the validator has passed it.

    Raises:
        PlanError: The plan is not valid; that is a defect.
    """
    search.settle()
    assert search.choice is not None
    degraded = list(search.degraded)
    stopped_by: Stop = "target" if search.done else "deterministic_time"
    if search.clock.over:
        stopped_by = "deadline"
        degraded.append("stopped by the deadline: another run may give another plan")
    plan = to_plan(
        problem,
        search.compiled,
        search.choice,
        bound=search.bound,
        bound_source=BOUND_SOURCE,
        cost_bound=search.cost_bound,
        least_value=search.least_value,
        source=search.source,
        stopped_by=stopped_by,
        prices=limit_prices(search),
        degraded=tuple(degraded),
    )
    faults = validate_plan(problem, plan)
    if faults:
        raise PlanError(
            f"the plan is not valid: {'; '.join(faults)}",
            hint="This is a defect of apportion: please report it with the problem",
        )
    return plan.of(problem)


def limit_prices(search: Search) -> tuple[LimitPrice, ...]:
    """Return the limits that bind, with their prices to six digits."""
    return tuple(
        LimitPrice(limit=limit.name, units=float(f"{price:.6g}"))
        for limit, price in zip(search.compiled.limits, search.prices.limits.tolist(), strict=True)
        if price > 0.0
    )
