"""Turning prices into a plan for many agents: raise all prices until what the agents do fits, then repair links.

With many agents the Lagrangian relaxation is nearly exact: at the best prices only a few agents are torn between two
ways, and work quanta are small. So the plan at slightly higher prices, with the rest given away as work, is close to
the bound, and CP-SAT is left to decide about the torn agents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from apportion.planner.choice import DEFERRED, Choice, violations
from apportion.planner.compiled import NO_LIMIT
from apportion.planner.dual import Prices
from apportion.planner.improve import fill_work

if TYPE_CHECKING:
    from apportion.planner.compiled import Compiled, Link
    from apportion.planner.dual import Dual, Pricing, Reduced, Weights

ROUNDS = 7
"""Steps of the bisection."""

HIGHEST = 3.0
"""Largest multiple of the prices; above it a plan is looked for otherwise."""

PASSES = 6
"""Repairs of links that may break others."""


def round_prices(dual: Dual, prices: Prices, weights: Weights) -> Choice | None:
    """Return a plan that fits, from prices, or `None` where even much higher prices give none.

    Args:
        dual: The bounds of the problem.
        prices: Good prices.
        weights: Their objective.
    """
    best: Choice | None = None
    low, high = 0.0, 1.0
    for _ in range(ROUNDS):
        middle = (low + high) / 2.0 if best is not None or low else 0.0
        factor = 1.0 + (HIGHEST - 1.0) * middle**2
        choice = _choice_at(dual, Prices(prices.limits * factor, prices.links), weights)
        if violations(dual.compiled, choice):
            low = max(middle, 2.0**-ROUNDS)
        else:
            best, high = choice, middle
            if middle == 0.0:
                break
    return None if best is None else fill_work(dual.compiled, best)


def _choice_at(dual: Dual, prices: Prices, weights: Weights) -> Choice:
    pricing = dual.price(prices, weights, latency=True)
    pricing = _within_memory(dual, prices, weights, pricing)
    reduced = dual.reduced(prices, weights)
    choice = as_choice(dual.compiled, pricing, reduced)
    return repair_links(dual.compiled, choice, reduced)


def _within_memory(dual: Dual, prices: Prices, weights: Weights, pricing: Pricing) -> Pricing:
    """Let those agents do without loading in advance that lose least by it, until the memory suffices."""
    compiled = dual.compiled
    row = compiled.memory_limit
    running = np.flatnonzero(pricing.mode != DEFERRED)
    loading = running[pricing.preload[pricing.mode[running]]]
    excess = int(compiled.preload_bytes[loading].sum()) - compiled.problem.max_preload_bytes
    if row == NO_LIMIT or excess <= 0:
        return pricing
    barred = prices.limits.copy()
    barred[row] = 1e18
    without = dual.price(Prices(barred, prices.links), weights, latency=True)
    loss = pricing.agent_values[loading] - without.agent_values[loading]
    order = loading[np.argsort(loss / compiled.preload_bytes[loading], kind="stable")]
    freed = np.cumsum(compiled.preload_bytes[order])
    switched = order[: int(np.searchsorted(freed, excess)) + 1]
    mode, options, preload = pricing.mode.copy(), pricing.options.copy(), pricing.preload.copy()
    mode[switched] = without.mode[switched]
    for agent in switched.tolist():
        rows = slice(compiled.modes_of(agent).start, compiled.modes_of(agent).stop)
        options[rows], preload[rows] = without.options[rows], False
    return pricing._replace(mode=mode, options=options, preload=preload)


def as_choice(compiled: Compiled, pricing: Pricing, reduced: Reduced) -> Choice:
    """Return what the agents do at some prices; links may be broken and limits exceeded."""
    quanta = np.where(reduced.segments > 0.0, compiled.quanta, 0).sum(axis=1)
    none = (0,) * compiled.value.shape[1]
    modes = pricing.mode.tolist()
    return Choice(
        tuple(modes),
        tuple([none if mode == DEFERRED else tuple(pricing.options[mode].tolist()) for mode in modes]),
        tuple([0 if mode == DEFERRED else int(quanta[mode]) for mode in modes]),
        tuple([mode != DEFERRED and bool(pricing.preload[mode]) for mode in modes]),
    )


def repair_links(compiled: Compiled, choice: Choice, reduced: Reduced) -> Choice:
    """Let agents do without what others do not give them: another option, or deferral."""
    modes, options = list(choice.modes), [list(row) for row in choice.options]
    quanta, preloads = list(choice.quanta), list(choice.preloads)

    def holds(cell: tuple[int, int, int]) -> bool:
        mode, slot, option = cell
        agent = int(compiled.agent_of[mode])
        return modes[agent] == mode and (slot < 0 or options[agent][slot] == option)

    for _ in range(PASSES):
        broken = [link for link in compiled.links if any(map(holds, link.needs)) and not any(map(holds, link.gives))]
        if not broken:
            break
        for link in broken:
            cell = next((cell for cell in link.needs if holds(cell)), None)
            if cell is None:
                continue  # another repair has settled it
            agent = int(compiled.agent_of[cell[0]])
            if cell[1] >= 0:
                options[agent][cell[1]] = _next_best(compiled, link, cell, options[agent], reduced)
            elif compiled.deferrable[agent]:
                modes[agent], options[agent], quanta[agent], preloads[agent] = (
                    DEFERRED,
                    [0] * len(options[agent]),
                    0,
                    False,
                )
    return Choice(tuple(modes), tuple([tuple(row) for row in options]), tuple(quanta), tuple(preloads))


def _next_best(compiled: Compiled, link: Link, cell: tuple[int, int, int], options: list[int], reduced: Reduced) -> int:
    """Return the best option of a slot that does not need the link and takes no more time."""
    mode, slot, option = cell
    values = reduced.options[mode, slot].copy()
    for other_mode, other_slot, other in link.needs:
        if (other_mode, other_slot) == (mode, slot):
            values[other] = -np.inf
    values[compiled.ticks[mode, slot] > compiled.ticks[mode, slot, option]] = -np.inf
    return int(values.argmax()) if np.isfinite(values.max()) else options[slot]
