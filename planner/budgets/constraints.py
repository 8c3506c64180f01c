"""The rules of the budget model, one small method each.

A limit that cannot bind, because even all segments together stay below it, makes no rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ortools.sat.python.cp_model_helper import CpModelProto

    from apportion.planner.budgets.segments import QuantizedProblem
    from apportion.planner.budgets.variables import Variables


class Constraints:
    """Adds the rules of a problem to a model.

    Args:
        model: The model that the rules join.
        problem: The problem in quanta.
        variables: The decisions that the rules are about.
    """

    def __init__(self, model: CpModelProto, problem: QuantizedProblem, variables: Variables) -> None:
        self._model = model
        self._problem = problem
        self._variables = variables

    def add_constraints(self) -> None:
        """Add all rules."""
        self._within_workflow_budget()
        self._within_stage_budgets()

    def _within_workflow_budget(self) -> None:
        """All agents together stay within what the workflow may spend.

        sum over a, k of seg[a, k] <= workflow room
        """
        self._at_most(self._problem.workflow_room, range(len(self._problem.curves)))

    def _within_stage_budgets(self) -> None:
        """The agents of a stage together stay within the cap of the stage.

        for each stage s:  sum over a in s, k of seg[a, k] <= stage room of s
        """
        members: list[list[int]] = [[] for _ in self._problem.stage_rooms]
        for agent, stage in enumerate(self._problem.stage_of):
            members[stage].append(agent)
        for room, agents in zip(self._problem.stage_rooms, members, strict=True):
            self._at_most(room, agents)

    def _at_most(self, room: int | None, agents: range | list[int]) -> None:
        """The segments of some agents together stay within a room: never an equation, which is hard to meet."""
        if room is None or sum([sum(self._problem.curves[agent].quanta) for agent in agents]) <= room:
            return
        indices = [index for agent in agents for index in self._variables.segments[agent]]
        row = self._model.constraints.add().linear
        row.vars.extend(indices)
        row.coeffs.extend([1] * len(indices))
        row.domain.extend([0, room])
