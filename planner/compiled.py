"""The joint problem as arrays: what the bound, the columns and CP-SAT work on; the validator deliberately does not.

A *mode* is one way of running an agent: a variant, at the prices of one tier. A mode has *slots*, one per piece of its
prompt and a last one for handing back; a slot has *options*, of which exactly one is chosen. Option 0 of a piece keeps
it whole. Everything a mode consumes is a constant, plus a sum over its slots, plus a multiple of its work quanta:

    limit                       consumption                                     array
    tokens (workflow, stage)    tokens sent over all calls                      tokens
    cost (workflow, stage)      nano-dollars, less the credit of an intact      cost, credit
                                cached prefix
    window (own)                tokens in the prompt, plus work                 window
    latency (own)               ticks                                           ticks
    memory                      bytes of what is loaded in advance              memory

A handed-back result also consumes tokens and cost at the agent that gets it, at its dearest variant.

*Links* say that a choice needs another one: a diff needs its base, an agent the results of another.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from apportion.planner.budgets.problem import QUANTUM_TOKENS
from apportion.planner.budgets.segments import value_curve
from apportion.planner.problem import FETCH_OUTPUT_TOKENS, MILLION, UNITS_PER_POINT, tick_ms

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from apportion.planner.problem import Agent, Form, HandBack, ItemUse, Model, Problem, TokenPrices, Variant
    from apportion.records import Demand

    Ints = NDArray[np.int64]

KEEP = 0
"""The option of every piece that sends it whole."""

NO_LIMIT = -1
"""Stands for a limit that does not exist or cannot bind."""


class Mode(NamedTuple):
    """One way of running an agent.

    Attributes:
        agent: Index of the agent.
        variant: Index among its variants.
        tier: Index of the price tier; 0 is the base price.
        prices: The prices that hold.
        window: Most tokens of prompt and work, or `None`.
    """

    agent: int
    variant: int
    tier: int
    prices: TokenPrices
    window: int | None


class Link(NamedTuple):
    """A choice that needs another: sum over `needs` <= sum over `gives`.

    Cells are `(mode, slot, option)`; slot and option `-1` stand for running the mode at all.

    Attributes:
        needs: Cells of one agent that need something.
        gives: Cells of one other agent that give it.
    """

    needs: tuple[tuple[int, int, int], ...]
    gives: tuple[tuple[int, int, int], ...]


class SharedForm(NamedTuple):
    """A form that is made once for several agents: any of `cells` needs it made, which costs `prepare_nusd`."""

    item: str
    form: str
    prepare_nusd: int
    cells: tuple[tuple[int, int, int], ...]


class Limit(NamedTuple):
    """A limit of the world: what it is called, and how much there is.

    The consumption of window limits is counted from the window: it must not exceed 0.
    """

    name: str
    amount: int


@dataclass(eq=False)
class Compiled:
    """A problem as arrays; shapes are (modes,), (modes, slots), (modes, slots, options) or (modes, segments).

    Attributes:
        problem: The problem.
        modes: The modes, agent by agent.
        first_mode: Where each agent's modes begin; shape (agents + 1,).
        options: Per agent and slot, the forms behind the options (`None` is whole), or the ways of handing back.
        exists: Whether an option exists.
        value: Value units of the options (losses, never above 0).
        tokens, cost, window, ticks: What the options consume; see the module.
        credit: Cost that is saved while the cached prefix is intact through a slot.
        chain: How many leading slots are cached.
        base_value, base_tokens, base_cost, base_window, base_ticks: The constants of the modes.
        max_ticks: Latency limit in ticks, `NO_LIMIT` where there is none that can bind.
        tick_ms: Length of a tick of each agent.
        preload_ticks: Ticks that preloading saves each agent, on average.
        preload_bytes: Memory that it takes.
        slopes: Value of one work quantum in each segment, strictly falling; 0 pads.
        quanta: Length of each segment; 0 pads.
        quantum_cost: Cost of one work quantum.
        given_tokens, given_cost, given_window: What the options of the last slot consume at the agent that gets the
            result; shape (modes, options).
        receiver: Agent that gets the result, or -1; shape (agents,).
        deferred_window: What a deferred agent must be able to receive; shape (agents,).
        stage_of: Stage of each agent.
        deferrable: Whether an agent may be deferred: it is not mandatory, and no mandatory one needs its result.
        limits: The limits that can bind.
        tokens_limit, cost_limit, memory_limit: Their positions among the limits, or `NO_LIMIT`.
        stage_tokens_limit, stage_cost_limit, window_limit: The same per stage, and per agent.
        links, shared: See `Link` and `SharedForm`.
    """

    problem: Problem
    modes: list[Mode]
    first_mode: Ints
    options: list[list[tuple[Form | HandBack | None, ...]]]
    exists: NDArray[np.bool_]
    value: Ints
    tokens: Ints
    cost: Ints
    window: Ints
    ticks: Ints
    credit: Ints
    chain: Ints
    base_value: Ints
    base_tokens: Ints
    base_cost: Ints
    base_window: Ints
    base_ticks: Ints
    max_ticks: Ints
    tick_ms: Ints
    preload_ticks: Ints
    preload_bytes: Ints
    slopes: Ints
    quanta: Ints
    quantum_cost: Ints
    given_tokens: Ints
    given_cost: Ints
    given_window: Ints
    receiver: Ints
    deferred_window: Ints
    stage_of: Ints
    deferrable: NDArray[np.bool_]
    limits: list[Limit] = field(default_factory=list)
    tokens_limit: int = NO_LIMIT
    cost_limit: int = NO_LIMIT
    memory_limit: int = NO_LIMIT
    stage_tokens_limit: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    stage_cost_limit: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    window_limit: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    links: list[Link] = field(default_factory=list)
    shared: list[SharedForm] = field(default_factory=list)

    @property
    def agent_of(self) -> Ints:
        """The agent of each mode."""
        return self._agent_of

    def __post_init__(self) -> None:
        self._agent_of = np.array([mode.agent for mode in self.modes], dtype=np.int64)

    def modes_of(self, agent: int) -> range:
        """Return the modes of an agent."""
        return range(int(self.first_mode[agent]), int(self.first_mode[agent + 1]))

    def work_rows(self, modes: Ints) -> list[tuple[Ints, Ints]]:
        """Return the limits that a work quantum of some modes counts against, and how much of each it takes.

        Each pair holds a limit per mode, `NO_LIMIT` where there is none, and an amount per mode.
        """
        agents = self.agent_of[modes]
        stages = self.stage_of[agents]
        tokens = np.full(len(modes), QUANTUM_TOKENS)
        cost = self.quantum_cost[modes]
        return [
            (np.full(len(modes), self.tokens_limit), tokens),
            (self.stage_tokens_limit[stages], tokens),
            (self.window_limit[agents], tokens),
            (np.full(len(modes), self.cost_limit), cost),
            (self.stage_cost_limit[stages], cost),
        ]

    @property
    def hand_back_slot(self) -> int:
        """The slot of handing back: the last one of all modes."""
        return int(self.value.shape[1]) - 1


def compile_problem(problem: Problem) -> Compiled:
    """Return a problem as arrays.

    Costs are rounded up and credits down, so that a plan which fits here fits in exact arithmetic.
    """
    compiled = _compile_modes(problem)
    compiled.links = [*_precedence_links(compiled), *_base_links(compiled)]
    compiled.shared = _shared_forms(compiled)
    _add_limits(compiled)
    return compiled


class _Raw(NamedTuple):
    """The options of all agents as plain numbers, before prices; shapes (agents, slots, options)."""

    exists: NDArray[np.bool_]
    sent: Ints
    whole: Ints
    value: Ints
    latency_ms: Ints
    need_ppm: Ints
    prepare: Ints


def _compile_modes(problem: Problem) -> Compiled:
    agents = problem.agents
    options = [_options(problem, agent) for agent in agents]
    raw = _raw(problem, options)
    modes, first_mode = _modes(problem)
    of = np.array([mode.agent for mode in modes], dtype=np.int64)
    variants = [agents[mode.agent].variants[mode.variant] for mode in modes]
    lifetimes = [agents[mode.agent].cache_lifetime for mode in modes]
    calls = _column(variant.calls for variant in variants)
    written = _column(mode.prices.written(lifetime) for mode, lifetime in zip(modes, lifetimes, strict=True))
    read = _column(mode.prices.read(lifetime) for mode, lifetime in zip(modes, lifetimes, strict=True))
    output = _column(mode.prices.output for mode in modes)
    context = _column(problem.context_tokens(agent) for agent in agents)[of]

    def cube(column: Ints) -> Ints:
        return column[:, None, None]

    held = written + read * (calls - 1)  # price of a token that is written with the first call and read by the others
    sent, whole, need = raw.sent[of], raw.whole[of], raw.need_ppm[of]
    fetch_tokens = cube(context + FETCH_OUTPUT_TOKENS) + whole * cube(calls)
    fetch_cost = _ceil(cube(context * read + FETCH_OUTPUT_TOKENS * output) + whole * cube(held), 1000)
    tokens = sent * cube(calls) + _share(fetch_tokens, need)
    cost = _ceil(sent * cube(held), 1000) + _share(fetch_cost, need) + raw.prepare[of]
    slots = tokens.shape[1]
    kept = whole[:, :, KEEP]
    chain = _column(agent.cached_uses for agent in agents)[of]
    intact = np.arange(slots)[None, :] < chain[:, None]
    read_only = _ceil(kept * (read * calls)[:, None], 1000)
    credit = np.where(intact, np.maximum(0, cost[:, :, KEEP] - read_only), 0)

    last = slots - 1  # handing back: the result is output, once
    tokens[:, last] = sent[:, last]
    cost[:, last] = _ceil(sent[:, last] * output[:, None], 1000)
    receiver, given = _given(problem, raw.sent[of][:, last], of)

    ticks_ms = _tick_ms(problem)
    curves = [value_curve(variant) for variant in variants]
    width = max([len(curve.quanta) for curve in curves], default=0)
    floors = _column(variant.floor_tokens for variant in variants)
    compiled = Compiled(
        problem=problem,
        modes=modes,
        first_mode=first_mode,
        options=options,
        exists=raw.exists[of],
        value=raw.value[of],
        tokens=tokens,
        cost=cost,
        window=sent.copy(),
        ticks=_ceil(raw.latency_ms[of], ticks_ms[of][:, None, None]),
        credit=credit,
        chain=chain,
        base_value=_column(v.value_points * UNITS_PER_POINT + _value_of_floor(v) for v in variants),
        base_tokens=floors + _column(variant.contingency_tokens for variant in variants),
        base_cost=_ceil(floors * output, 1000),
        base_window=floors - _column(mode.window or 0 for mode in modes),
        base_ticks=_ceil(_column(variant.latency_ms for variant in variants), ticks_ms[of]),
        max_ticks=np.full(len(modes), NO_LIMIT, dtype=np.int64),
        tick_ms=ticks_ms,
        preload_ticks=_column(
            0 if agent.preload is None else agent.preload.latency_ms * agent.preload.probability_ppm // MILLION
            for agent in agents
        )
        // ticks_ms,
        preload_bytes=_column(0 if agent.preload is None else agent.preload.memory_bytes for agent in agents),
        slopes=_padded([[slope * QUANTUM_TOKENS for slope in curve.slopes] for curve in curves], width),
        quanta=_padded([list(curve.quanta) for curve in curves], width),
        quantum_cost=_ceil(output * QUANTUM_TOKENS, 1000),
        given_tokens=given[0],
        given_cost=given[1],
        given_window=given[2],
        receiver=receiver,
        deferred_window=np.zeros(len(agents), dtype=np.int64),
        stage_of=_stage_of(problem),
        deferrable=_deferrable(problem),
    )
    _limit_latency(compiled)
    return compiled


def _options(problem: Problem, agent: Agent) -> list[tuple[Form | HandBack | None, ...]]:
    uses: list[tuple[Form | HandBack | None, ...]] = [(None, *problem.options(agent, use)) for use in agent.uses]
    return [*uses, agent.hand_backs or (None,)]


def _raw(problem: Problem, options: list[list[tuple[Form | HandBack | None, ...]]]) -> _Raw:
    """Lay out all options; uses come first, handing back is the last slot of all."""
    slots = max([len(agent) for agent in options])
    width = max([len(slot) for agent in options for slot in agent])
    shape = (len(options), slots, width)
    exists = np.zeros(shape, dtype=np.bool_)
    exists[:, :, KEEP] = True  # a slot that an agent does not have keeps nothing, for nothing
    single = _made_for_one(problem, options)
    cells: list[int] = []
    rows: list[tuple[int, ...]] = []
    items = problem.item_of
    for index, (agent, agent_options) in enumerate(zip(problem.agents, options, strict=True)):
        cell = index * slots * width
        for use, forms in zip(agent.uses, agent_options, strict=False):
            whole = items[use.item_id].tokens
            cells.extend(range(cell, cell + len(forms)))
            rows.append((whole, whole, 0, 0, 0, 0))
            rows.extend([_numbers(form, whole, use, single) for form in forms[1:]])
            cell += width
        cell = (index * slots + slots - 1) * width
        cells.extend(range(cell, cell + len(agent.hand_backs)))
        rows.extend([(way.tokens, way.tokens, -way.loss_points * UNITS_PER_POINT, 0, 0, 0) for way in agent.hand_backs])
    numbers = np.zeros((6, exists.size), dtype=np.int64)
    if rows:
        exists.reshape(-1)[cells] = True
        numbers[:, cells] = np.array(rows, dtype=np.int64).T
    return _Raw(exists, *numbers.reshape(6, *shape))


def _numbers(form: Any, whole: int, use: ItemUse, single: set[tuple[str, str]]) -> tuple[int, ...]:
    relevance = use.relevance_ppm
    loss = -(-form.loss_points * relevance * UNITS_PER_POINT // MILLION)
    need = -(-form.need_ppm * relevance // MILLION)
    prepare = form.prepare_nusd
    if prepare and (use.item_id, form.id) not in single:
        prepare = 0
    return form.tokens, whole, -loss, form.latency_ms, need, prepare


def _made_for_one(problem: Problem, options: list[list[tuple[Form | HandBack | None, ...]]]) -> set[tuple[str, str]]:
    """Return the forms that cost something to make and that only one agent can get: part of that option's cost."""
    seen: Counter[tuple[str, str]] = Counter()
    for agent, rows in zip(problem.agents, options, strict=True):
        for use, forms in zip(agent.uses, rows, strict=False):
            seen.update([(use.item_id, form.id) for form in forms[1:] if form.prepare_nusd])  # type: ignore[union-attr]
    return {key for key, count in seen.items() if count == 1}


