"""Between two plans: is the running one still valid (L0), and what is the next one (L1)?

A plan stands until reality tells it otherwise. Whether it does is a comparison of sums (`StandingPlan`). When it does
not, most is still known: the columns, and the prices. A change of limits changes nothing about what the agents would
do at those prices, so the new bound is the old one plus price times change, without asking anybody, and CP-SAT gets
the old model with other right-hand sides (`Replanner`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apportion.errors import ProblemError
from apportion.planner.compiled import compile_problem
from apportion.planner.solver import DEADLINE_MS, QUICK, Clock, Effort, Search, finish, load_solvers

if TYPE_CHECKING:
    from apportion.planner.plan import Plan
    from apportion.planner.problem import Problem

LIMITS = frozenset({"max_tokens", "max_cost_nusd", "reserve_tokens"})
"""What `Replanner.replan` can change without starting anew."""


class StandingPlan:
    """A plan that is being carried out, and what has really been used.

    Args:
        problem: The problem.
        plan: Its plan.
    """

    def __init__(self, problem: Problem, plan: Plan) -> None:
        self.plan = plan
        self._planned = {entry.agent_id: (entry.tokens, entry.cost_nusd, entry.stage_id) for entry in plan.agents}
        self._used: dict[str, tuple[int, int]] = {}
        self._most = (problem.spendable_tokens, problem.max_cost_nusd)
        self._expected = [plan.tokens, plan.cost_nusd]
        self._stages = {stage.id: (stage.max_tokens, stage.max_cost_nusd) for stage in problem.stages}
        self._expected_of: dict[str, list[int]] = {stage.id: [0, 0] for stage in problem.stages}
        stage_of = {agent.id: agent.stage_id for agent in problem.agents}
        receiver = {agent.id: agent.reports_to for agent in problem.agents}
        for entry in plan.agents:
            own = self._expected_of[entry.stage_id]
            own[0], own[1] = own[0] + entry.tokens, own[1] + entry.cost_nusd
            to = receiver[entry.agent_id]
            if to is not None:
                given = self._expected_of[stage_of[to]]
                given[0], given[1] = given[0] + entry.given_tokens, given[1] + entry.given_cost_nusd

    def note(self, agent_id: str, *, tokens: int, cost_nusd: int) -> tuple[str, ...]:
        """Take note of what an agent has used so far, and say why the plan does not stand any more.

        An agent that has used less than planned counts as planned, since it may go on.

        Args:
            agent_id: The agent run.
            tokens: All its tokens until now.
            cost_nusd: All its cost until now.

        Returns:
            The limits that would be exceeded if all others used what they were given; empty while the plan stands.

        Raises:
            KeyError: The agent is not in the plan.
        """
        planned_tokens, planned_cost, stage = self._planned[agent_id]
        before = self._used.get(agent_id, (0, 0))
        self._used[agent_id] = (tokens, cost_nusd)
        more = (
            max(tokens, planned_tokens) - max(before[0], planned_tokens),
            max(cost_nusd, planned_cost) - max(before[1], planned_cost),
        )
        of_stage = self._expected_of[stage]
        for kind in (0, 1):
            self._expected[kind] += more[kind]
            of_stage[kind] += more[kind]
        return self._exceeded(stage, of_stage)

    def _exceeded(self, stage: str, of_stage: list[int]) -> tuple[str, ...]:
        names = ("tokens", "cost")
        whole = [
            name
            for name, expected, most in zip(names, self._expected, self._most, strict=True)
            if most is not None and expected > most
        ]
        part = [
            f"{name} of stage {stage}"
            for name, expected, most in zip(names, of_stage, self._stages[stage], strict=True)
            if most is not None and expected > most
        ]
        return (*whole, *part)


class Replanner:
    """Plans one workflow again and again, from what the last plan taught.

    Args:
        problem: What is to be planned.
        deadline_ms: When to stop improving the first plan; `None` means never.
        effort: How hard to look.

    Attributes:
        problem: The problem that was planned last.
        plan: Its plan.

    Raises:
        InfeasiblePlanError: The mandatory part does not fit.
    """

    def __init__(self, problem: Problem, *, deadline_ms: float | None = DEADLINE_MS, effort: Effort = QUICK) -> None:
        self._effort = effort
        self.problem = problem
        load_solvers()
        self._search = Search(compile_problem(problem), effort, Clock(deadline_ms))
        self.plan = self._planned()

    def replan(self, *, deadline_ms: float | None = DEADLINE_MS, **limits: int | None) -> Plan:
        """Return the plan for other limits of the workflow.

        Args:
            deadline_ms: When to stop improving; `None` means never.
            **limits: `max_tokens`, `max_cost_nusd` or `reserve_tokens`, as in `Problem`.

        Raises:
            ProblemError: A limit is unknown or out of range.
            InfeasiblePlanError: The mandatory part does not fit.
        """
        problem = _changed(self.problem, limits)
        clock = Clock(deadline_ms)
        running = self.plan
        if _same_rows(self._search, problem):
            self._search.change_limits(_amounts(self._search, problem), clock)
        else:
            self._search = Search(compile_problem(problem), self._effort, clock)
        self.problem = problem
        self._search.start_from(running)
        self.plan = self._planned()
        return self.plan

    def improve(self, effort: Effort) -> Plan:
        """Look harder for a plan of the same problem, for example in the background, and return the better one."""
        self._search.effort, self._search.clock = effort, Clock(None)
        self._search.start_from(self.plan)
        self.plan = self._planned()
        self._search.effort = self._effort
        return self.plan

    def _planned(self) -> Plan:
        self._search.run()
        return finish(self.problem, self._search)


def _changed(problem: Problem, limits: dict[str, Any]) -> Problem:
    """Return the problem with other limits, checked as always."""
    unknown = limits.keys() - LIMITS
    if unknown:
        raise ProblemError(f"cannot re-plan with another {min(unknown)}", hint=f"Known: {', '.join(sorted(LIMITS))}")
    for name, amount in limits.items():
        if amount is not None and (isinstance(amount, bool) or not isinstance(amount, int) or amount < 0):
            raise ProblemError(f"{name} must be a whole number of at least 0, not {amount!r}")
    changed = problem.model_copy(update=limits)
    if changed.reserve_tokens > (changed.max_tokens or 0):
        raise ProblemError(f"reserve_tokens of {changed.reserve_tokens:,} exceeds max_tokens of {changed.max_tokens}")
    return changed


def _amounts(search: Search, problem: Problem) -> list[int]:
    """Return the amounts of the known limits under a changed problem."""
    whole = {"tokens": problem.spendable_tokens, "cost": problem.max_cost_nusd}
    return [whole.get(limit.name, limit.amount) or 0 for limit in search.compiled.limits]


def _same_rows(search: Search, problem: Problem) -> bool:
    """Say whether the limits that a problem states are those that were compiled."""
    names = {limit.name for limit in search.compiled.limits}
    stated = {"tokens": problem.spendable_tokens, "cost": problem.max_cost_nusd}
    return all((amount is not None) == (name in names) for name, amount in stated.items())
