"""What planning everything together gains over rules that plan one thing after the other.

    python benchmarks/versus_greedy.py [--quick] [--json FILE]

The same problems, with the same limits, are solved by the joint plan and by five rivals. All of them may use every
action, variant and deferral that the joint plan may, and keep every hard rule; all plans pass `choice.violations` and
the independent validator. Utility is the objective: points of work, of running at all, less expected losses.

The rivals are made as strong as their idea allows. Each may try several exchange rates between tokens and money and
keeps its best plan. Whatever a rule leaves over is given away as work, the most valuable first, exactly as the joint
plan does: more than such rules usually do. They may take as long as they like; the joint plan has the effort of an
answer before an invocation (`QUICK`), and of one in the background (`THOROUGH`).

Separable problems, budgets and nothing else, are listed by themselves: greedy is optimal there, and nothing is gained.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from _harness import Mark, arguments, percentile, report
from _joint_problems import problems_of
from apportion.planner.choice import DEFERRED, Choice, cost, to_plan, usage, value, violations
from apportion.planner.compiled import KEEP, NO_LIMIT, compile_problem
from apportion.planner.elastic import find_floor
from apportion.planner.exact import solve_exactly
from apportion.planner.improve import fill_work
from apportion.planner.replan import Replanner
from apportion.planner.solver import THOROUGH
from apportion.planner.validate import validate_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from apportion.planner.compiled import Compiled
    from apportion.planner.plan import Plan
    from apportion.planner.problem import Problem

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

RATES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Part of a resource's weight that money has; tokens have the rest. Both are measured against their limits."""

LEVELS = tuple(np.geomspace(0.05, 20.0, 25).tolist())
"""Prices that `per_item_searched` tries, as multiples of what a limit as a whole is worth."""

FEW_LEVELS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Those of `per_item`, of which the first that fits counts."""

SPLIT_WORK = 2.0
"""Deterministic time for one agent's own problem; all are solved to the end in far less."""

SHRINKINGS = 8
"""Steps in which split budgets are made smaller until the agents' plans fit together."""

QUICK_PLAN, THOROUGH_PLAN = "joint, quick", "joint, thorough"

MARK_PERCENT = 10.0

WHAT_A_GAIN_IS = (
    "gain: utility of the joint plan (QUICK) over the rival's, in percent of the rival's; worst: the problem where it "
    "is least. A mean is large where a rival's utility is near 0. thorough: the same for the plan improved in the "
    "background. bill: median of the joint plan's bill over the rival's."
)


class Kind(NamedTuple):
    """Problems that are compared."""

    name: str
    agents: int
    problems: int
    separable: bool = False


KINDS = (
    Kind("coupled", 5, 15),
    Kind("coupled", 10, 30),
    Kind("coupled", 30, 6),
    Kind("separable", 10, 15, separable=True),
)
QUICK_KINDS = (Kind("coupled", 5, 1), Kind("separable", 5, 1, separable=True))


def main() -> None:
    """Compare and report."""
    asked = arguments(__doc__ or "", quick="two problems, of 5 agents")
    rows: list[dict[str, Any]] = []
    gains: dict[bool, list[float]] = {False: [], True: []}
    for kind in QUICK_KINDS if asked.quick else KINDS:
        results = [compare(each) for each in problems_of(kind.agents, kind.problems, separable=kind.separable)]
        rows += [_row(kind, name, results) for name in RIVALS]
        gains[kind.separable] += [_gain(result, _best(result)) for result in results]
    coupled, separable = percentile(gains[False], 0.5), percentile(gains[True], 0.5)
    marks = [
        Mark("coupled: median gain over the best rival of each problem", coupled, "%", f">= {MARK_PERCENT:g}",
             coupled >= MARK_PERCENT),
    ]  # fmt: skip
    nothing = (
        f"separable problems: median gain over the best rival {separable:.2f} %: greedy is optimal there, so the joint "
        "plan can gain nothing, and loses what its certified gap and its lower bill allow."
    )
    notes = [WHAT_A_GAIN_IS, nothing, asked.cut]
    report("versus_greedy", rows, marks, packages=("ortools", "numpy"), file=asked.json, notes=notes)