def _modes(problem: Problem) -> tuple[list[Mode], Ints]:
    """Return the modes of all agents. A dearer price tier makes a mode of its own if the prompt can reach it."""
    incoming = [0] * len(problem.agents)
    index = {agent.id: position for position, agent in enumerate(problem.agents)}
    for agent in problem.agents:
        if agent.reports_to is not None:
            incoming[index[agent.reports_to]] += max((way.tokens for way in agent.hand_backs), default=0)
    modes: list[Mode] = []
    first = [0]
    for position, agent in enumerate(problem.agents):
        for number, variant in enumerate(agent.variants):
            longest = problem.context_tokens(agent) + incoming[position] + most_work_tokens(variant)
            longest += max((way.tokens for way in agent.hand_backs), default=0)
            modes += [
                Mode(position, number, tier, prices, window)
                for tier, prices, window in _tiers(problem.model_of[variant.model_id], longest)
            ]
        first.append(len(modes))
    return modes, np.array(first, dtype=np.int64)


def _tiers(model: Model, longest: int) -> list[tuple[int, TokenPrices, int | None]]:
    """Return the price tiers that prompts up to `longest` can reach: number, prices, and the window within them."""
    prices: list[TokenPrices] = [model, *model.tiers]
    ends: list[int | None] = [*(tier.above_tokens for tier in model.tiers), None]
    reached = []
    for number, (price, end) in enumerate(zip(prices, ends, strict=True)):
        window = min((limit for limit in (end, model.context_window) if limit is not None), default=None)
        reached.append((number, price, window))
        if end is None or longest <= end:
            break
    return reached


