"""Proof that no plan fits, without a solver.

Price the limits: let weights w >= 0 say how much each unit of a limit counts. If even the least weighted consumption
of every agent, chosen on its own, adds up to more than the weighted amounts that there are,

    sum over agents of  min over its ways of running of  w . consumption   >   w . amounts,

then no plan fits: any plan would consume at least the left side and at most the right side (Farkas' lemma, in the
form of a Lagrangian bound). Weights are searched with doubles and the inequality is checked in whole numbers, so the
proof does not depend on how the weights were found. It proves what a linear relaxation can prove: some problems that
do not fit have no such proof.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from apportion.planner.choice import DEFERRED, Choice, chosen, ticks_after_preload, usage
from apportion.planner.compiled import KEEP, NO_LIMIT
from apportion.planner.constraints import latency_limit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from apportion.planner.compiled import Compiled, Link

    Numbers = NDArray[Any]
    Ints = NDArray[np.int64]

STEPS = 150
"""Subgradient steps before the search for weights gives up."""

RESOLUTION = 10**9
"""Weights are rounded to so many parts of the largest one, relative to what each limit is worth."""


class Weights(NamedTuple):
    """What one unit of each limit counts: whole numbers in a proof, doubles while searching.

    Attributes:
        limits: Per limit of the world, in the order of `Compiled.limits`.
        latency: Per agent, for its latency in ticks.
        links: Per link.
    """

    limits: Numbers
    latency: Numbers
    links: Numbers

    def names(self, compiled: Compiled) -> tuple[str, ...]:
        """Return the limits that the proof uses: they conflict with each other."""
        limits = [limit.name for limit, weight in zip(compiled.limits, self.limits, strict=True) if weight > 0]
        latency = [latency_limit(compiled, int(agent)) for agent in np.flatnonzero(self.latency > 0)]
        return (*limits, *dict.fromkeys(latency))


def prove_infeasible(compiled: Compiled, *, steps: int = STEPS) -> Weights | None:
    """Return weights that prove that no plan fits, or `None` where none were found.

    Projected subgradient ascent on the simplex of weights; the subgradient is by how much the cheapest ways of
    running exceed the limits.
    """
    scales = _scales(compiled)
    bound_in_time = np.zeros(len(scales.latency))
    bound_in_time[compiled.agent_of[compiled.max_ticks != NO_LIMIT]] = 1.0
    share = np.concatenate((np.ones(len(scales.limits)), bound_in_time, np.zeros(len(scales.links))))
    if not share.any():
        return None
    share /= share.sum()
    for step in range(1, steps + 1):
        weights = _split(share, scales)
        excess, choice = least_excess(compiled, weights)
        if excess > 0:
            whole = _whole(weights)
            if least_excess(compiled, whole)[0] > 0:
                return whole
        slope = np.concatenate(_excesses(compiled, choice, scales))
        norm = float(np.sqrt((slope**2).sum()))
        if norm == 0.0:
            return None  # the cheapest ways of running fit exactly
        share = np.maximum(0.0, share + slope * (0.7 / (norm * step**0.5)))
        if not share.any():
            return None
        share /= share.sum()
    return None


def least_excess(compiled: Compiled, weights: Weights) -> tuple[Any, Choice]:
    """Return the least weighted consumption less the weighted amounts, and the choice of it; above 0 is a proof.

    Whole weights give an exact whole number.
    """
    kind = weights.latency.dtype
    base, options, credit, deferred = _prices(compiled, weights)
    modes, slots, _ = options.shape
    best = options.argmin(axis=2)
    free = np.take_along_axis(options, best[:, :, None], axis=2)[:, :, 0]
    behind = np.zeros((modes, slots + 1), dtype=kind)
    behind[:, :-1] = np.cumsum(free[:, ::-1], axis=1)[:, ::-1]
    intact = np.zeros((modes, slots + 1), dtype=kind)
    intact[:, 1:] = np.cumsum(options[:, :, KEEP] - credit, axis=1)
    beyond = np.arange(slots + 1)[None, :] > compiled.chain[:, None]
    totals = intact + behind
    totals[beyond] = totals.max() + 1
    prefix = totals.argmin(axis=1)
    mode_totals = base + totals[np.arange(modes), prefix]
    preload = _preload_prices(compiled, weights)
    required = required_agents(compiled)
    excess = -(weights.limits * _limit_amounts(compiled)).sum()
    picked, rows, preloads = [], [], []
    for agent in range(len(compiled.problem.agents)):
        own = compiled.modes_of(agent)
        mode = own.start + int(mode_totals[own.start : own.stop].argmin())
        least = mode_totals[mode] + min(preload[agent], 0)
        runs = required[agent] or least < deferred[agent]
        excess += least if runs else deferred[agent]
        options_of_mode = np.where(np.arange(slots) < prefix[mode], KEEP, best[mode]) if runs else np.zeros(slots, int)
        picked.append(mode if runs else DEFERRED)
        rows.append(tuple(options_of_mode.tolist()))
        preloads.append(bool(runs and preload[agent] < 0))
    return excess, Choice(tuple(picked), tuple(rows), (0,) * len(picked), tuple(preloads))


def required_agents(compiled: Compiled) -> list[bool]:
    """Return which agents run in every plan: the mandatory ones, and those whose results they need."""
    required = [not deferrable for deferrable in compiled.deferrable.tolist()]
    before: dict[int, list[int]] = {}
    for link in compiled.links:
        if link.needs[0][1] < 0:
            before.setdefault(_agent(compiled, link.needs), []).append(_agent(compiled, link.gives))
    waiting = [agent for agent, needed in enumerate(required) if needed]
    while waiting:
        for other in before.get(waiting.pop(), []):
            if not required[other]:
                required[other] = True
                waiting.append(other)
    return required


def _agent(compiled: Compiled, cells: tuple[tuple[int, int, int], ...]) -> int:
    return int(compiled.agent_of[cells[0][0]])


def _prices(compiled: Compiled, weights: Weights) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Return the weighted consumption: of modes, of options, what an intact prefix gives back, and of deferral."""
    of = compiled.agent_of
    stage = compiled.stage_of
    weight = np.append(weights.limits, 0)  # the last one: no limit
    tokens = weight[compiled.tokens_limit] + weight[compiled.stage_tokens_limit[stage]]
    cost = weight[compiled.cost_limit] + weight[compiled.stage_cost_limit[stage]]
    window = weight[compiled.window_limit]
    limited = compiled.max_ticks != NO_LIMIT
    ticks = np.where(limited, weights.latency[of], 0)
    base = (
        tokens[of] * compiled.base_tokens
        + cost[of] * compiled.base_cost
        + window[of] * compiled.base_window
        + ticks * (compiled.base_ticks - compiled.max_ticks)
    )
    cube = (slice(None), None, None)
    options = (
        tokens[of][cube] * compiled.tokens
        + cost[of][cube] * compiled.cost
        + window[of][cube] * compiled.window
        + ticks[cube] * compiled.ticks
    )
    gives = compiled.receiver[of] >= 0
    to = compiled.receiver[of][gives]
    options[gives, compiled.hand_back_slot] += (
        tokens[to][:, None] * compiled.given_tokens[gives]
        + cost[to][:, None] * compiled.given_cost[gives]
        + window[to][:, None] * compiled.given_window[gives]
    )
    _add_making(compiled, weight[compiled.cost_limit], options)
    for link, price in zip(compiled.links, weights.links, strict=True):
        _add_link(link, price, base, options)
    options[~compiled.exists] = options.max() + 1
    return base, options, cost[of][:, None] * compiled.credit, -window * compiled.deferred_window