def compare(problem: Problem) -> dict[str, Result]:
    """Solve a problem in all ways."""
    compiled = compile_problem(problem)
    replanner = Replanner(problem, deadline_ms=None)
    quick = replanner.plan
    results = {QUICK_PLAN: Result(quick.objective, quick.cost_nusd)}
    thorough = replanner.improve(THOROUGH)
    for name, rival in RIVALS.items():
        start = time.process_time()
        choice = rival(compiled)
        taken_s = time.process_time() - start
        _require_valid(problem, compiled, choice, thorough)
        results[name] = Result(value(compiled, choice), cost(compiled, choice), taken_s)
    results[THOROUGH_PLAN] = Result(thorough.objective, thorough.cost_nusd)
    return results


class Result(NamedTuple):
    """What a way of planning reaches."""

    utility: int
    cost_nusd: int
    seconds: float = 0.0


def _require_valid(problem: Problem, compiled: Compiled, choice: Choice, best: Plan) -> None:
    """End the benchmark where a rival breaks a rule, or beats the bound that the joint plan proves."""
    wrong = violations(compiled, choice)
    if not wrong:
        plan = to_plan(
            problem, compiled, choice, bound=best.bound, bound_source=best.bound_source, cost_bound=None,
            least_value=None, source="floor", stopped_by="target",
        )  # fmt: skip
        wrong = validate_plan(problem, plan)
    if wrong:
        raise SystemExit(f"a rival's plan is not valid: {'; '.join(wrong)}")


def _best(result: dict[str, Result]) -> str:
    return max(RIVALS, key=lambda name: result[name].utility)


def _gain(result: dict[str, Result], rival: str, ours: str = QUICK_PLAN) -> float:
    """Return by how many percent the joint plan is worth more."""
    other = result[rival].utility
    return 100 * (result[ours].utility - other) / max(1, abs(other))


def _row(kind: Kind, rival: str, results: Sequence[dict[str, Result]]) -> dict[str, Any]:
    gains = [_gain(result, rival) for result in results]
    bills = [result[QUICK_PLAN].cost_nusd / max(1, result[rival].cost_nusd) for result in results]
    thorough = [_gain(result, rival, ours=THOROUGH_PLAN) for result in results]
    return {
        "problems": f"{kind.name}, {kind.agents} agents",
        "count": len(results),
        "rival": rival,
        "gain % median": percentile(gains, 0.5),
        "mean": sum(gains) / len(gains),
        "worst": min(gains),
        "thorough median": percentile(thorough, 0.5),
        "thorough worst": min(thorough),
        "bill": percentile(bills, 0.5),
        "best rival in": Counter(_best(result) for result in results)[rival],
        "cpu s": percentile([result[rival].seconds for result in results], 0.5),
    }


# Greedy: one upgrade after the other.


def water_filling(compiled: Compiled) -> Choice:
    """Begin with the least of everything, and make the upgrade of most utility per resource, again and again.

    Upgrades are: more of a piece, another way of handing back, another variant, work up to the next quantile, and an
    agent that was deferred, together with the forms and the work at which its utility per resource is greatest. One
    that breaks a rule or a limit is passed over, and tried again in a second pass. A resource is tokens, money, or any
    of three blends of both; the best of the five plans counts.
    """
    return max(
        (fill_work(compiled, _Filling(compiled, rate).run()) for rate in RATES),
        key=lambda choice: value(compiled, choice),
    )


