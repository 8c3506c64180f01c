"""A solution of the joint problem, whoever found it: the form that columns, CP-SAT and the floor plan share.

Everything here is whole-number arithmetic on `Compiled`; no solver is known. What a choice is worth and consumes:

    value  =  sum over running agents of  base value + options + work quanta, filled segment by segment
    cost   =  sum over running agents of  base cost + options + work - credit of the longest intact prefix
              + what results cost where they are received + what shared forms cost to make
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from apportion.errors import PlanError
from apportion.planner.budgets.problem import QUANTUM_TOKENS
from apportion.planner.budgets.segments import cut_off_probability
from apportion.planner.compiled import KEEP, NO_LIMIT
from apportion.planner.plan import OPTIMAL_GAP, AgentPlan, PieceChoice, Plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from apportion.planner.compiled import Compiled
    from apportion.planner.plan import LimitPrice, Source, Stop
    from apportion.planner.problem import Problem

    Ints = NDArray[np.int64]

DEFERRED = -1
"""The mode of an agent that does not run."""


class Choice(NamedTuple):
    """What is decided, agent by agent.

    A deferred agent has option 0 in all slots, no quanta and no preload.

    Attributes:
        modes: The mode of each agent, or `DEFERRED`.
        options: The option in each slot, one tuple per agent, as long as `Compiled` has slots; 0 where the agent has
            no such slot. The last one is for handing back.
        quanta: Work quanta above the floor, in total.
        preloads: Whether its files are loaded in advance.
    """

    modes: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    quanta: tuple[int, ...]
    preloads: tuple[bool, ...]


class Consumption(NamedTuple):
    """What each agent consumes; shape (agents,), 0 where it is deferred.

    Attributes:
        tokens: Tokens of its own.
        cost: Nano-dollars of its own, less the credit of its intact prefix.
        window: Tokens in its prompt, plus work, less its window; handed-back results of others not included.
        ticks: Latency, before preloading.
        given_tokens, given_cost, given_window: What its result consumes at the agent that gets it.
        intact: How many leading pieces stay an intact cached prefix.
    """

    tokens: Ints
    cost: Ints
    window: Ints
    ticks: Ints
    given_tokens: Ints
    given_cost: Ints
    given_window: Ints
    intact: Ints


def value(compiled: Compiled, choice: Choice) -> int:
    """Return what a choice is worth, in value units."""
    running, cells = _cells(compiled, choice)
    rows = cells[0][:, 0]
    work = filled(compiled.quanta[rows], np.array(choice.quanta, dtype=np.int64)[running])
    return int(compiled.base_value[rows].sum() + compiled.value[cells].sum() + (work * compiled.slopes[rows]).sum())


def cost(compiled: Compiled, choice: Choice) -> int:
    """Return what a choice costs in all, in nano-dollars."""
    used = consumption(compiled, choice)
    prepared = sum(compiled.shared[form].prepare_nusd for form in made(compiled, choice))
    return int(used.cost.sum() + used.given_cost.sum()) + prepared


def usage(compiled: Compiled, choice: Choice) -> Ints:
    """Return what a choice consumes of each limit, in the order of `Compiled.limits`."""
    used = consumption(compiled, choice)
    total = np.zeros(len(compiled.limits) + 1, dtype=np.int64)  # the last one collects what no limit counts
    stages, receives = compiled.stage_of, compiled.receiver >= 0
    to = compiled.receiver[receives]
    total[compiled.tokens_limit] += used.tokens.sum() + used.given_tokens.sum()
    total[compiled.cost_limit] += cost(compiled, choice)
    total[compiled.memory_limit] += compiled.preload_bytes[np.array(choice.preloads, dtype=np.bool_)].sum()
    np.add.at(total, compiled.stage_tokens_limit[stages], used.tokens)
    np.add.at(total, compiled.stage_tokens_limit[stages[to]], used.given_tokens[receives])
    np.add.at(total, compiled.stage_cost_limit[stages], used.cost)
    np.add.at(total, compiled.stage_cost_limit[stages[to]], used.given_cost[receives])
    deferred = np.array(choice.modes) == DEFERRED
    np.add.at(total, compiled.window_limit, used.window - np.where(deferred, compiled.deferred_window, 0))
    np.add.at(total, compiled.window_limit[to], used.given_window[receives])
    return total[:-1]


def consumption(compiled: Compiled, choice: Choice) -> Consumption:
    """Return what each agent consumes."""
    running, cells = _cells(compiled, choice)
    rows = cells[0][:, 0]
    last = cells[2][:, -1]
    work = np.array(choice.quanta, dtype=np.int64)[running]
    kept = (cells[2] == KEEP) & (cells[1] < compiled.chain[rows][:, None])
    intact = np.logical_and.accumulate(kept, axis=1)
    credit = np.where(intact, compiled.credit[rows], 0).sum(axis=1)

    def spread(amounts: Ints) -> Ints:
        agents = np.zeros(len(choice.modes), dtype=np.int64)
        agents[running] = amounts
        return agents

    return Consumption(
        tokens=spread(compiled.base_tokens[rows] + compiled.tokens[cells].sum(axis=1) + work * QUANTUM_TOKENS),
        cost=spread(
            compiled.base_cost[rows] + compiled.cost[cells].sum(axis=1) + work * compiled.quantum_cost[rows] - credit
        ),
        window=spread(compiled.base_window[rows] + compiled.window[cells].sum(axis=1) + work * QUANTUM_TOKENS),
        ticks=spread(compiled.base_ticks[rows] + compiled.ticks[cells].sum(axis=1)),
        given_tokens=spread(compiled.given_tokens[rows, last]),
        given_cost=spread(compiled.given_cost[rows, last]),
        given_window=spread(compiled.given_window[rows, last]),
        intact=spread(intact.sum(axis=1)),
    )


def made(compiled: Compiled, choice: Choice) -> tuple[int, ...]:
    """Return which shared forms a choice needs, as positions in `Compiled.shared`."""
    return tuple(
        position
        for position, form in enumerate(compiled.shared)
        if any(chosen(compiled, choice, cell) for cell in form.cells)
    )


def filled(lengths: Ints, quanta: Ints) -> Ints:
    """Return how quanta fill segments in their order; shapes (rows, segments) and (rows,).

    >>> filled(np.array([[2, 3, 0]]), np.array([4]))
    array([[2, 2, 0]])
    """
    starts = np.cumsum(lengths, axis=1) - lengths
    return np.minimum(np.maximum(quanta[:, None] - starts, 0), lengths)


def violations(compiled: Compiled, choice: Choice) -> tuple[str, ...]:
    """Return what is wrong with a choice, in words; nothing means that it can be carried out."""
    malformed = tuple(_malformed(compiled, choice))
    if malformed:
        return malformed
    return (*_broken_limits(compiled, choice), *_broken_latency(compiled, choice), *_broken_links(compiled, choice))


def _malformed(compiled: Compiled, choice: Choice) -> Iterator[str]:
    """Yield what cannot even be computed: unknown modes or options, too many quanta, a deferral that is forbidden."""
    agents, slots = len(compiled.problem.agents), compiled.value.shape[1]
    if any(len(column) != agents for column in choice):
        yield f"the choice is not about {agents} agents"
        return
    for agent, (mode, options, quanta, preload) in enumerate(zip(*choice, strict=True)):
        name = compiled.problem.agents[agent].id
        if len(options) != slots:
            yield f"agent {name!r} has {len(options)} options, not {slots}"
        elif mode == DEFERRED:
            if not compiled.deferrable[agent]:
                yield f"agent {name!r} is mandatory but deferred"
            if any(options) or quanta or preload:
                yield f"agent {name!r} is deferred but uses something"
        elif mode not in compiled.modes_of(agent):
            yield f"agent {name!r} has no mode {mode}"
        else:
            for slot, option in enumerate(options):
                if not (0 <= option < compiled.exists.shape[2] and compiled.exists[mode, slot, option]):
                    yield f"agent {name!r} has no option {option} in slot {slot}"
            if not 0 <= quanta <= int(compiled.quanta[mode].sum()):
                yield f"agent {name!r} cannot use {quanta} work quanta"
            if preload and compiled.problem.agents[agent].preload is None:
                yield f"agent {name!r} has nothing to load in advance"


def _broken_limits(compiled: Compiled, choice: Choice) -> Iterator[str]:
    for limit, used in zip(compiled.limits, usage(compiled, choice), strict=True):
        if used > limit.amount:
            yield f"{limit.name}: {int(used):,} exceeds {limit.amount:,}"


def _broken_latency(compiled: Compiled, choice: Choice) -> Iterator[str]:
    for agent, ticks in enumerate(ticks_after_preload(compiled, choice)):
        mode = choice.modes[agent]
        if mode != DEFERRED and compiled.max_ticks[mode] != NO_LIMIT and ticks > compiled.max_ticks[mode]:
            name = compiled.problem.agents[agent].id
            yield f"latency of agent {name}: {int(ticks)} ticks exceed {int(compiled.max_ticks[mode])}"


def _broken_links(compiled: Compiled, choice: Choice) -> Iterator[str]:
    for link in compiled.links:
        needing = [cell for cell in link.needs if chosen(compiled, choice, cell)]
        if needing and not any(chosen(compiled, choice, cell) for cell in link.gives):
            needs, gives = (
                compiled.problem.agents[int(compiled.agent_of[cells[0][0]])].id for cells in (link.needs, link.gives)
            )
            yield f"agent {needs!r} needs what agent {gives!r} does not give"


def ticks_after_preload(compiled: Compiled, choice: Choice) -> Ints:
    """Return the latency of each agent in its ticks, less what preloading saves on average."""
    saved = np.where(np.array(choice.preloads, dtype=np.bool_), compiled.preload_ticks, 0)
    return consumption(compiled, choice).ticks - saved


def latency_ms(compiled: Compiled, choice: Choice) -> int:
    """Return the expected latency of all agents together, after preloading, in milliseconds."""
    return int((ticks_after_preload(compiled, choice) * compiled.tick_ms).sum())


def _cells(compiled: Compiled, choice: Choice) -> tuple[Ints, tuple[Ints, Ints, Ints]]:
    """Return the running agents, and the index of their chosen cells in arrays of (modes, slots, options)."""
    modes = np.array(choice.modes, dtype=np.int64)
    running = np.flatnonzero(modes != DEFERRED)
    options = np.array(choice.options, dtype=np.int64).reshape(len(modes), -1)[running]
    slots = np.broadcast_to(np.arange(compiled.value.shape[1]), options.shape)
    return running, (np.broadcast_to(modes[running][:, None], options.shape), slots, options)


def chosen(compiled: Compiled, choice: Choice, cell: tuple[int, int, int]) -> bool:
    """Say whether a cell `(mode, slot, option)` of a link or a shared form is part of a choice."""
    mode, slot, option = cell
    agent = int(compiled.agent_of[mode])
    return choice.modes[agent] == mode and (slot < 0 or choice.options[agent][slot] == option)


def from_plan(compiled: Compiled, plan: Plan) -> Choice | None:
    """Return a plan as a choice for a problem, or `None` where it is about other agents, variants, pieces or forms."""
    agents = compiled.problem.agents
    if [agent.id for agent in agents] != [entry.agent_id for entry in plan.agents]:
        return None
    columns = [_entry(compiled, position, entry) for position, entry in enumerate(plan.agents)]
    if any(column is None for column in columns):
        return None
    modes, options, quanta, preloads = zip(*[column for column in columns if column is not None], strict=True)
    return Choice(modes, options, quanta, preloads)


def _entry(compiled: Compiled, position: int, entry: AgentPlan) -> tuple[int, tuple[int, ...], int, bool] | None:
    slots = compiled.value.shape[1]
    if entry.variant_id is None:
        return DEFERRED, (0,) * slots, 0, False
    agent = compiled.problem.agents[position]
    names = [variant.id for variant in agent.variants]
    uses = [use.item_id for use in agent.uses]
    if entry.variant_id not in names or [piece.item_id for piece in entry.pieces] != uses:
        return None
    number = names.index(entry.variant_id)
    mode = next(
        (m for m in compiled.modes_of(position) if compiled.modes[m][1:3] == (number, entry.price_tier)), DEFERRED
    )
    options = [0] * slots
    for slot, piece in enumerate(entry.pieces):
        forms = ["keep" if form is None else form.id for form in compiled.options[position][slot]]
        if piece.form not in forms:
            return None
        options[slot] = forms.index(piece.form)
    ways = [way.id for way in agent.hand_backs]
    if entry.hand_back is not None:
        if entry.hand_back not in ways:
            return None
        options[-1] = ways.index(entry.hand_back)
    work = (entry.work_tokens - agent.variants[number].floor_tokens) // QUANTUM_TOKENS
    if mode == DEFERRED or work < 0:
        return None
    return mode, tuple(options), min(work, int(compiled.quanta[mode].sum())), entry.preload


def to_plan(
    problem: Problem,
    compiled: Compiled,
    choice: Choice,
    *,
    bound: int,
    bound_source: str,
    cost_bound: int | None,
    least_value: int | None,
    source: Source,
    stopped_by: Stop,
    prices: tuple[LimitPrice, ...] = (),
    degraded: tuple[str, ...] = (),
) -> Plan:
    """Return a choice as a plan.

    Args:
        problem: The problem.
        compiled: The same as arrays.
        choice: A choice without violations.
        bound: Proven upper bound on the value of any plan.
        bound_source: How it was proven.
        cost_bound: Proven lower bound on the cost of any plan worth at least `least_value`, or `None`.
        least_value: The value that was kept while the bill was lowered, or `None`.
        source: What made the choice.
        stopped_by: What ended the search.
        prices: The limits that bind.
        degraded: Why this is not the plan that was asked for.

    Raises:
        PlanError: The choice is worth more than the bound: one of the two is wrong.
    """
    objective = value(compiled, choice)
    if objective > bound:
        raise PlanError(
            f"a plan is worth {objective:,}, more than its proven bound of {bound:,}",
            hint="This is a defect of apportion: please report it with the problem",
        )
    gap = (bound - objective) / max(1, abs(bound))
    used = consumption(compiled, choice)
    return Plan(
        agents=tuple(_agent_plan(problem, compiled, choice, used, agent) for agent in range(len(problem.agents))),
        prepared=tuple(
            f"{form.item}:{form.form}" for form in (compiled.shared[position] for position in made(compiled, choice))
        ),
        tokens=int(used.tokens.sum() + used.given_tokens.sum()),
        cost_nusd=cost(compiled, choice),
        objective=objective,
        bound=bound,
        bound_source=bound_source,
        gap=gap,
        cost_bound_nusd=cost_bound,
        least_value=least_value,
        status="OPTIMAL" if gap <= OPTIMAL_GAP else "FEASIBLE",
        source=source,
        stopped_by=stopped_by,
        prices=prices,
        degraded=degraded,
        fingerprint=problem.fingerprint,
    )


def _agent_plan(problem: Problem, compiled: Compiled, choice: Choice, used: Consumption, position: int) -> AgentPlan:
    agent, number = problem.agents[position], choice.modes[position]
    if number == DEFERRED:
        return AgentPlan(agent_id=agent.id, stage_id=agent.stage_id, variant_id=None)
    mode = compiled.modes[number]
    variant = agent.variants[mode.variant]
    work_tokens = variant.floor_tokens + choice.quanta[position] * QUANTUM_TOKENS
    pieces = _pieces(problem, compiled, choice, position)
    saved = int(compiled.preload_ticks[position]) if choice.preloads[position] else 0
    return AgentPlan(
        agent_id=agent.id,
        stage_id=agent.stage_id,
        variant_id=variant.id,
        price_tier=mode.tier,
        work_tokens=work_tokens,
        cut_off_probability=cut_off_probability(variant.demand, work_tokens),
        sample_size=variant.demand.sample_size,
        pieces=pieces,
        intact_pieces=int(used.intact[position]),
        hand_back=agent.hand_backs[choice.options[position][-1]].id if agent.hand_backs else None,
        preload=choice.preloads[position],
        prompt_tokens=sum(piece.tokens for piece in pieces),
        tokens=int(used.tokens[position]),
        given_tokens=int(used.given_tokens[position]),
        cost_nusd=int(used.cost[position]),
        given_cost_nusd=int(used.given_cost[position]),
        latency_ms=max(0, int(used.ticks[position]) - saved) * int(compiled.tick_ms[position]),
    )


def _pieces(problem: Problem, compiled: Compiled, choice: Choice, position: int) -> tuple[PieceChoice, ...]:
    pieces = []
    for slot, use in enumerate(problem.agents[position].uses):
        option = choice.options[position][slot]
        form = compiled.options[position][slot][option]
        whole = problem.item_of[use.item_id].tokens
        pieces.append(
            PieceChoice(
                item_id=use.item_id,
                form="keep" if form is None else form.id,
                tokens=whole if form is None else form.tokens,
            )
        )
    return tuple(pieces)
