"""A bound on every plan that does not come from CP-SAT: prices on the limits, and each agent on its own.

With a price on every limit and every link, the agents no longer depend on each other: each takes the way of running
that is worth most after paying the prices. By weak duality

    bound(prices) = sum over agents of their best reduced value
                  + sum over limits of price * amount
                  + sum over shared forms of max(0, what their links pay - what making them costs)

is at or above the value of every plan, whatever the prices (Geoffrion, "Lagrangean Relaxation for Integer
Programming", Mathematical Programming Study 2, 1974). Low bounds are found by subgradient steps (Polyak, 1969).

An agent's best way is found exactly, mode by mode: work segments pay or do not, each on its own; the options of
slots are independent, but for two things that couple them:

- the cached prefix is intact through slot j only if all slots up to j are kept; a prefix sum decides;
- the latency of a mode is limited; a dynamic program over ticks decides. It is left out while prices move, which
  keeps the bound valid, only weaker.

The objective is `weights.value * value - weights.cost * cost`, so that one code bounds value and, with prices on a
least value, cost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from apportion.planner.budgets.problem import QUANTUM_TOKENS
from apportion.planner.compiled import KEEP, NO_LIMIT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from apportion.planner.compiled import Compiled

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

BOUND_SOURCE = "lagrangian dual"
"""How plans name the bound of this module."""


STUCK = 10
"""Steps without a lower bound after which the target of the steps is moved closer."""

GRID = (0.0, 0.1, 0.2, 0.35, 0.6, 1.0)
"""Shares of the whole value that a limit as a whole may cost: where prices begin."""

GRID_NEAR = (0.0, 0.7, 0.85, 1.0, 1.2, 1.4)
"""The same around the best of them, as multiples."""


class Weights(NamedTuple):
    """What is maximised: `value` times the value, less `cost` times the cost."""

    value: float
    cost: float


VALUE = Weights(1.0, 0.0)
"""The weights of the first phase: value alone."""


class Prices(NamedTuple):
    """Prices at or above 0: per unit of each limit, and per link (those of shared forms behind the others)."""

    limits: Floats
    links: Floats


class Cases(NamedTuple):
    """A part of what agents may do: which modes may run, and which agents may be deferred."""

    runs: NDArray[np.bool_]
    defers: NDArray[np.bool_]


class Pricing(NamedTuple):
    """What the agents do at given prices, each on its own.

    Attributes:
        bound: Upper bound on the objective of every plan.
        mode: Mode of each agent, -1 for deferred; shape (agents,).
        options: Best options of every mode; shape (modes, slots).
        preload: Whether the best way of a mode loads in advance; shape (modes,).
        reduced: Best reduced value of every mode; shape (modes,).
        agent_values: Best reduced value of every agent; shape (agents,).
        slack: Amount left of each limit, negative where it is exceeded; empty if it was not asked for.
        link_slack: What links give less what they need; the same.
    """

    bound: float
    mode: Ints
    options: Ints
    preload: NDArray[np.bool_]
    reduced: Floats
    agent_values: Floats
    slack: Floats
    link_slack: Floats


class Reduced(NamedTuple):
    """Values after paying the prices: of options, of the cached prefix, and of modes with their work segments."""

    options: Floats
    credit: Floats
    base: Floats
    segments: Floats


class Dual:
    """Bounds of one compiled problem.

    Args:
        compiled: The problem as arrays.
    """

    def __init__(self, compiled: Compiled) -> None:
        self.compiled = compiled
        of = compiled.agent_of
        stage = compiled.stage_of[of]
        self.amounts = np.array([float(limit.amount) for limit in compiled.limits])
        self._limited = np.flatnonzero(compiled.max_ticks != NO_LIMIT)
        self._latency = LatencyTable(compiled, self._limited)
        self._has_chain = bool(compiled.credit.any())
        self._stage_tokens, self._stage_cost = compiled.stage_tokens_limit[stage], compiled.stage_cost_limit[stage]
        self._window = compiled.window_limit[of]
        receiver = compiled.receiver[of]
        self._to = np.maximum(receiver, 0)
        to_stage = compiled.stage_of[self._to]
        self._to_tokens, self._to_cost = compiled.stage_tokens_limit[to_stage], compiled.stage_cost_limit[to_stage]
        self._to_window = compiled.window_limit[self._to]
        self._gives = bool((receiver >= 0).any())
        self._float = _Floats.of(compiled)
        self._rows = np.arange(len(compiled.modes))
        self._starts = compiled.first_mode[:-1]
        self.links = LinkIndex.of(compiled)
        self.link_count = self.links.links
        self._worth: float | None = None

    def zero(self) -> Prices:
        """Return the prices at which nothing costs anything."""
        return Prices(np.zeros(len(self.amounts)), np.zeros(self.link_count))

    def reduced(self, prices: Prices, weights: Weights) -> Reduced:
        """Return the values of all choices after paying the prices."""
        numbers, compiled = self._float, self.compiled
        paid = np.append(prices.limits, 0.0)  # the last stands for limits that do not exist: NO_LIMIT is -1
        tokens = paid[compiled.tokens_limit] + paid[self._stage_tokens]
        cost = weights.cost + paid[compiled.cost_limit] + paid[self._stage_cost]
        window = paid[self._window]
        options = numbers.value * weights.value if weights.value else numbers.value_of_none.copy()
        options -= numbers.tokens * tokens[:, None, None]
        if cost.any():
            options -= numbers.cost * cost[:, None, None]
        if window.any():
            options -= numbers.window * window[:, None, None]
        if self._gives:
            to_tokens = paid[compiled.tokens_limit] + paid[self._to_tokens]
            to_cost = weights.cost + paid[compiled.cost_limit] + paid[self._to_cost]
            options[:, -1] -= (
                numbers.given_tokens * to_tokens[:, None]
                + numbers.given_cost * to_cost[:, None]
                + numbers.given_window * paid[self._to_window][:, None]
            )
        segments = numbers.slopes * weights.value
        segments -= (QUANTUM_TOKENS * (tokens + window) + numbers.quantum_cost * cost)[:, None]
        base = numbers.base_value * weights.value - numbers.base_tokens * tokens - numbers.base_cost * cost
        base -= numbers.base_window * window
        base += (np.maximum(segments, 0.0) * numbers.quanta).sum(axis=1)
        if self.link_count:
            self.links.charge(prices.links, options, base)
        return Reduced(options, numbers.credit * cost[:, None], base, segments)

    def price(
        self,
        prices: Prices,
        weights: Weights = VALUE,
        *,
        latency: bool = False,
        slack: bool = False,
        cases: Cases | None = None,
    ) -> Pricing:
        """Return what the agents do at some prices, and the bound that this proves.

        Args:
            prices: Prices at or above 0.
            weights: The objective.
            latency: Whether latency limits are obeyed; without them the bound is valid, but weaker.
            slack: Whether to tell what is left of the limits, and of what links give.
            cases: What the agents may do; everything if not given.
        """
        compiled = self.compiled
        reduced = self.reduced(prices, weights)
        paid = np.append(prices.limits, 0.0)
        choice = reduced.options.argmax(axis=2)
        best = reduced.options.max(axis=2)
        values = reduced.base + best.sum(axis=1)
        if self._has_chain:
            values += self._keep_prefix(reduced, best, choice)
        preload = np.zeros(len(values), dtype=np.bool_)
        if latency and self._limited.size:
            self._within_latency(reduced, values, choice, preload, float(paid[compiled.memory_limit]))
        windows = paid[compiled.window_limit]
        deferrable = compiled.deferrable
        if cases is not None:
            values[~cases.runs] = -np.inf
            deferrable = cases.defers
        agent_values = np.maximum.reduceat(values, self._starts)
        deferred = np.where(deferrable, windows * compiled.deferred_window, -np.inf)
        mode = self._best_modes(values, agent_values)
        mode[deferred > agent_values] = -1
        agent_values = np.maximum(agent_values, deferred)
        cost_price = weights.cost + float(paid[compiled.cost_limit])
        shared, made = self.links.shared(prices.links, cost_price)
        bound = float(agent_values.sum() + (prices.limits * self.amounts).sum() + shared)
        left = self._slack(mode, choice, preload, reduced, made) if slack else (_NOTHING, _NOTHING)
        return Pricing(bound, mode, choice, preload, values, agent_values, *left)

    def _best_modes(self, values: Floats, agent_values: Floats) -> Ints:
        is_best: NDArray[np.bool_] = values >= agent_values[self.compiled.agent_of]
        first = np.where(is_best, self._rows, len(values))
        mode: Ints = np.minimum.reduceat(first, self._starts)
        return mode

    def _keep_prefix(self, reduced: Reduced, best: Floats, choice: Ints) -> Floats:
        """Keep as many leading cached slots as pay for themselves; returns the gain of each mode."""
        kept = reduced.options[:, :, KEEP] + reduced.credit
        gain = np.cumsum(kept - best, axis=1)
        beyond = np.arange(gain.shape[1])[None, :] >= self.compiled.chain[:, None]
        gain[beyond] = -np.inf
        length = gain.argmax(axis=1)
        most: Floats = gain[self._rows, length]
        intact = (np.arange(gain.shape[1])[None, :] <= length[:, None]) & (most > 0.0)[:, None]
        choice[intact] = KEEP
        gained: Floats = np.maximum(most, 0.0)
        return gained

    def _within_latency(
        self, reduced: Reduced, values: Floats, choice: Ints, preload: NDArray[np.bool_], memory: float
    ) -> None:
        """Replace the choices of modes whose latency is limited by the best that keep within it."""
        modes, table = self._limited, self._latency
        solution = table.solve(reduced.options[modes], reduced.credit[modes])
        eased = table.room + table.credit
        plain = solution.best(table.room)
        helped = solution.best(eased) - memory * self.compiled.preload_bytes[self.compiled.agent_of[modes]]
        with_help = (helped > plain) & (table.credit > 0)
        values[modes] = reduced.base[modes] + np.where(with_help, helped, plain)
        preload[modes] = with_help
        choice[modes] = solution.choices(np.where(with_help, eased, table.room))

    def _slack(
        self, mode: Ints, choice: Ints, preload: NDArray[np.bool_], reduced: Reduced, made: NDArray[np.bool_]
    ) -> tuple[Floats, Floats]:
        """Return what is left of limits and of what links give."""
        quanta = np.where(reduced.segments > 0.0, self.compiled.quanta, 0).sum(axis=1)
        slack = self.amounts - self.usage(mode, choice, quanta, preload)
        if self.compiled.cost_limit != NO_LIMIT:
            slack[self.compiled.cost_limit] -= float(self.links.prepare[made].sum())
        return slack, self.links.slack(mode, choice, made)

    def usage(self, mode: Ints, choice: Ints, quanta: Ints, preload: NDArray[np.bool_]) -> Floats:
        """Return how much of each limit is used, shared forms not included.

        Args:
            mode: Mode of each agent, -1 for deferred.
            choice: Options of every mode; shape (modes, slots).
            quanta: Work quanta of every mode.
            preload: Whether a mode loads in advance.
        """
        compiled, numbers = self.compiled, self._float
        used = np.zeros(len(self.amounts) + 1)
        agents = np.flatnonzero(mode >= 0)
        rows = mode[agents]
        picked = choice[rows]
        _, slots, width = compiled.value.shape
        cells = (rows[:, None] * slots + np.arange(slots)) * width + picked

        def total(table: Floats) -> Floats:
            sums: Floats = table.reshape(-1)[cells].sum(axis=1)
            return sums

        tokens = total(numbers.tokens) + numbers.base_tokens[rows] + quanta[rows] * QUANTUM_TOKENS
        cost = total(numbers.cost) + numbers.base_cost[rows] + quanta[rows] * numbers.quantum_cost[rows]
        if self._has_chain:
            kept = np.logical_and.accumulate(picked == KEEP, axis=1)
            cost -= (numbers.credit[rows] * kept).sum(axis=1)
        window = total(numbers.window) + numbers.base_window[rows] + quanta[rows] * QUANTUM_TOKENS
        used[compiled.tokens_limit] += tokens.sum()
        used[compiled.cost_limit] += cost.sum()
        np.add.at(used, self._stage_tokens[rows], tokens)
        np.add.at(used, self._stage_cost[rows], cost)
        np.add.at(used, self._window[rows], window)
        deferred = np.flatnonzero(mode < 0)
        np.add.at(used, compiled.window_limit[deferred], -compiled.deferred_window[deferred].astype(float))
        if self._gives:
            way = picked[:, -1]
            given = [table[rows, way] for table in (numbers.given_tokens, numbers.given_cost, numbers.given_window)]
            used[compiled.tokens_limit] += given[0].sum()
            used[compiled.cost_limit] += given[1].sum()
            np.add.at(used, self._to_tokens[rows], given[0])
            np.add.at(used, self._to_cost[rows], given[1])
            np.add.at(used, self._to_window[rows], given[2])
        loaded = agents[preload[rows]]
        used[compiled.memory_limit] += compiled.preload_bytes[loaded].sum()
        return used[:-1]

    # Prices that prove a low bound.

    def descend(
        self,
        start: Prices,
        weights: Weights = VALUE,
        *,
        steps: int,
        latency: bool = False,
        visit: Visit | None = None,
        cases: Cases | None = None,
    ) -> tuple[Prices, Pricing]:
        """Lower the bound by subgradient steps, and return the best prices found with what they do.

        Steps follow Polyak: as long as the distance to a target, which is moved closer whenever steps stop helping.
        Prices are scaled by the amounts of their limits, so that tokens, money and memory compare.

        Args:
            start: Where to begin.
            weights: The objective.
            steps: How many steps.
            latency: Whether latency limits are obeyed on the way.
            visit: Is shown every pricing on the way.
            cases: What the agents may do; everything if not given.
        """
        scales = self._scales(weights)
        prices, best_prices = start, start
        best = self.price(prices, weights, slack=True, latency=latency, cases=cases)
        pricing = best
        reach, stuck = 0.015, 0
        momentum = [np.zeros_like(prices.limits), np.zeros_like(prices.links)]
        for _ in range(steps):
            if visit is not None:
                visit(pricing)
            down = [
                np.where((part > 0.0) | (slack < 0.0), slack, 0.0) * scale
                for part, slack, scale in zip(prices, (pricing.slack, pricing.link_slack), scales, strict=True)
            ]
            momentum = [0.6 * old + new for old, new in zip(momentum, down, strict=True)]
            norm = sum(float((part * part).sum()) for part in momentum)
            if norm == 0.0 or best.bound == -np.inf:  # nothing presses, or somebody has no way to run at all
                break
            target = best.bound - reach * max(abs(best.bound), 1.0)
            length = (pricing.bound - target) / norm
            prices = Prices(*(
                np.maximum(0.0, part - length * scale * move)
                for part, scale, move in zip(prices, scales, momentum, strict=True)
            ))  # fmt: skip
            pricing = self.price(prices, weights, slack=True, latency=latency, cases=cases)
            if pricing.bound < best.bound:
                best, best_prices, stuck = pricing, prices, 0
            else:
                stuck += 1
                if stuck >= STUCK:
                    reach, stuck = reach / 2.0, 0
                    prices, pricing = best_prices, best
                    momentum = [np.zeros_like(part) for part in momentum]
        return best_prices, best

    def start(self, weights: Weights = VALUE) -> Prices:
        """Return prices to begin with: the best of a grid over the prices of all tokens and of all money.

        The grid leaves the cached prefix, latency and links out, so it only tells where to begin.
        """
        prices = self.zero()
        worth = self._scales(weights)[0]
        rows = [row for row in (self.compiled.tokens_limit, self.compiled.cost_limit) if row != NO_LIMIT]
        if not rows:
            return prices
        centre = np.zeros(len(rows))
        for factors in (GRID, GRID_NEAR):
            points = np.array(np.meshgrid(*[factors] * len(rows), indexing="ij")).reshape(len(rows), -1).T
            levels = points if factors is GRID else np.where(points > 0.0, centre * points, 0.0)
            grid = np.zeros((len(levels), len(self.amounts)))
            grid[:, rows] = levels * worth[rows]
            centre = levels[int(self._rough_bounds(grid, weights).argmin())]
        prices.limits[rows] = centre * worth[rows]
        return prices

    def _rough_bounds(self, grid: Floats, weights: Weights) -> Floats:
        """Return bounds at many prices at once, without cached prefix, latency and links; shape (points,)."""
        options, base, _ = self._many(grid, weights)
        values = base + options.max(axis=3).sum(axis=2)
        agents = np.maximum.reduceat(values, self._starts, axis=1)
        agents = np.where(self.compiled.deferrable, np.maximum(agents, 0.0), agents)
        bounds: Floats = agents.sum(axis=1) + grid @ self.amounts
        return bounds

    def sweep(self, grid: Floats, links: Floats, weights: Weights) -> Ints:
        """Return the best options at many prices at once, without cached prefix and latency.

        Args:
            grid: Prices of the limits; shape (points, limits).
            links: Prices of the links, the same at all points.
            weights: The objective.

        Returns:
            Options; shape (points, modes, slots).
        """
        options, _, _ = self._many(grid, weights)
        if self.link_count and links.any():
            charged = np.zeros(self.compiled.value.shape)
            self.links.charge(links, charged, np.zeros(len(self._rows)))
            options += charged
        best: Ints = options.argmax(axis=3)
        return best

    def _many(self, grid: Floats, weights: Weights) -> tuple[Floats, Floats, Floats]:
        """Return reduced values of options and modes at many prices: shapes (points, modes, slots, options), ..."""
        numbers, compiled = self._float, self.compiled
        paid = np.concatenate((grid, np.zeros((len(grid), 1))), axis=1)
        tokens = paid[:, [compiled.tokens_limit]] + paid[:, self._stage_tokens]
        cost = weights.cost + paid[:, [compiled.cost_limit]] + paid[:, self._stage_cost]
        window = paid[:, self._window]
        worth = weights.value * numbers.value if weights.value else numbers.value_of_none
        options = worth - numbers.tokens * tokens[:, :, None, None]
        options -= numbers.cost * cost[:, :, None, None]
        if window.any():
            options -= numbers.window * window[:, :, None, None]
        segments = numbers.slopes * weights.value
        segments = segments - (QUANTUM_TOKENS * (tokens + window) + numbers.quantum_cost * cost)[:, :, None]
        base = weights.value * numbers.base_value - numbers.base_tokens * tokens - numbers.base_cost * cost
        base = base - numbers.base_window * window + (np.maximum(segments, 0.0) * numbers.quanta).sum(axis=2)
        return options, base, segments

    def unit_prices(self) -> Floats:
        """Return prices at which every limit as a whole costs the same."""
        return self._scales(Weights(1.0, 0.0))[0]

    def _scales(self, weights: Weights) -> tuple[Floats, Floats]:
        """Return what one unit of each limit is worth if the limit as a whole is worth the whole objective."""
        if self._worth is None:
            self._worth = max(abs(self.price(self.zero(), VALUE).bound), 1.0)
        worth = self._worth * max(weights.value, 1e-300)
        amounts = np.maximum(self.amounts, 1.0)
        windows = np.flatnonzero(self.amounts == 0)
        if windows.size:  # windows are counted from their end; their scale is an agent's worth per window
            typical = max(1.0, float(np.median(-self.compiled.base_window)))
            amounts[windows] = typical * max(1, len(self._starts))
        return worth / amounts, np.full(self.link_count, worth / max(1, len(self._starts)) / 10.0)


class Visit(Protocol):
    """Is shown the pricings on the way to good prices."""

    def __call__(self, pricing: Pricing, /) -> None:
        """Take note of a pricing."""
        ...


class _Floats(NamedTuple):
    """The arrays of a problem as doubles, so that they are converted only once.

    Options that do not exist are worth -inf; `value_of_none` is the value where value does not count.
    """

    value: Floats
    value_of_none: Floats
    tokens: Floats
    cost: Floats
    window: Floats
    credit: Floats
    base_value: Floats
    base_tokens: Floats
    base_cost: Floats
    base_window: Floats
    slopes: Floats
    quanta: Floats
    quantum_cost: Floats
    given_tokens: Floats
    given_cost: Floats
    given_window: Floats

    @classmethod
    def of(cls, compiled: Compiled) -> _Floats:
        names = [name for name in cls._fields if name != "value_of_none"]
        tables = {name: getattr(compiled, name).astype(np.float64) for name in names}
        tables["value"][~compiled.exists] = -np.inf
        return cls(**tables, value_of_none=np.where(compiled.exists, 0.0, -np.inf))


class Held(NamedTuple):
    """Which columns need or give something, each column and link once: +1 needs, -1 gives."""

    link: Ints
    column: Ints
    sign: Ints


class LinkIndex(NamedTuple):
    """Links as flat indices: cells of options, and modes as a whole; links of shared forms come last.

    Attributes:
        links: How many links there are.
        cells: `(cell, link, sign)` of options: +1 needs, -1 gives.
        places: Mode, slot and option of each of these cells.
        runs: `(mode, link, sign)` of modes.
        form_of: Shared form of each link, or -1.
        prepare: Cost of making each shared form.
        shape: Shape of the option tables.
        agent_of: Agent of each mode.
    """

    links: int
    cells: tuple[Ints, Ints, Floats]
    places: tuple[Ints, Ints, Ints]
    runs: tuple[Ints, Ints, Floats]
    form_of: Ints
    prepare: Floats
    shape: tuple[int, ...]
    agent_of: Ints

    @classmethod
    def of(cls, compiled: Compiled) -> LinkIndex:
        """Index the links of a problem."""
        _, slots, width = compiled.value.shape
        cells: list[tuple[int, int, float]] = []
        runs: list[tuple[int, int, float]] = []
        form_of: list[int] = []
        for link in compiled.links:
            for sign, side in ((1.0, link.needs), (-1.0, link.gives)):
                for mode, slot, option in side:
                    if slot < 0:
                        runs.append((mode, len(form_of), sign))
                    else:
                        cells.append(((mode * slots + slot) * width + option, len(form_of), sign))
            form_of.append(-1)
        for number, form in enumerate(compiled.shared):
            by_agent: dict[int, int] = {}
            for mode, slot, option in form.cells:
                agent = int(compiled.agent_of[mode])
                if agent not in by_agent:
                    by_agent[agent] = len(form_of)
                    form_of.append(number)
                cells.append(((mode * slots + slot) * width + option, by_agent[agent], 1.0))
        return cls(
            len(form_of), _columns(cells), _places(cells, slots, width), _columns(runs),
            np.array(form_of, dtype=np.int64),
            np.array([float(form.prepare_nusd) for form in compiled.shared]), compiled.value.shape, compiled.agent_of,
        )  # fmt: skip

    def charge(self, prices: Floats, options: Floats, base: Floats) -> None:
        """Let choices pay for what they need, and be paid for what they give."""
        cell, link, sign = self.cells
        np.subtract.at(options.reshape(-1), cell, prices[link] * sign)
        mode, link, sign = self.runs
        np.subtract.at(base, mode, prices[link] * sign)

    def held_by(self, modes: Ints, options: Ints) -> Held:
        """Return what whole ways of running agents need and give.

        Args:
            modes: Mode of each column; shape (columns,).
            options: Its options; shape (columns, slots).
        """
        _, slots, width = self.shape
        flat = (modes[:, None] * slots + np.arange(slots)) * width + options
        found = []
        for (key, link, sign), wanted, of_column in ((self.cells, flat.ravel(), slots), (self.runs, modes, 1)):
            order = np.argsort(key, kind="stable")
            position, entry = matches(wanted, key[order])
            entry = order[entry]
            found.append((link[entry], position // of_column, sign[entry].astype(np.int64)))
        link, column, sign = (np.concatenate(parts) for parts in zip(*found, strict=True))
        once = np.unique(np.stack((link, column, sign)), axis=1)
        return Held(*once)

    def shared(self, prices: Floats, cost_price: float) -> tuple[float, NDArray[np.bool_]]:
        """Return what shared forms add to the bound, and which of them are made at these prices."""
        if not self.prepare.size:
            return 0.0, np.zeros(0, dtype=np.bool_)
        of_forms = self.form_of >= 0
        paid = np.bincount(self.form_of[of_forms], weights=prices[of_forms], minlength=len(self.prepare))
        net = paid - cost_price * self.prepare
        return float(np.maximum(net, 0.0).sum()), net > 0.0

    def slack(self, mode: Ints, choice: Ints, made: NDArray[np.bool_]) -> Floats:
        """Return what links give less what they need."""
        chosen = np.zeros(self.shape[0], dtype=np.bool_)
        chosen[mode[mode >= 0]] = True
        row, slot, option = self.places
        held = chosen[row] & (choice[row, slot] == option)
        _, link, sign = self.cells
        used: Floats = np.bincount(link, weights=sign * held, minlength=self.links).astype(np.float64)
        row, link, sign = self.runs
        used = used + np.bincount(link, weights=sign * chosen[row], minlength=self.links)
        if self.prepare.size:
            of_forms = self.form_of >= 0
            used[of_forms] -= made[self.form_of[of_forms]]
        return -used


_NOTHING: Floats = np.zeros(0)


def matches(wanted: Ints, keys: Ints) -> tuple[Ints, Ints]:
    """Return all pairs of positions at which `wanted` equals `keys`, which rise.

    >>> [pair.tolist() for pair in matches(np.array([7, 5, 7]), np.array([5, 7, 7]))]
    [[0, 0, 1, 2, 2], [1, 2, 0, 1, 2]]
    """
    first = np.searchsorted(keys, wanted, side="left")
    count = np.searchsorted(keys, wanted, side="right") - first
    position = np.repeat(np.arange(len(wanted)), count)
    ends = np.cumsum(count)
    within = np.arange(len(position)) - np.repeat(ends - count, count)
    return position, first[position] + within


def _places(cells: list[tuple[int, int, float]], slots: int, width: int) -> tuple[Ints, Ints, Ints]:
    flat = np.array([cell[0] for cell in cells], dtype=np.int64)
    mode, rest = np.divmod(flat, slots * width)
    slot, option = np.divmod(rest, width)
    return mode, slot, option


def _columns(rows: list[tuple[int, int, float]]) -> tuple[Ints, Ints, Floats]:
    return (
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows]),
    )


class LatencyTable:
    """The best options of some modes within a number of ticks: a dynamic program over their slots.

    A table holds the best reduced value of the slots so far with at most so many ticks. Beside it runs the value of
    keeping all slots so far, an intact cached prefix, which takes no ticks.

    Args:
        compiled: The problem as arrays.
        modes: The modes.
    """

    def __init__(self, compiled: Compiled, modes: Ints) -> None:
        agents = compiled.agent_of[modes]
        self.room = compiled.max_ticks[modes] - compiled.base_ticks[modes]
        most = np.where(compiled.exists[modes], compiled.ticks[modes], 0).max(axis=2).sum(axis=1)
        self.credit = np.minimum(compiled.preload_ticks[agents], np.maximum(0, most - self.room))  # more is of no use
        self.chain = compiled.chain[modes]
        self._slots = compiled.value.shape[1]
        self._levels = int(max(0, (self.room + self.credit).max(initial=0))) + 1
        self._rows = np.arange(len(modes))
        ticks = np.minimum(compiled.ticks[modes], self._levels)
        self._ticks = ticks
        self._quick = [slot for slot in range(self._slots) if not ticks[:, slot].any()]
        # Where each level of each option reads from: a level of its mode, or the last column, which holds -inf.
        left = np.arange(self._levels) - ticks[:, :, :, None]
        left = np.where(left < 0, self._levels, left) + self._rows[:, None, None, None] * (self._levels + 1)
        self._sources = np.ascontiguousarray(left.transpose(1, 0, 2, 3))
        self._has_chain = bool(self.chain.any())

    def solve(self, options: Floats, credit: Floats) -> LatencySolution:
        """Return the tables for some reduced values.

        Args:
            options: Reduced values; shape (modes, slots, options).
            credit: What an intact prefix adds at each slot; shape (modes, slots).
        """
        padded = np.full((len(self._rows), self._levels + 1), -np.inf)
        padded[:, :-1] = 0.0
        intact = np.zeros(len(self._rows))
        before, kept = [], []
        for slot in range(self._slots):
            if self._has_chain and slot:
                usable = np.where(slot <= self.chain, intact, -np.inf)
                np.maximum(padded[:, :-1], usable[:, None], out=padded[:, :-1])
            else:
                usable = intact if not slot else np.full(len(self._rows), -np.inf)
            before.append(padded.copy())
            kept.append(usable)
            if slot in self._quick:
                padded[:, :-1] += options[:, slot].max(axis=1)[:, None]
            else:
                values = padded.ravel()[self._sources[slot]]
                values += options[:, slot, :, None]
                padded[:, :-1] = values.max(axis=1)
            if self._has_chain:
                intact = usable + np.where(slot < self.chain, options[:, slot, KEEP] + credit[:, slot], -np.inf)
        return LatencySolution(options, self._ticks, before, kept, padded)


class LatencySolution:
    """Filled tables, from which values and options are read; see `LatencyTable`."""

    def __init__(self, options: Floats, ticks: Ints, before: list[Floats], intact: list[Floats], last: Floats) -> None:
        self._options = options
        self._ticks = ticks
        self._before = before
        self._intact = intact
        self._last = last
        self._rows = np.arange(len(options))

    def best(self, room: Ints) -> Floats:
        """Return the best value within a room of ticks, per mode; -inf where even no tick is left."""
        values = self._last[self._rows, np.maximum(room, 0)]
        return np.where(room < 0, -np.inf, values)

    def choices(self, room: Ints) -> Ints:
        """Return the options that reach the best value; shape (modes, slots)."""
        rows = self._rows
        columns = rows[:, None]
        nothing = self._last.shape[1] - 1
        level = np.maximum(room, 0)
        modes, slots, _ = self._options.shape
        choice = np.full((modes, slots), KEEP, dtype=np.int64)
        broken = np.ones(len(rows), dtype=np.bool_)
        for slot in range(slots - 1, -1, -1):
            before = self._before[slot]
            left = level[:, None] - self._ticks[:, slot]
            values = before[columns, np.where(left < 0, nothing, left)] + self._options[:, slot]
            option = values.argmax(axis=1)
            choice[:, slot] = np.where(broken, option, KEEP)
            level = np.where(broken, np.maximum(left[rows, option], 0), level)
            broken &= before[rows, level] > self._intact[slot]  # else it came from the intact prefix: all was kept
        return choice
