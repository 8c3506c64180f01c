"""The decisions of the budget model.

    seg[a, k] in 0 .. length of segment k of agent a        quanta that agent a gets from its k-th segment

The budget of agent a is `floor_a + 64 * sum over k of seg[a, k]`. Floors and agents' caps need no rule of their own:
the segments begin at the floor and end at the cap. The slopes of an agent fall strictly, so an optimal plan fills
its segments in order without being told to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ortools.sat.python.cp_model_helper import CpModelProto

    from apportion.planner.budgets.segments import QuantizedProblem


class Variables:
    """Creates the variables of a model and knows where they are.

    Args:
        model: The model that the variables join.
        problem: The problem in quanta.

    Attributes:
        segments: Per agent, the indices of its segment variables.
    """

    def __init__(self, model: CpModelProto, problem: QuantizedProblem) -> None:
        self._model = model
        self.segments = self._add_segments(problem)

    def _add_segments(self, problem: QuantizedProblem) -> tuple[range, ...]:
        add = self._model.variables.add
        segments = []
        start = 0
        for curve in problem.curves:
            for quanta in curve.quanta:
                add().domain.extend([0, quanta])
            segments.append(range(start, start + len(curve.quanta)))
            start += len(curve.quanta)
        return tuple(segments)

    def hint(self, quanta: Sequence[Sequence[int]]) -> None:
        """Start the search at a known plan, given as quanta per agent and segment."""
        hint = self._model.solution_hint
        hint.vars.extend([index for indices in self.segments for index in indices])
        hint.values.extend([value for values in quanta for value in values])

    def read(self, solution: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Return a solution as quanta per agent and segment."""
        return tuple([tuple(solution[indices.start : indices.stop]) for indices in self.segments])