def _add_making(compiled: Compiled, cost: Any, options: Numbers) -> None:
    """Spread the cost of making a shared form over the agents that can get it: each pays at most its part."""
    for form in compiled.shared:
        agents = len({int(compiled.agent_of[mode]) for mode, _, _ in form.cells})
        for cell in form.cells:
            options[cell] += cost * (form.prepare_nusd // agents)


def _add_link(link: Link, price: Any, base: Numbers, options: Numbers) -> None:
    """A choice that needs another one pays for it; the other one is paid."""
    for cells, sign in ((link.needs, 1), (link.gives, -1)):
        for mode, slot, option in cells:
            if slot < 0:
                base[mode] += sign * price
            else:
                options[mode, slot, option] += sign * price


def _preload_prices(compiled: Compiled, weights: Weights) -> Numbers:
    """Return what loading in advance counts: memory, less the latency that it saves where latency is limited."""
    memory = weights.limits[compiled.memory_limit] if compiled.memory_limit != NO_LIMIT else 0
    prices: Numbers = memory * compiled.preload_bytes - weights.latency * compiled.preload_ticks
    return prices


def _limit_amounts(compiled: Compiled) -> Ints:
    return np.array([limit.amount for limit in compiled.limits], dtype=np.int64)


def _scales(compiled: Compiled) -> Weights:
    """Return what makes the limits comparable: their amounts, or what is consumed where there is nothing."""
    agents = len(compiled.problem.agents)
    amounts = _limit_amounts(compiled)
    windows = np.zeros(len(amounts))
    for agent, limit in enumerate(compiled.window_limit):
        if limit != NO_LIMIT:
            windows[limit] = max(compiled.modes[mode].window or 0 for mode in compiled.modes_of(agent))
    ticks = np.zeros(agents)
    np.maximum.at(ticks, compiled.agent_of, compiled.max_ticks.astype(np.float64))
    return Weights(np.maximum(1.0, np.maximum(amounts, windows)), np.maximum(1.0, ticks), np.ones(len(compiled.links)))


def _split(share: Numbers, scales: Weights) -> Weights:
    limits, latency = len(scales.limits), len(scales.limits) + len(scales.latency)
    return Weights(
        share[:limits] / scales.limits, share[limits:latency] / scales.latency, share[latency:] / scales.links
    )


def _whole(weights: Weights) -> Weights:
    """Round weights down to whole numbers, finely enough for the smallest one that counts."""
    every = np.concatenate(weights)
    unit = RESOLUTION / float(every[every > 0].min())
    return Weights(*(np.array([int(weight * unit) for weight in part], dtype=object) for part in weights))


def _excesses(compiled: Compiled, choice: Choice, scales: Weights) -> tuple[Numbers, Numbers, Numbers]:
    """Return by how much a choice exceeds limits, latencies and links, relative to their scales."""
    amounts = _limit_amounts(compiled)
    modes = np.array(choice.modes)
    most = np.where(modes == DEFERRED, NO_LIMIT, compiled.max_ticks[modes])
    over = np.where(most == NO_LIMIT, 0, ticks_after_preload(compiled, choice) - most)
    links = [
        sum(chosen(compiled, choice, cell) for cell in link.needs)
        - sum(chosen(compiled, choice, cell) for cell in link.gives)
        for link in compiled.links
    ]
    return (
        (usage(compiled, choice) - amounts) / scales.limits,
        over / scales.latency,
        np.array(links, dtype=np.float64) / scales.links,
    )
