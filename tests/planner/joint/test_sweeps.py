from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from apportion.errors import InfeasiblePlanError, ProblemError
from apportion.planner.solver import plan_workflow
from apportion.planner.sweeps import Pareto, Sweep, pareto, sweep
from apportion.planner.validate import validate_plan
from apportion.planner.whatif import changed_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from apportion.planner.problem import Problem

    JointProblem = Callable[[int], Problem]


def feasible(joint_problem: JointProblem, seeds: range) -> Iterator[Problem]:
    for seed in seeds:
        problem = joint_problem(seed)
        try:
            plan_workflow(problem, deadline_ms=None)
        except InfeasiblePlanError:
            continue
        yield problem


def test_bounds_never_fall_with_the_budget_and_hold_for_all_plans(
    joint_problem: JointProblem, try_all_plans: Callable[[Problem], Any]
) -> None:
    near = points = 0
    for problem in feasible(joint_problem, range(10)):
        most = plan_workflow(changed_problem(problem, budget_tokens=math.inf), deadline_ms=None).tokens
        budgets = [problem.reserve_tokens + most * part // 4 for part in range(5)]
        swept = sweep(problem, budgets_tokens=[*reversed(budgets), math.inf])
        bounds = [point.bound for point in swept.points if point.bound is not None]
        assert bounds == sorted(bounds)
        for point in swept.points:
            limit = math.inf if point.max_tokens is None else point.max_tokens
            changed = changed_problem(problem, budget_tokens=limit)
            every = try_all_plans(changed)
            assert every.fits.any() == (point.plan is not None)
            if point.plan is None or point.bound is None:
                continue
            best = int(every.value[every.fits].max())
            assert point.plan.objective <= best <= point.bound
            assert point.gap == (point.bound - point.plan.objective) / max(1, abs(point.bound))
            assert not validate_plan(changed, point.plan)
            points += 1
            near += best - point.plan.objective <= 0.006 * abs(best)  # the second phase may give up so much
    assert near >= 0.95 * points > 20


def test_a_sweep_in_money_finds_what_single_plans_find(joint_problem: JointProblem) -> None:
    problem = next(problem for problem in feasible(joint_problem, range(50)) if len(problem.agents) == 3)
    most = plan_workflow(changed_problem(problem, budget_usd=math.inf), deadline_ms=None).cost_usd
    for point in sweep(problem, budgets_usd=[0, most / 2, most]).points:
        changed = problem.model_copy(update={"max_cost_nusd": point.max_cost_nusd})
        if point.plan is None:
            with pytest.raises(InfeasiblePlanError):
                plan_workflow(changed, deadline_ms=None)
        else:
            assert not validate_plan(changed, point.plan)


def test_budgets_are_sorted_and_each_is_planned_once(joint_problem: JointProblem) -> None:
    problem = next(feasible(joint_problem, range(50)))
    swept = sweep(problem, budgets_tokens=[9000, 3000, 9000])
    assert [point.max_tokens for point in swept.points] == [3000, 9000]
    assert sweep(problem, budgets_tokens=[]).points == ()


def test_what_does_not_fit_says_what_is_missing(joint_problem: JointProblem) -> None:
    for problem in feasible(joint_problem, range(20)):
        (point,) = sweep(problem, budgets_usd=[0]).points
        if point.plan is None:
            assert point.missing["cost"] > 0
            assert "nothing fits" in str(Sweep(axis="usd", points=(point,)))
            return
    pytest.fail("every problem has a plan that costs nothing")


def test_no_point_of_a_front_is_beaten_and_its_certificate_holds(
    joint_problem: JointProblem, try_all_plans: Callable[[Problem], Any]
) -> None:
    sizes = []
    for problem in feasible(joint_problem, range(6)):
        front = pareto(problem, points=6)
        marks = [(point.plan.tokens, point.plan.cost_nusd, -point.plan.objective) for point in front.points]
        assert len(set(marks)) == len(marks) >= 1
        for mark in marks:
            assert not any(
                other != mark and all(here <= there for here, there in zip(other, mark, strict=True)) for other in marks
            )
        for point in front.points:
            narrowed = problem.model_copy(
                update={"max_tokens": point.max_tokens, "max_cost_nusd": point.max_cost_nusd}
                | ({"reserve_tokens": 0} if point.max_tokens is None else {})
            )
            assert not validate_plan(narrowed, point.plan)
            every = try_all_plans(narrowed)
            assert point.plan.objective <= int(every.value[every.fits].max()) <= point.bound
        sizes.append(len(front.points))
    assert max(sizes) >= 3


def test_records_can_be_written_read_and_shown(joint_problem: JointProblem) -> None:
    problem = next(problem for problem in feasible(joint_problem, range(50)) if len(problem.agents) == 3)
    front, swept = pareto(problem, points=4), sweep(problem, budgets_tokens=[0, 10_000, math.inf])
    assert Pareto.model_validate_json(front.model_dump_json()) == front
    assert Sweep.model_validate_json(swept.model_dump_json()) == swept
    for record, rows in ((front, front.to_rows()), (swept, swept.to_rows())):
        assert {len(row) for row in rows} == {len(rows[0])}
        assert record._repr_html_().count("<tr>") == len(rows) + 1
        assert len(str(record).splitlines()) >= len(rows) + 1


def test_a_front_of_what_does_not_fit_is_refused(joint_problem: JointProblem) -> None:
    for seed in range(50):
        problem = joint_problem(seed)
        try:
            plan_workflow(problem, deadline_ms=None)
        except InfeasiblePlanError:
            with pytest.raises(InfeasiblePlanError):
                pareto(problem, points=2)
            return


@pytest.mark.parametrize("points", [0, -1, True, 1.5, 10**9])
def test_a_number_of_points_that_is_none_is_refused(joint_problem: JointProblem, points: Any) -> None:
    with pytest.raises(ProblemError, match="points"):
        pareto(joint_problem(0), points=points)


@pytest.mark.parametrize("budgets", [{}, {"budgets_tokens": [1], "budgets_usd": [1]}, {"budgets_tokens": [-1]}])
def test_budgets_that_are_none_are_refused(joint_problem: JointProblem, budgets: dict[str, Any]) -> None:
    with pytest.raises(ProblemError, match="budget"):
        sweep(joint_problem(0), **budgets)
