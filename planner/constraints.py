"""The rules of the joint model, one small method each.

A limit that cannot bind is not among `Compiled.limits` and makes no rule. There is never an equation over amounts,
which is hard to meet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from apportion.planner.amounts import Terms, total
from apportion.planner.compiled import KEEP, NO_LIMIT
from apportion.planner.variables import NONE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ortools.sat.python.cp_model_helper import CpModelProto

    from apportion.planner.amounts import Amounts
    from apportion.planner.compiled import Compiled
    from apportion.planner.variables import Variables

LOWEST = -(2**63)
"""CP-SAT's word for "no lower limit"."""


class Relief(NamedTuple):
    """A variable that softens a limit, and how much one unit of it gives."""

    variable: int
    amount: int


class Constraints:
    """Adds the rules of a problem to a model.

    Args:
        model: The model that the rules join.
        compiled: The problem as arrays.
        variables: The decisions that the rules are about.
        amounts: What they consume.
        relief: What softens limits, by their names; see `latency_limit` and `Compiled.limits`.
    """

    def __init__(
        self,
        model: CpModelProto,
        compiled: Compiled,
        variables: Variables,
        amounts: Amounts,
        relief: Mapping[str, Relief] | None = None,
    ) -> None:
        self._model = model
        self._compiled = compiled
        self._variables = variables
        self._amounts = amounts
        self._relief = relief or {}

    def add_constraints(self) -> None:
        """Add all rules."""
        self._one_mode_per_agent()
        self._one_option_per_slot()
        self._work_only_in_running_modes()
        self._prefix_is_intact_up_to_a_first_change()
        self._used_forms_are_made()
        self._choices_have_what_they_need()
        self._preload_only_what_runs()
        self._within_workflow_tokens()
        self._within_workflow_cost()
        self._within_stage_tokens()
        self._within_stage_cost()
        self._within_windows()
        self._within_latency()
        self._within_memory()

    def _one_mode_per_agent(self) -> None:
        """An agent runs in exactly one of its modes; one that may be deferred, in at most one.

        for each mandatory agent a:  sum over m of run[m] = 1;  for each other one:  sum over m of run[m] <= 1
        """
        for agent, deferrable in enumerate(self._compiled.deferrable):
            modes = self._run_of(agent)
            if not deferrable:
                self._model.constraints.add().exactly_one.literals.extend(modes)
            elif len(modes) > 1:
                self._model.constraints.add().at_most_one.literals.extend(modes)

    def _one_option_per_slot(self) -> None:
        """Each slot of a running mode gets exactly one option, those of other modes none.

        for each m, s:  sum over o of x[m, s, o] + (1 - run[m]) = 1
        """
        options, runs = self._variables.option, self._variables.run.tolist()
        modes, slots = np.nonzero(self._compiled.exists.sum(axis=2) > 1)
        for mode, row in zip(modes.tolist(), options[modes, slots].tolist(), strict=True):
            literals = [literal for literal in row if literal != NONE]
            self._model.constraints.add().exactly_one.literals.extend([*literals, -runs[mode] - 1])

    def _work_only_in_running_modes(self) -> None:
        """Only running modes get work quanta.

        for each m, k:  seg[m, k] <= length[m, k] * run[m]
        """
        segments, lengths, runs = self._variables.segment, self._compiled.quanta, self._variables.run
        for mode, segment in np.argwhere(segments != NONE):
            self._add_row([int(segments[mode, segment]), int(runs[mode])], [1, -int(lengths[mode, segment])], 0)

    def _prefix_is_intact_up_to_a_first_change(self) -> None:
        """The cached prefix is intact through a slot if it is intact before it and the piece is kept whole.

        for each m, j:  h[m, j] <= h[m, j - 1]  and  h[m, j] <= x[m, j, keep]
        """
        intact = self._variables.intact
        for mode, slot in np.argwhere(intact != NONE):
            through = int(intact[mode, slot])
            self._implies(through, int(self._variables.option[mode, slot, KEEP]))
            if slot:
                self._implies(through, int(intact[mode, slot - 1]))

    def _used_forms_are_made(self) -> None:
        """A shared form that an agent gets is made; no agent gets it twice.

        for each f and each agent a:  sum over cells (m, s, o) of f in a of x[m, s, o] <= made[f]
        """
        for form, make in zip(self._compiled.shared, self._variables.made.tolist(), strict=True):
            by_agent: dict[int, list[int]] = {}
            for cell in form.cells:
                by_agent.setdefault(int(self._compiled.agent_of[cell[0]]), []).append(self._cell(cell))
            for cells in by_agent.values():
                self._add_row([*cells, make], [*[1] * len(cells), -1], 0)

    def _choices_have_what_they_need(self) -> None:
        """What needs another agent's result, or a piece that another one holds, is chosen only with it.

        for each link:  sum over its needing cells <= sum over its giving cells
        """
        for link in self._compiled.links:
            needs, gives = ([self._cell(cell) for cell in cells] for cells in (link.needs, link.gives))
            self._add_row([*needs, *gives], [*[1] * len(needs), *[-1] * len(gives)], 0)

    def _preload_only_what_runs(self) -> None:
        """The files of an agent are loaded in advance only if it runs.

        for each a:  preload[a] <= sum over m of run[m]
        """
        for agent, preload in enumerate(self._variables.preload.tolist()):
            if preload != NONE and self._compiled.deferrable[agent]:
                modes = self._run_of(agent)
                self._add_row([preload, *modes], [1, *[-1] * len(modes)], 0)

    def _within_workflow_tokens(self) -> None:
        """All agents together, and the results that they get, stay within the tokens of the workflow."""
        self._at_most(self._compiled.tokens_limit, self._amounts.tokens, self._amounts.given_tokens)

    def _within_workflow_cost(self) -> None:
        """All agents together, the results that they get and the shared forms stay within the workflow's money."""
        self._at_most(self._compiled.cost_limit, self._amounts.whole_cost)

    def _within_stage_tokens(self) -> None:
        """The agents of a stage, and the results that they get, stay within its tokens."""
        for stage, limit in enumerate(self._compiled.stage_tokens_limit):
            self._at_most_of(limit, stage, self._amounts.tokens, self._amounts.given_tokens)

    def _within_stage_cost(self) -> None:
        """The agents of a stage, and the results that they get, stay within its money."""
        for stage, limit in enumerate(self._compiled.stage_cost_limit):
            self._at_most_of(limit, stage, self._amounts.cost, self._amounts.given_cost)

    def _within_windows(self) -> None:
        """Prompt, work and handed-back results fit into the window of the mode that runs.

        for each a:  own window consumption + sum over results that it gets <= most that it could get * deferred[a]

        A deferred agent has no window to break: it takes whatever it is given.
        """
        for agent, limit in enumerate(self._compiled.window_limit):
            if limit == NO_LIMIT:
                continue
            most = int(self._compiled.deferred_window[agent])
            whose = np.array([agent])
            used = total(self._amounts.window.of(whose), self._amounts.given_window.of(whose))
            if most and self._compiled.deferrable[agent]:
                modes = self._run_of(agent)
                room = Terms(np.array(modes), np.full(len(modes), most), np.full(len(modes), agent))
                self._at_most(limit, used, room, allowance=most)
            else:
                self._at_most(limit, used)

    def _within_latency(self) -> None:
        """What a running mode and its context take, less what preloading saves, stays within its stage's latency.

        for each m:  base ticks * run[m] + sum over s, o of ticks * x[m, s, o] - saved * preload[a] <= limit
        """
        for mode, limit in enumerate(self._compiled.max_ticks.tolist()):
            if limit != NO_LIMIT:
                name = latency_limit(self._compiled, int(self._compiled.agent_of[mode]))
                self._soft_row(name, self._amounts.ticks(mode), limit)

    def _within_memory(self) -> None:
        """What is loaded in advance fits into memory."""
        self._at_most(self._compiled.memory_limit, self._amounts.preloaded_bytes)

    def _at_most_of(self, limit: int, stage: int, *terms: Terms) -> None:
        if limit != NO_LIMIT:
            agents = np.flatnonzero(self._compiled.stage_of == stage)
            self._at_most(limit, *(part.of(agents) for part in terms))

    def _at_most(self, limit: int, *terms: Terms, allowance: int = 0) -> None:
        """What some terms add up to stays within a limit of the world."""
        if limit != NO_LIMIT:
            name, amount = self._compiled.limits[limit]
            self._soft_row(name, total(*terms), amount + allowance)

    def _soft_row(self, name: str, terms: Terms, most: int) -> None:
        variables, coefficients = terms.collected()
        relief = self._relief.get(name)
        if relief is not None:
            variables.append(relief.variable)
            coefficients.append(-relief.amount)
        self._add_row(variables, coefficients, most)

    def _add_row(self, variables: Sequence[int], coefficients: Sequence[int], most: int) -> None:
        row = self._model.constraints.add().linear
        row.vars.extend(variables)
        row.coeffs.extend(coefficients)
        row.domain.extend((LOWEST, most))

    def _implies(self, condition: int, consequence: int) -> None:
        self._model.constraints.add().bool_or.literals.extend((-condition - 1, consequence))

    def _run_of(self, agent: int) -> list[int]:
        modes = self._compiled.modes_of(agent)
        indices: list[int] = self._variables.run[modes.start : modes.stop].tolist()
        return indices

    def _cell(self, cell: tuple[int, int, int]) -> int:
        """Return the variable of a cell of a link or a shared form."""
        mode, slot, option = cell
        return int(self._variables.run[mode] if slot < 0 else self._variables.option[mode, slot, option])


def latency_limit(compiled: Compiled, agent: int) -> str:
    """Return the name of the latency limit that holds for an agent: that of its stage."""
    return f"latency of stage {compiled.problem.agents[agent].stage_id}"