class _Filling:
    """One run of `water_filling`."""

    def __init__(self, compiled: Compiled, rate: float) -> None:
        self.compiled = compiled
        self.weights = _weights(compiled, rate)
        self.sizes = _sizes(compiled, self.weights)
        self.choice = find_floor(compiled)

    def run(self) -> Choice:
        """Return the plan when nothing more fits."""
        for _ in range(2):
            refused: set[tuple[int, Any]] = set()
            offers = [self._offers(agent, refused) for agent in range(len(self.choice.modes))]
            while True:
                agent = max(range(len(offers)), key=lambda each: offers[each][0][0] if offers[each] else -np.inf)
                if not offers[agent]:
                    break
                _, name, found = offers[agent].pop(0)
                upgraded = _only(agent=agent, of=found, rest=self.choice)
                if violations(self.compiled, upgraded):
                    refused.add((agent, name))
                    continue
                self.choice = upgraded
                offers[agent] = self._offers(agent, refused)
        return self.choice

    def _offers(self, agent: int, refused: set[tuple[int, Any]]) -> list[tuple[float, Any, Choice]]:
        """Return an agent's upgrades as utility per resource, a name, and a plan with it; the best come first."""
        mode = self.choice.modes[agent]
        ways = self._running(agent) if mode == DEFERRED else self._more(agent, mode)
        offers = [
            (worth / size if size > 0 else np.inf, name, upgraded)
            for name, worth, size, upgraded in ways
            if worth > 0 and (agent, name) not in refused
        ]
        return sorted(offers, key=lambda offer: (-offer[0], str(offer[1])))

    def _more(self, agent: int, mode: int) -> Iterator[tuple[Any, float, float, Choice]]:
        compiled, options = self.compiled, self.choice.options[agent]
        for slot, option in enumerate(options):
            for other in np.flatnonzero(compiled.exists[mode, slot]).tolist():
                worth = float(compiled.value[mode, slot, other] - compiled.value[mode, slot, option])
                size = float(self.sizes.options[mode, slot, other] - self.sizes.options[mode, slot, option])
                if worth > 0:
                    changed = (*options[:slot], other, *options[slot + 1 :])
                    yield (mode, slot, other), worth, size, _with(self.choice, agent, options=changed)
        taken = self.choice.quanta[agent]
        segment = _segment(compiled, mode, taken)
        if segment is not None:
            slope, room = segment
            for more in {room, max(1, room // 4), 1}:
                size = more * self.sizes.quantum[mode]
                yield ("work", more, taken), float(slope * more), size, _with(self.choice, agent, quanta=taken + more)
        for other in compiled.modes_of(agent):
            if other != mode and all(compiled.exists[other, slot, option] for slot, option in enumerate(options)):
                quanta = min(taken, int(compiled.quanta[other].sum()))
                moved = _with(self.choice, agent, mode=other, quanta=quanta)
                worth = float(value(compiled, moved) - value(compiled, self.choice))
                yield ("mode", other), worth, self._size(agent, moved) - self._size(agent, self.choice), moved

    def _size(self, agent: int, choice: Choice) -> float:
        mode = choice.modes[agent]
        slots = np.arange(len(choice.options[agent]))
        options = self.sizes.options[mode, slots, np.array(choice.options[agent])].sum()
        return float(self.sizes.base[mode] + options + choice.quanta[agent] * self.sizes.quantum[mode])

    def _running(self, agent: int) -> Iterator[tuple[Any, float, float, Choice]]:
        """Offer to run a deferred agent, at the forms and the work of most utility per resource (Dinkelbach)."""
        compiled = self.compiled
        for mode in compiled.modes_of(agent):
            price = 0.0
            for _ in range(6):
                options, quanta = _best_at(compiled, self.sizes, mode, price)
                changed = _with(self.choice, agent, mode=mode, options=options, quanta=quanta)
                worth, size = float(_own_value(compiled, mode, options, quanta)), self._size(agent, changed)
                if worth <= 0 or size <= 0:
                    break
                yield ("run", mode, round(price, 6)), worth, size, _in_time(compiled, changed, agent)
                price = worth / size


# Splits: every agent its own budget, and its own best plan.


def split_by_demand(compiled: Compiled) -> Choice:
    """Give every agent a fixed part of what is left above the floors, in proportion to its median demand.

    Each agent's own multiple-choice knapsack, variant, forms, cached prefix, way of handing back and work, is solved
    to optimality by CP-SAT within its tokens and its money. Agents are planned stage by stage: one may use what
    earlier ones keep, and is deferred where what it needs is. Parts shrink together until all plans, with what results
    take where they are received and what shared forms cost, fit the limits; the largest parts that fit count.
    """
    return _split(compiled, [agent.variants[0].demand.tokens[2] for agent in compiled.problem.agents])


def equal_split(compiled: Compiled) -> Choice:
    """Give every agent the same part of what is left above the floors; otherwise as `split_by_demand`."""
    return _split(compiled, [1] * len(compiled.problem.agents))


def _split(compiled: Compiled, shares: Sequence[int]) -> Choice:
    best = fill_work(compiled, find_floor(compiled))
    low, high = 0.0, 1.0
    factor = 1.0
    for _ in range(SHRINKINGS):
        choice = _each_alone(compiled, shares, factor)
        fits = choice is not None and not violations(compiled, choice)
        if fits and choice is not None:
            filled = fill_work(compiled, choice)
            best = max(best, filled, key=lambda plan: value(compiled, plan))
            low = factor
        else:
            high = factor
        if low == high:
            break
        factor = (low + high) / 2
    return best


def _each_alone(compiled: Compiled, shares: Sequence[int], factor: float) -> Choice | None:
    """Plan the agents one by one within their parts of a share of the limits."""
    problem = compiled.problem
    least = _least(compiled)
    spare = [
        None if limit is None else max(0, int(factor * (limit - sum(own[kind] for own in least))))
        for kind, limit in enumerate((problem.spendable_tokens, problem.max_cost_nusd))
    ]
    choice = _nobody(compiled)
    memory = problem.max_preload_bytes
    for position in _in_order(problem):
        agent = problem.agents[position]
        part = [
            None if room is None else own + room * shares[position] // sum(shares)
            for room, own in zip(spare, least[position], strict=True)
        ]
        running = {other.id for other, mode in zip(problem.agents, choice.modes, strict=True) if mode != DEFERRED}
        if set(agent.after) <= running:
            own = _alone(compiled, choice, position, part, memory)
            if own is not None:
                choice = own
                memory -= int(compiled.preload_bytes[position]) if own.preloads[position] else 0
                continue
        if not compiled.deferrable[position]:
            return None
    return choice


def _alone(compiled: Compiled, choice: Choice, position: int, part: list[int | None], memory: int) -> Choice | None:
    """Return a plan with one more agent in its best way within its part, or `None` where it does not fit or pay."""
    problem = compiled.problem
    agent = problem.agents[position]
    uses = tuple(
        use.model_copy(
            update={
                "held_if_kept_by": None,
                "held": "whole" if _kept(compiled, choice, use.held_if_kept_by, use.item_id) else use.held,
            }
        )
        for use in agent.uses
    )
    required = not compiled.deferrable[position]
    own = agent.model_copy(update={"uses": uses, "reports_to": None, "after": (), "mandatory": required})
    names = {use.item_id for use in uses}
    small = problem.model_copy(
        update={
            "agents": (own,),
            "items": tuple(item for item in problem.items if item.id in names),
            "max_tokens": part[0],
            "max_cost_nusd": part[1],
            "reserve_tokens": 0,
            "max_preload_bytes": max(0, memory),
        }
    )
    alone = compile_problem(small)
    answer = solve_exactly(alone, deterministic_time=SPLIT_WORK)
    if answer.choice is None or answer.choice.modes[0] == DEFERRED:
        return None
    found = _translated(compiled, alone, answer.choice, position)
    return None if found is None else _with(choice, position, **found)


def _translated(compiled: Compiled, alone: Compiled, own: Choice, position: int) -> dict[str, Any] | None:
    """Return what an agent does by itself in the terms of the whole problem."""
    mode = alone.modes[own.modes[0]]
    there = next((m for m in compiled.modes_of(position) if compiled.modes[m][1:3] == mode[1:3]), None)
    if there is None:
        return None
    options = [KEEP] * compiled.value.shape[1]
    for slot in range(len(compiled.problem.agents[position].uses)):
        form = alone.options[0][slot][own.options[0][slot]]
        ids = [None if each is None else each.id for each in compiled.options[position][slot]]
        options[slot] = ids.index(None if form is None else form.id)
    options[-1] = own.options[0][-1]
    needs = alone.max_ticks[own.modes[0]] != NO_LIMIT and own.preloads[0]
    late = needs and violations(alone, own._replace(preloads=(False,)))
    return {"mode": there, "options": tuple(options), "quanta": own.quanta[0], "preload": bool(late)}


def _kept(compiled: Compiled, choice: Choice, holder: str | None, item: str) -> bool:
    """Say whether an agent gets a piece whole in a plan so far."""
    if holder is None:
        return False
    position = next(number for number, agent in enumerate(compiled.problem.agents) if agent.id == holder)
    slot = [use.item_id for use in compiled.problem.agents[position].uses].index(item)
    mode = choice.modes[position]
    return mode != DEFERRED and choice.options[position][slot] == KEEP


def _in_order(problem: Problem) -> list[int]:
    """Return the agents stage by stage; stages are listed in their order."""
    stages = {stage.id: number for number, stage in enumerate(problem.stages)}
    return sorted(range(len(problem.agents)), key=lambda position: stages[problem.agents[position].stage_id])


def _least(compiled: Compiled) -> list[tuple[int, int]]:
    """Return what each agent takes in the floor plan; nothing where it is deferred."""
    floor = find_floor(compiled)
    nothing = usage(compiled, _nobody(compiled))
    return [
        (
            _of_limit(compiled, compiled.tokens_limit, floor, position, nothing),
            _of_limit(compiled, compiled.cost_limit, floor, position, nothing),
        )
        for position in range(len(floor.modes))
    ]


def _of_limit(compiled: Compiled, limit: int, floor: Choice, position: int, nothing: Ints) -> int:
    if limit == NO_LIMIT or floor.modes[position] == DEFERRED:
        return 0
    only = _only(agent=position, of=floor, rest=_nobody(compiled))
    return int(usage(compiled, only)[limit] - nothing[limit])


# One item after the other, then budgets.


def per_item(compiled: Compiled) -> Choice:
    """Choose for every piece the action that is best for it alone at one price of resources, then give out budgets.

    What couples pieces is not seen: the credit of an unbroken cached prefix, and what other agents hold. Those agents
    run that must, then the others as long as they fit, the most valuable per resource first, each in the variant
    that is best at that price. Then work is given out greedily, which is optimal for budgets alone.

    The price is that at which the limits as a whole are worth half of what there is to gain; where that fits nothing,
    it is doubled until something fits. Five blends of tokens and money are tried.
    """
    return _per_item(compiled, FEW_LEVELS, first=True)


def per_item_searched(compiled: Compiled) -> Choice:
    """Choose as `per_item`, with the best of 25 prices, each with five blends of tokens and money.

    This is more than a rule for items: whoever tries out prices against the limits of all agents plans jointly, by a
    Lagrangian relaxation. It stands here because it is the strongest that can be made of the idea.
    """
    return _per_item(compiled, LEVELS, first=False)


def _per_item(compiled: Compiled, levels: Sequence[float], *, first: bool) -> Choice:
    """Return the best plan of some price levels; with `first`, each blend ends at the first level that fits."""
    best = fill_work(compiled, find_floor(compiled))
    worth = float(_worth_of_all(compiled))
    for rate in RATES:
        sizes = _sizes(compiled, _weights(compiled, rate))
        for level in levels:
            plan = _at_price(compiled, sizes, level * worth)
            if plan is not None:
                best = max(best, fill_work(compiled, plan), key=lambda choice: value(compiled, choice))
                if first:
                    break
    return best


def _worth_of_all(compiled: Compiled) -> int:
    """Return what everybody is worth in the best mode, with whole pieces and all work."""
    whole = compiled.base_value + (compiled.slopes * compiled.quanta).sum(axis=1)
    return int(np.maximum.reduceat(whole, compiled.first_mode[:-1]).sum())


def _at_price(compiled: Compiled, sizes: _Sizes, price: float) -> Choice | None:
    ways = []
    for agent in range(len(compiled.problem.agents)):
        found = []
        for mode in compiled.modes_of(agent):
            options, quanta = _best_at(compiled, sizes, mode, price)
            worth = _own_value(compiled, mode, options, quanta)
            slots = np.arange(len(options))
            size = sizes.base[mode] + sizes.options[mode, slots, np.array(options)].sum()
            found.append(
                (worth - price * (size + quanta * sizes.quantum[mode]), worth / max(1e-12, size), mode, options)
            )
        ways.append(max(found))
    choice = _nobody(compiled)
    for agent, (_, _, mode, options) in enumerate(ways):
        if not compiled.deferrable[agent]:
            choice = _in_time(compiled, _with(choice, agent, mode=mode, options=options), agent)
    if violations(compiled, choice):
        return None
    order = sorted(np.flatnonzero(compiled.deferrable).tolist(), key=lambda agent: -ways[agent][1])
    for _ in range(2):
        for agent in order:
            _, _, mode, options = ways[agent]
            if choice.modes[agent] == DEFERRED:
                more = _in_time(compiled, _with(choice, agent, mode=mode, options=options), agent)
                better = value(compiled, fill_work(compiled, more)) if not violations(compiled, more) else -np.inf
                if better > value(compiled, fill_work(compiled, choice)):
                    choice = more
    return choice


# What all rivals use.


class _Sizes(NamedTuple):
    """How much of the resource everything takes, as a part of the limits; without the credit of a cached prefix."""

    options: Floats
    base: Floats
    quantum: NDArray[np.floating[Any]]


def _weights(compiled: Compiled, rate: float) -> tuple[float, float]:
    """Return what a token and a nano-dollar weigh; where only one of them is limited, that one alone does."""
    problem = compiled.problem
    tokens, money = problem.spendable_tokens, problem.max_cost_nusd
    if money is None or compiled.cost_limit == NO_LIMIT:
        rate = 0.0
    elif tokens is None or compiled.tokens_limit == NO_LIMIT:
        rate = 1.0
    return (1 - rate) / max(1, tokens or 1), rate / max(1, money or 1)


def _sizes(compiled: Compiled, weights: tuple[float, float]) -> _Sizes:
    token, nusd = weights
    options = compiled.tokens * token + compiled.cost * nusd
    width = compiled.given_tokens.shape[1]
    options[:, -1, :width] += compiled.given_tokens * token + compiled.given_cost * nusd
    return _Sizes(
        options=options,
        base=compiled.base_tokens * token + compiled.base_cost * nusd,
        quantum=64 * token + compiled.quantum_cost * nusd,
    )


def _best_at(compiled: Compiled, sizes: _Sizes, mode: int, price: float) -> tuple[tuple[int, ...], int]:
    """Return the options and the work that pay best at a price, each by itself; none that others must allow."""
    usable = compiled.exists[mode].copy()
    for link in compiled.links:
        for other, slot, option in link.needs:
            if other == mode and slot >= 0:
                usable[slot, option] = False
    net = np.where(usable, compiled.value[mode] - price * sizes.options[mode], -np.inf)
    paying = compiled.slopes[mode] > price * sizes.quantum[mode]
    return tuple(net.argmax(axis=1).tolist()), int(compiled.quanta[mode][paying].sum())


def _own_value(compiled: Compiled, mode: int, options: tuple[int, ...], quanta: int) -> int:
    worth = int(compiled.base_value[mode])
    worth += int(compiled.value[mode, np.arange(len(options)), np.array(options)].sum())
    for slope, length in zip(compiled.slopes[mode].tolist(), compiled.quanta[mode].tolist(), strict=True):
        worth += slope * min(length, quanta)
        quanta -= min(length, quanta)
    return worth


def _segment(compiled: Compiled, mode: int, taken: int) -> tuple[int, int] | None:
    """Return the slope of the next work quantum of a mode, and how many are worth the same."""
    for slope, length in zip(compiled.slopes[mode].tolist(), compiled.quanta[mode].tolist(), strict=True):
        if taken < length:
            return slope, length - taken
        taken -= length
    return None


def _in_time(compiled: Compiled, choice: Choice, agent: int) -> Choice:
    """Make an agent quick enough: other forms, those that lose least per tick first; then loading in advance."""
    mode = choice.modes[agent]
    most = int(compiled.max_ticks[mode])
    options = list(choice.options[agent])
    slots = np.arange(len(options))
    while most != NO_LIMIT:
        late = int(compiled.base_ticks[mode] + compiled.ticks[mode, slots, options].sum()) - most
        if late <= 0:
            break
        if late <= compiled.preload_ticks[agent]:
            return _with(choice, agent, options=tuple(options), preload=True)
        swaps = [
            ((compiled.value[mode, slot, option] - compiled.value[mode, slot, other]) / saved, slot, other)
            for slot, option in enumerate(options)
            for other in np.flatnonzero(compiled.exists[mode, slot]).tolist()
            for saved in [int(compiled.ticks[mode, slot, option] - compiled.ticks[mode, slot, other])]
            if saved > 0
        ]
        if not swaps:
            break
        _, slot, other = min(swaps)
        options[slot] = other
    return _with(choice, agent, options=tuple(options))


def _nobody(compiled: Compiled) -> Choice:
    agents, slots = len(compiled.problem.agents), compiled.value.shape[1]
    return Choice((DEFERRED,) * agents, ((0,) * slots,) * agents, (0,) * agents, (False,) * agents)


def _with(
    choice: Choice, agent: int, *, mode: int | None = None, options: tuple[int, ...] | None = None,
    quanta: int | None = None, preload: bool | None = None,
) -> Choice:  # fmt: skip
    """Return a choice in which one agent does something else."""

    def put(column: tuple[Any, ...], new: Any) -> tuple[Any, ...]:
        return column if new is None else (*column[:agent], new, *column[agent + 1 :])

    return Choice(
        put(choice.modes, mode), put(choice.options, options), put(choice.quanta, quanta), put(choice.preloads, preload)
    )


def _only(*, agent: int, of: Choice, rest: Choice) -> Choice:
    """Return a choice in which one agent does what it does in another."""
    return _with(
        rest, agent, mode=of.modes[agent], options=of.options[agent], quanta=of.quanta[agent],
        preload=of.preloads[agent],
    )  # fmt: skip


RIVALS: dict[str, Callable[[Compiled], Choice]] = {
    "greedy water-filling": water_filling,
    "knapsacks, split by demand": split_by_demand,
    "knapsacks, equal split": equal_split,
    "best action per item": per_item,
    "the same, best of 125 prices": per_item_searched,
}
"""Who the joint plan is compared with."""


if __name__ == "__main__":
    main()