def most_work_tokens(variant: Variant) -> int:
    """Work tokens beyond which more are worthless or forbidden, in whole quanta above the floor."""
    wanted = max(variant.floor_tokens, variant.demand.tokens[-1])
    wanted = wanted if variant.max_tokens is None else min(wanted, variant.max_tokens)
    return variant.floor_tokens - (variant.floor_tokens - wanted) // QUANTUM_TOKENS * QUANTUM_TOKENS


class _UpToTheFloor(NamedTuple):
    """The work of a variant up to its floor, for its value."""

    demand: Demand
    weight: int
    max_tokens: int
    floor_tokens: int = 0


def _value_of_floor(variant: Variant) -> int:
    """Return the value of the work tokens up to the floor, so that variants with different floors compare."""
    if not variant.floor_tokens:
        return 0
    whole = -(-variant.floor_tokens // QUANTUM_TOKENS) * QUANTUM_TOKENS
    curve = value_curve(_UpToTheFloor(variant.demand, variant.weight, whole))
    worth = sum([slope * quanta * QUANTUM_TOKENS for slope, quanta in zip(curve.slopes, curve.quanta, strict=True)])
    return worth * variant.floor_tokens // whole


def _given(problem: Problem, sent: Ints, of: Ints) -> tuple[Ints, tuple[Ints, Ints, Ints]]:
    """Return who gets each agent's result, and what that consumes there."""
    index = {agent.id: position for position, agent in enumerate(problem.agents)}
    receiver = _column(-1 if agent.reports_to is None else index[agent.reports_to] for agent in problem.agents)
    calls, held = np.ones(len(problem.agents), dtype=np.int64), np.zeros(len(problem.agents), dtype=np.int64)
    for position, agent in enumerate(problem.agents):
        prices = [
            (price.written(agent.cache_lifetime) + price.read(agent.cache_lifetime) * (variant.calls - 1))
            for variant in agent.variants
            for model in [problem.model_of[variant.model_id]]
            for price in (model, *model.tiers)
        ]
        calls[position] = max(variant.calls for variant in agent.variants)
        held[position] = max(prices)
    to = receiver[of]
    got = np.where((to >= 0)[:, None], sent, 0)
    return receiver, (got * calls[to][:, None], _ceil(got * held[to][:, None], 1000), got)


def _tick_ms(problem: Problem) -> Ints:
    """Return the length of each agent's ticks."""
    limits = {stage.id: stage.max_latency_ms for stage in problem.stages}
    return _column(tick_ms(limits[agent.stage_id], len(agent.uses)) for agent in problem.agents)


def _limit_latency(compiled: Compiled) -> None:
    """Limit the latency of modes that could exceed their stage's."""
    stages = {stage.id: stage for stage in compiled.problem.stages}
    worst = compiled.base_ticks + np.where(compiled.exists, compiled.ticks, 0).max(axis=2).sum(axis=1)
    for mode, agent in enumerate(compiled.agent_of):
        limit = stages[compiled.problem.agents[agent].stage_id].max_latency_ms
        if limit is not None:
            ticks = limit // int(compiled.tick_ms[agent])
            if worst[mode] > ticks:
                compiled.max_ticks[mode] = ticks


def _stage_of(problem: Problem) -> Ints:
    index = {stage.id: position for position, stage in enumerate(problem.stages)}
    return _column(index[agent.stage_id] for agent in problem.agents)


def _deferrable(problem: Problem) -> NDArray[np.bool_]:
    """Say which agents may be deferred: not the mandatory ones, nor those whose results they need."""
    index = {agent.id: position for position, agent in enumerate(problem.agents)}
    deferrable = np.ones(len(problem.agents), dtype=np.bool_)
    waiting = [position for position, agent in enumerate(problem.agents) if agent.mandatory]
    while waiting:
        position = waiting.pop()
        if deferrable[position]:
            deferrable[position] = False
            waiting.extend([index[before] for before in problem.agents[position].after])
    return deferrable


def _precedence_links(compiled: Compiled) -> list[Link]:
    """An agent runs only if every agent whose result it needs runs."""
    index = {agent.id: position for position, agent in enumerate(compiled.problem.agents)}
    return [
        Link(_running(compiled, position), _running(compiled, index[before]))
        for position, agent in enumerate(compiled.problem.agents)
        for before in agent.after
        if compiled.deferrable[index[before]]
    ]


def _running(compiled: Compiled, agent: int) -> tuple[tuple[int, int, int], ...]:
    return tuple((mode, -1, -1) for mode in compiled.modes_of(agent))


def _base_links(compiled: Compiled) -> list[Link]:
    """A diff or a reference to what another run holds needs that run to get the piece whole."""
    problem = compiled.problem
    index = {agent.id: position for position, agent in enumerate(problem.agents)}
    slots = [{use.item_id: slot for slot, use in enumerate(agent.uses)} for agent in problem.agents]
    links = []
    for position, agent in enumerate(problem.agents):
        for slot, use in enumerate(agent.uses):
            if use.held_if_kept_by is None:
                continue
            needing = [
                option
                for option, form in enumerate(compiled.options[position][slot])
                if form is not None and problem.needs_link(use, form)  # type: ignore[arg-type]
            ]
            if not needing:
                continue
            holder = index[use.held_if_kept_by]
            there = slots[holder][use.item_id]
            links.append(
                Link(
                    tuple((mode, slot, option) for mode in compiled.modes_of(position) for option in needing),
                    tuple((mode, there, KEEP) for mode in compiled.modes_of(holder)),
                )
            )
    return links


def _shared_forms(compiled: Compiled) -> list[SharedForm]:
    """Return the forms that cost something to make and that several agents can get."""
    cells: dict[tuple[str, str], list[tuple[int, int, int]]] = {}
    costs: dict[tuple[str, str], int] = {}
    single = _made_for_one(compiled.problem, compiled.options)
    for position, agent in enumerate(compiled.problem.agents):
        for slot, use in enumerate(agent.uses):
            for option, form in enumerate(compiled.options[position][slot]):
                if option == KEEP or not form.prepare_nusd:  # type: ignore[union-attr]
                    continue
                key = (use.item_id, form.id)  # type: ignore[union-attr]
                if key in single:
                    continue
                costs[key] = form.prepare_nusd  # type: ignore[union-attr]
                cells.setdefault(key, []).extend((mode, slot, option) for mode in compiled.modes_of(position))
    return [SharedForm(*key, costs[key], tuple(members)) for key, members in cells.items()]


def _add_limits(compiled: Compiled) -> None:
    """Add the limits that can bind: what all agents could consume at most exceeds them."""
    problem = compiled.problem
    agents = len(problem.agents)
    limits = compiled.limits
    most_tokens, most_cost = _most(compiled)
    incoming = [np.zeros(agents, dtype=np.int64) for _ in range(3)]
    for agent in range(agents):
        to = compiled.receiver[agent]
        if to >= 0:
            modes = compiled.modes_of(agent)
            for total, given in zip(
                incoming, (compiled.given_tokens, compiled.given_cost, compiled.given_window), strict=True
            ):
                total[to] += given[modes.start : modes.stop].max()
    compiled.deferred_window = incoming[2]

    def add(name: str, amount: int | None, most: int) -> int:
        if amount is None or most <= amount:
            return NO_LIMIT
        limits.append(Limit(name, amount))
        return len(limits) - 1

    tokens, cost = most_tokens + incoming[0], most_cost + incoming[1]
    prepared = sum(form.prepare_nusd for form in compiled.shared)
    compiled.tokens_limit = add("tokens", problem.spendable_tokens, int(tokens.sum()))
    compiled.cost_limit = add("cost", problem.max_cost_nusd, int(cost.sum()) + prepared)
    compiled.memory_limit = add("memory", problem.max_preload_bytes, int(compiled.preload_bytes.sum()))
    by_stage = np.zeros((len(problem.stages), 2), dtype=np.int64)
    np.add.at(by_stage, compiled.stage_of, np.stack((tokens, cost), axis=1))
    compiled.stage_tokens_limit = _column(
        add(f"tokens of stage {stage.id}", stage.max_tokens, int(most[0]))
        for stage, most in zip(problem.stages, by_stage, strict=True)
    )
    compiled.stage_cost_limit = _column(
        add(f"cost of stage {stage.id}", stage.max_cost_nusd, int(most[1]))
        for stage, most in zip(problem.stages, by_stage, strict=True)
    )
    compiled.window_limit = _column(_add_window(compiled, agent, int(incoming[2][agent])) for agent in range(agents))


def _add_window(compiled: Compiled, agent: int, incoming: int) -> int:
    """Add the limit of an agent's context window if one of its modes could break it."""
    modes = compiled.modes_of(agent)
    rows = slice(modes.start, modes.stop)
    unlimited = [compiled.modes[mode].window is None for mode in modes]
    work = compiled.quanta[rows].sum(axis=1) * QUANTUM_TOKENS
    most = compiled.base_window[rows] + np.where(compiled.exists, compiled.window, 0)[rows].max(axis=2).sum(axis=1)
    most = most + work + incoming
    compiled.base_window[rows][unlimited] -= most[unlimited]  # no window: never above 0
    if not np.any(most[~np.array(unlimited)] > 0):
        return NO_LIMIT
    compiled.limits.append(Limit(f"window of agent {compiled.problem.agents[agent].id}", 0))
    return len(compiled.limits) - 1


def _most(compiled: Compiled) -> tuple[Ints, Ints]:
    """Return what each agent could consume at most: tokens, and cost."""
    work = compiled.quanta.sum(axis=1)
    tokens = np.where(compiled.exists, compiled.tokens, 0).max(axis=2).sum(axis=1)
    cost = np.where(compiled.exists, compiled.cost, 0).max(axis=2).sum(axis=1)
    tokens = tokens + compiled.base_tokens + work * QUANTUM_TOKENS
    cost = cost + compiled.base_cost + work * compiled.quantum_cost
    starts = compiled.first_mode[:-1]
    return np.maximum.reduceat(tokens, starts), np.maximum.reduceat(cost, starts)


def _column(values: Any) -> Ints:
    return np.fromiter(values, dtype=np.int64)


def _padded(rows: list[list[int]], width: int) -> Ints:
    table = np.zeros((len(rows), width), dtype=np.int64)
    for row, values in zip(table, rows, strict=True):
        row[: len(values)] = values
    return table


def _ceil(amounts: Ints, divisor: int | Ints) -> Ints:
    rounded: Ints = -(-amounts // divisor)
    return rounded


def _share(amounts: Ints, ppm: Ints) -> Ints:
    """Return amounts times millionths, rounded up, without leaving 64 bits."""
    return amounts // MILLION * ppm + _ceil(amounts % MILLION * ppm, MILLION)
