"""Columns: whole ways of running an agent, out of which the master problem combines a plan.

A column fixes mode, options and preloading of one agent, and obeys its latency limit; work quanta stay open. Good
columns are those that agents would take at prices near the best ones (Dantzig and Wolfe, "Decomposition Principle for
Linear Programs", Operations Research 8, 1960). A pool needs a few more, or it holds no plan at all: the most frugal
ways, ways that need no other agent, and deferral.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from apportion.planner.compiled import KEEP, NO_LIMIT
from apportion.planner.dual import VALUE, Prices, Pricing, Weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from apportion.planner.choice import Choice
    from apportion.planner.compiled import Compiled
    from apportion.planner.dual import Dual

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

SCALINGS = (0.55, 0.8, 0.9, 1.1, 1.25, 1.6, 2.5, 6.0)
"""Multiples of the best prices at which the pool is widened: pools of one price level hold few plans that fit."""

SWAPS = 6
"""Neighbours of a mode's best column that differ in one slot; those that lose least."""

BARRED = 1e15
"""A price that nobody pays who has another way."""

FRUGAL = 1e-6
"""How much value counts in a frugal column: only between equally frugal ones."""


class Columns(NamedTuple):
    """Columns side by side, and what each is worth and consumes; work quanta are not included.

    Attributes:
        mode: Mode of each column; shape (columns,).
        options: Option in each slot; shape (columns, slots).
        preload: Whether it loads in advance.
        value: Value units.
        tokens, cost, window: Consumption of its own; cost after the credit of its intact prefix.
        given_tokens, given_cost, given_window: Consumption at the agent that gets its result.
        needed: Whether it must be offered, whatever its reduced value.
    """

    mode: Ints
    options: Ints
    preload: NDArray[np.bool_]
    value: Ints
    tokens: Ints
    cost: Ints
    window: Ints
    given_tokens: Ints
    given_cost: Ints
    given_window: Ints
    needed: NDArray[np.bool_]

    def take(self, rows: Ints) -> Columns:
        """Return some of the columns."""
        return Columns(*[part[rows] for part in self])  # type: ignore[arg-type]


class Pool:
    """Collects columns while prices move, and lays them out.

    Args:
        dual: The bounds of the problem.
    """

    def __init__(self, dual: Dual) -> None:
        self.dual = dual
        self._compiled = dual.compiled
        rng = np.random.default_rng(0)
        shape = self._compiled.value.shape
        self._codes = rng.integers(1, 2**62, size=shape[1:], dtype=np.int64)
        self._modes: list[Ints] = []
        self._options: list[Ints] = []
        self._needed: list[NDArray[np.bool_]] = []
        self._all = np.arange(shape[0])
        self._laid_out: Columns | None = None

    def __call__(self, pricing: Pricing, /) -> None:
        """Add the best column of every mode at some prices."""
        self.add(self._all, pricing.options)

    def add(self, modes: Ints, options: Ints, *, needed: bool = False) -> None:
        """Add columns; those that break their latency limit or are there already are dropped later."""
        self._modes.append(modes)
        self._options.append(options)
        self._needed.append(np.full(len(modes), needed))
        self._laid_out = None

    def add_choice(self, choice: Choice) -> None:
        """Add the columns of a known plan, which must be offered."""
        running = [(mode, options) for mode, options in zip(choice.modes, choice.options, strict=True) if mode >= 0]
        if running:
            modes, options = zip(*running, strict=True)
            self.add(np.array(modes), np.array(options), needed=True)

    def add_frugal(self) -> None:
        """Add the most frugal columns: least tokens, least cost, smallest prompt, least of all; and linkless ones."""
        scale = self.dual.unit_prices()
        frugal = Weights(FRUGAL, 0.0)
        grid = np.zeros((len(self._limit_groups()) + 1, len(scale)))
        for row, limits in zip(grid, self._limit_groups(), strict=False):
            row[limits] = scale[limits]
        grid[-1] = scale
        free = np.zeros(self.dual.link_count)
        barred = np.full(self.dual.link_count, BARRED)
        for links in (free, barred) if self.dual.link_count else (free,):
            swept = self.dual.sweep(grid, links, frugal)
            for number, options in enumerate(swept, 1):
                self.add(self._all, options, needed=number == len(swept))
        if (self._compiled.max_ticks != NO_LIMIT).any():
            quick = self.dual.price(self.without_preload(Prices(scale, barred)), frugal, latency=True)
            self.add(self._all, quick.options, needed=True)

    def without_preload(self, prices: Prices) -> Prices:
        """Return the same prices, but memory so dear that only those load in advance who must."""
        row = self._compiled.memory_limit
        if row == NO_LIMIT:
            return prices
        limits = prices.limits.copy()
        limits[row] = BARRED
        return Prices(limits, prices.links)

    def _limit_groups(self) -> list[Ints]:
        compiled = self._compiled
        groups = [
            np.append(compiled.stage_tokens_limit, compiled.tokens_limit),
            np.append(compiled.stage_cost_limit, compiled.cost_limit),
            compiled.window_limit,
        ]
        present = [group[group != NO_LIMIT] for group in groups]
        return [group for group in present if group.size]

    def add_around(self, prices: Prices, weights: Weights, pricing: Pricing, *, far: bool = True) -> None:
        """Add columns at multiples of some prices, and neighbours of the best columns that differ in one slot.

        Args:
            prices: The prices.
            weights: Their objective.
            pricing: What agents do at these prices, latency obeyed.
            far: Whether to look at multiples of the prices, too; once is enough.
        """
        self(pricing)
        self._add_neighbours(prices, weights, pricing.options)
        if not far:
            return
        grid = np.array(SCALINGS)[:, None] * prices.limits
        links = [prices.links, np.zeros_like(prices.links)] if prices.links.any() else [prices.links]
        for charge in links:
            for options in self.dual.sweep(grid, charge, weights):
                self.add(self._all, options)
        if self._compiled.memory_limit != NO_LIMIT:
            self(self.dual.price(self.without_preload(prices), weights, latency=True))

    def _add_neighbours(self, prices: Prices, weights: Weights, best: Ints) -> None:
        options = self.dual.reduced(prices, weights).options
        modes, slots, width = options.shape
        if width == 1:
            return
        here = np.take_along_axis(options, best[:, :, None], axis=2)
        loss = here - options
        np.put_along_axis(loss, best[:, :, None], np.inf, axis=2)
        second = loss.argmin(axis=2)
        least = np.take_along_axis(loss, second[:, :, None], axis=2)[:, :, 0]
        swaps = min(SWAPS, slots)
        where = (
            np.argpartition(least, swaps - 1, axis=1)[:, :swaps]
            if swaps < slots
            else np.tile(np.arange(slots), (modes, 1))
        )
        rows = np.repeat(np.arange(modes), swaps)
        slot = where.reshape(-1)
        real = np.isfinite(least[rows, slot])
        rows, slot = rows[real], slot[real]
        neighbours = best[rows]
        neighbours[np.arange(len(rows)), slot] = second[rows, slot]
        self.add(rows, neighbours)

    def columns(self) -> Columns:
        """Return all columns that obey their latency limits, each once, in the order in which they came."""
        if self._laid_out is None:
            modes, options = np.concatenate(self._modes), np.concatenate(self._options)
            needed = np.concatenate(self._needed)
            keys = modes * np.int64(0x9E3779B97F4A7C1) + self._codes[np.arange(options.shape[1]), options].sum(axis=1)
            _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
            ever_needed = np.zeros(len(first), dtype=np.bool_)
            np.logical_or.at(ever_needed, inverse, needed)
            order = np.argsort(first)
            rows = first[order]
            self._laid_out = lay_out(self._compiled, modes[rows], options[rows], ever_needed[order])
            self._modes, self._options = [modes[rows]], [options[rows]]
            self._needed = [ever_needed[order]]
        return self._laid_out


