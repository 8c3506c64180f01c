"""What the joint model wants, phase by phase: a later phase may not spoil what an earlier one reached.

0  least shortfall of the limits            only where they are softened (see `elastic`)
1  most value
2  least cost         with  value >= least
3  least latency      with  value >= least  and  cost <= most
4  least change       with  value >= least,  cost <= most  and  latency <= most
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from apportion.planner.amounts import Terms
from apportion.planner.choice import DEFERRED
from apportion.planner.constraints import LOWEST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ortools.sat.python.cp_model_helper import CpModelProto

    from apportion.planner.amounts import Amounts
    from apportion.planner.choice import Choice
    from apportion.planner.compiled import Compiled
    from apportion.planner.variables import Variables

QUANTA_PER_CHANGE = 16
"""Another mode, option or preload counts as much as a budget that moves by so many quanta (1,024 tokens)."""

HIGHEST = 2**63 - 1
"""CP-SAT's word for "no upper limit"."""


class Objective:
    """Adds the objective of one phase to a model, and what earlier phases reached as limits.

    CP-SAT minimises: what is maximised enters with a minus, and a scaling factor of -1 turns the value back.

    Args:
        model: The model that gets the objective.
        compiled: The problem as arrays.
        variables: The decisions that are valued.
        amounts: What they gain and consume.
    """

    def __init__(self, model: CpModelProto, compiled: Compiled, variables: Variables, amounts: Amounts) -> None:
        self._model = model
        self._compiled = compiled
        self._variables = variables
        self._amounts = amounts

    def minimise_shortfall(self, weights: Mapping[int, int]) -> None:
        """Phase 0: minimise the relative shortfall of all limits together.

        min  sum over limits l of weight[l] * shortage[l]
        """
        self._minimise(list(weights), list(weights.values()))

    def maximise_value(self, lower: int | None = None, upper: int | None = None) -> None:
        """Phase 1: maximise the value of the plan, which is known to lie between `lower` and `upper`.

        max  sum over m of base_value[m] * run[m] + sum over m, s, o of value[m, s, o] * x[m, s, o]
             + sum over m, k of slope[m, k] * seg[m, k]
        """
        variables, coefficients = self._amounts.value.collected()
        self._minimise(variables, [-coefficient for coefficient in coefficients])
        self._model.objective.scaling_factor = -1
        if lower is not None or upper is not None:
            least = LOWEST if upper is None else -upper
            self._model.objective.domain.extend((least, HIGHEST if lower is None else -lower))

    def minimise_cost(self) -> None:
        """Phase 2: minimise what the whole workflow costs."""
        self._minimise(*self._amounts.whole_cost.collected())

    def minimise_latency(self) -> None:
        """Phase 3: minimise the expected latency of all agents together, after preloading."""
        self._minimise(*self._amounts.latency_ms.collected())

    def minimise_change(self, running: Choice) -> None:
        """Phase 4: stay with the running plan.

        min  16 * number of modes, options and preloads that change  +  sum over a of |quanta[a] - running quanta[a]|

        Agents that the running plan defers count as changed when they run. The objective leaves out what is constant.
        """
        changes: dict[int, int] = {}
        for agent, mode in enumerate(running.modes):
            preload = int(self._variables.preload[agent])
            if preload >= 0:
                _count(changes, preload, -1 if running.preloads[agent] else 1)
            if mode == DEFERRED:
                for other in self._compiled.modes_of(agent):
                    _count(changes, int(self._variables.run[other]), 1)
                continue
            run = int(self._variables.run[mode])
            _count(changes, run, -1)
            for slot, option in enumerate(running.options[agent]):
                chosen = int(self._variables.option[mode, slot, option])
                if chosen != run:
                    _count(changes, chosen, -1)
            changes[self._distance(agent, running.quanta[agent])] = 1
        self._minimise(list(changes), list(changes.values()))

    def keep_value(self, least: int) -> None:
        """Keep what phase 1 reached, up to its tolerance: value >= least."""
        variables, coefficients = self._amounts.value.collected()
        self._row(variables, coefficients, least, HIGHEST)

    def keep_cost(self, most: int) -> None:
        """Keep what phase 2 reached: cost <= most."""
        self._row(*self._amounts.whole_cost.collected(), LOWEST, most)

    def keep_latency(self, most_ms: int) -> None:
        """Keep what phase 3 reached: latency <= most."""
        self._row(*self._amounts.latency_ms.collected(), LOWEST, most_ms)

    def _distance(self, agent: int, quanta: int) -> int:
        """Return a variable that is at least the distance of an agent's work quanta from a number."""
        modes = self._compiled.modes_of(agent)
        segments = self._variables.segment[modes.start : modes.stop]
        indices = segments[segments >= 0]
        most = max(quanta, int(self._compiled.quanta[modes.start : modes.stop].sum()))
        distance = self._variables.add_integer(most)
        used = Terms(indices, np.ones(len(indices), dtype=np.int64), np.full(len(indices), agent)).collected()
        self._row([*used[0], distance], [*used[1], -1], LOWEST, quanta)
        self._row([*used[0], distance], [*used[1], 1], quanta, HIGHEST)
        return distance

    def _minimise(self, variables: list[int], coefficients: list[int]) -> None:
        self._model.objective.vars.extend(variables)
        self._model.objective.coeffs.extend(coefficients)

    def _row(self, variables: list[int], coefficients: list[int], least: int, most: int) -> None:
        row = self._model.constraints.add().linear
        row.vars.extend(variables)
        row.coeffs.extend(coefficients)
        row.domain.extend((least, most))


def _count(changes: dict[int, int], variable: int, sign: int) -> None:
    changes[variable] = changes.get(variable, 0) + sign * QUANTA_PER_CHANGE
