"""What the budget model maximises."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ortools.sat.python.cp_model_helper import CpModelProto

    from apportion.planner.budgets.segments import QuantizedProblem
    from apportion.planner.budgets.variables import Variables


class Objective:
    """Adds the objective of a problem to a model.

    Args:
        model: The model that gets the objective.
        problem: The problem in quanta.
        variables: The decisions that are valued.
    """

    def __init__(self, model: CpModelProto, problem: QuantizedProblem, variables: Variables) -> None:
        self._model = model
        self._problem = problem
        self._variables = variables

    def maximise_expected_use(self) -> None:
        """Maximise the weighted number of tokens that the agents are expected to use above their floors.

        max  sum over a, k of slope[a, k] * seg[a, k]

        CP-SAT minimises, so the slopes enter with a minus, and a scaling factor of -1 turns the value back.
        """
        objective = self._model.objective
        objective.vars.extend([index for indices in self._variables.segments for index in indices])
        objective.coeffs.extend([-slope for curve in self._problem.curves for slope in curve.slopes])
        objective.scaling_factor = -1
