"""What the joint plan gains and consumes, as linear expressions of the model's variables.

Constraints and objective share them, so that what is limited is what is minimised.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from apportion.planner.budgets.problem import QUANTUM_TOKENS
from apportion.planner.variables import NONE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from apportion.planner.compiled import Compiled
    from apportion.planner.variables import Variables

    Ints = NDArray[np.int64]


class Terms(NamedTuple):
    """A linear expression: sum of coefficient * variable; `agents` says whose each term is."""

    variables: Ints
    coefficients: Ints
    agents: Ints

    def of(self, agents: Ints) -> Terms:
        """Return the terms of some agents."""
        mask = self.agents == agents[0] if len(agents) == 1 else np.isin(self.agents, agents)
        return Terms(self.variables[mask], self.coefficients[mask], self.agents[mask])

    def collected(self) -> tuple[list[int], list[int]]:
        """Return each variable once, in order, with its coefficient; what cancels out is left out."""
        variables, where = np.unique(self.variables, return_inverse=True)
        sums = np.zeros(len(variables), dtype=np.int64)
        np.add.at(sums, where, self.coefficients)
        there = sums != 0
        return variables[there].tolist(), sums[there].tolist()


def total(*terms: Terms) -> Terms:
    """Return the sum of expressions."""
    return Terms(*(np.concatenate(columns) for columns in zip(*terms, strict=True)))


class Amounts:
    """The expressions of a problem.

    Args:
        compiled: The problem as arrays.
        variables: The decisions.
    """

    def __init__(self, compiled: Compiled, variables: Variables) -> None:
        self._compiled = compiled
        self._variables = variables
        self._mode_agents = compiled.agent_of
        self._receivers = compiled.receiver[compiled.agent_of]

    @cached_property
    def value(self) -> Terms:
        """Value units: base value of the mode, losses of the options, worth of the work quanta."""
        compiled = self._compiled
        return self._own(compiled.base_value, compiled.value, compiled.slopes)

    @cached_property
    def tokens(self) -> Terms:
        """Tokens of each agent's own calls."""
        compiled = self._compiled
        return self._own(compiled.base_tokens, compiled.tokens, QUANTUM_TOKENS)

    @cached_property
    def cost(self) -> Terms:
        """Nano-dollars of each agent's own calls, less the credit of an intact cached prefix."""
        compiled = self._compiled
        work = np.broadcast_to(compiled.quantum_cost[:, None], compiled.quanta.shape)
        intact = self._variables.intact
        credit = self._terms(intact, -compiled.credit, self._mode_agents)
        return total(self._own(compiled.base_cost, compiled.cost, work), credit)

    @cached_property
    def window(self) -> Terms:
        """Tokens in each agent's own prompt and work, less its window."""
        compiled = self._compiled
        return self._own(compiled.base_window, compiled.window, QUANTUM_TOKENS)

    @cached_property
    def given_tokens(self) -> Terms:
        """Tokens that results consume, as terms of the agents that get them."""
        return self._given(self._compiled.given_tokens)

    @cached_property
    def given_cost(self) -> Terms:
        """Nano-dollars that results consume, as terms of the agents that get them."""
        return self._given(self._compiled.given_cost)

    @cached_property
    def given_window(self) -> Terms:
        """Window tokens that results consume, as terms of the agents that get them."""
        return self._given(self._compiled.given_window)

    @cached_property
    def prepared(self) -> Terms:
        """Nano-dollars for making shared forms; they are nobody's own."""
        costs = np.array([form.prepare_nusd for form in self._compiled.shared], dtype=np.int64)
        return Terms(self._variables.made, costs, np.full(len(costs), NONE, dtype=np.int64))

    @cached_property
    def whole_cost(self) -> Terms:
        """Nano-dollars of the whole workflow."""
        return total(self.cost, self.given_cost, self.prepared)

    @cached_property
    def preloaded_bytes(self) -> Terms:
        """Bytes of what is loaded in advance."""
        return self._preloads(self._compiled.preload_bytes)

    @cached_property
    def latency_ms(self) -> Terms:
        """Milliseconds of all agents on the way to their first answers, less what preloading saves on average."""
        compiled = self._compiled
        tick_ms = compiled.tick_ms[self._mode_agents]
        spent = self._own(compiled.base_ticks * tick_ms, compiled.ticks * tick_ms[:, None, None], 0)
        return total(spent, self._preloads(-compiled.preload_ticks * compiled.tick_ms))

    def ticks(self, mode: int) -> Terms:
        """Ticks that a mode takes if it runs, less what preloading saves on average."""
        compiled, variables = self._compiled, self._variables
        agent = int(compiled.agent_of[mode])
        spent, preload = compiled.ticks[mode], variables.preload[[agent]]
        takes = (spent > 0) & (variables.option[mode] != NONE)
        saves = preload != NONE
        indices = np.concatenate((variables.run[[mode]], variables.option[mode][takes], preload[saves]))
        amounts = (compiled.base_ticks[[mode]], spent[takes], -compiled.preload_ticks[[agent]][saves])
        return Terms(indices, np.concatenate(amounts), np.full(len(indices), agent))

    def _own(self, base: Ints, per_option: Ints, per_quantum: Ints | int) -> Terms:
        """A constant of the mode, plus a sum over its slots, plus a multiple of its work quanta."""
        variables, agents = self._variables, self._mode_agents
        return total(
            self._terms(variables.run, base, agents),
            self._terms(variables.option, per_option, agents),
            self._terms(variables.segment, per_quantum, agents),
        )

    def _given(self, amounts: Ints) -> Terms:
        """What results consume; without anybody to get one, its amounts are 0."""
        return self._terms(self._variables.option[:, self._compiled.hand_back_slot], amounts, self._receivers)

    def _preloads(self, amounts: Ints) -> Terms:
        return self._terms(self._variables.preload, amounts, np.arange(len(amounts)))

    @staticmethod
    def _terms(indices: Ints, amounts: Ints | int, agents: Ints) -> Terms:
        """Lay out the terms of variables that exist; the first axis is that of `agents`."""
        there = indices != NONE
        whose = np.broadcast_to(agents.reshape(-1, *(1,) * (indices.ndim - 1)), indices.shape)
        return Terms(indices[there], np.broadcast_to(amounts, indices.shape)[there], whose[there])