def lay_out(compiled: Compiled, modes: Ints, options: Ints, needed: NDArray[np.bool_]) -> Columns:
    """Return columns with what they are worth and consume; those that cannot obey their latency limit are left out."""
    agents = compiled.agent_of[modes]
    slots = np.arange(options.shape[1])[None, :]
    cells = (modes[:, None], slots, options)
    limit = compiled.max_ticks[modes]
    preload = np.zeros(len(modes), dtype=np.bool_)
    if (limit != NO_LIMIT).any():
        ticks = compiled.base_ticks[modes] + compiled.ticks[cells].sum(axis=1)
        preload = (limit != NO_LIMIT) & (ticks > limit)
        possible = ~preload | (ticks - compiled.preload_ticks[agents] <= limit)
        if not possible.all():
            modes, options, needed, preload = modes[possible], options[possible], needed[possible], preload[possible]
            cells = (modes[:, None], slots, options)
    last = options[:, -1]
    cost = compiled.base_cost[modes] + compiled.cost[cells].sum(axis=1)
    kept = np.logical_and.accumulate(options == KEEP, axis=1)
    return Columns(
        mode=modes,
        options=options,
        preload=preload,
        value=compiled.base_value[modes] + compiled.value[cells].sum(axis=1),
        tokens=compiled.base_tokens[modes] + compiled.tokens[cells].sum(axis=1),
        cost=cost - (compiled.credit[modes] * kept).sum(axis=1),
        window=compiled.base_window[modes] + compiled.window[cells].sum(axis=1),
        given_tokens=compiled.given_tokens[modes, last],
        given_cost=compiled.given_cost[modes, last],
        given_window=compiled.given_window[modes, last],
        needed=needed,
    )


def reduced_values(dual: Dual, columns: Columns, prices: Prices, weights: Weights) -> Floats:
    """Return what columns are worth after paying the prices, with their work segments as these pay."""
    reduced = dual.reduced(prices, weights)
    rows = columns.mode
    picked = np.take_along_axis(reduced.options[rows], columns.options[:, :, None], axis=2)[:, :, 0]
    kept = np.logical_and.accumulate(columns.options == KEEP, axis=1)
    values: Floats = reduced.base[rows] + picked.sum(axis=1) + (reduced.credit[rows] * kept).sum(axis=1)
    memory = float(np.append(prices.limits, 0.0)[dual.compiled.memory_limit])
    if memory:
        agents = dual.compiled.agent_of[rows]
        values -= memory * np.where(columns.preload, dual.compiled.preload_bytes[agents], 0)
    return values


def select(dual: Dual, columns: Columns, prices: Sequence[Prices], *, per_agent: int, weights: Weights = VALUE) -> Ints:
    """Return which columns to combine: the best of each agent at each of some prices, and those that must be offered.

    Args:
        dual: The bounds of the problem.
        columns: All columns.
        prices: Prices at which columns are compared.
        per_agent: How many of each agent are taken at each of them.
        weights: The objective.
    """
    chosen = columns.needed.copy()
    agents = dual.compiled.agent_of[columns.mode]
    for level in prices:
        values = reduced_values(dual, columns, level, weights)
        order = np.lexsort((-values, agents))
        starts = np.searchsorted(agents[order], np.arange(int(agents.max(initial=0)) + 2))
        rank = np.arange(len(order)) - starts[agents[order]]
        chosen[order[rank < per_agent]] = True
    return np.flatnonzero(chosen)
