"""Tampered plans are caught: one positive control per rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from apportion.planner.budgets.plan import BudgetPlan, LimitPrice
from apportion.planner.budgets.problem import AgentNeed, BudgetProblem, StageCap
from apportion.planner.budgets.solver import solve_budget
from apportion.planner.budgets.validate import validate_budget

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def problem(agent: Callable[..., AgentNeed]) -> BudgetProblem:
    return BudgetProblem(
        agents=(agent("a", "s", floor_tokens=100), agent("b", "s", max_tokens=700), agent("c", "t", weight=3)),
        stages=(StageCap(id="s", max_tokens=1300), StageCap(id="t")),
        max_tokens=3000,
        reserve_tokens=200,
    )


@pytest.fixture
def plan(problem: BudgetProblem) -> BudgetPlan:
    return solve_budget(problem)


def _with_budget(plan: BudgetPlan, number: int, **changes: Any) -> BudgetPlan:
    allocations = list(plan.allocations)
    allocations[number] = allocations[number].model_copy(update=changes)
    return plan.model_copy(update={"allocations": tuple(allocations)})


def _tokens(plan: BudgetPlan, number: int) -> int:
    return plan.allocations[number].tokens


def test_an_honest_plan_is_valid(problem: BudgetProblem, plan: BudgetPlan) -> None:
    assert validate_budget(problem, plan) == ()
    assert set(plan.binding) >= {"workflow", "stage:s"}


def test_a_missing_agent_is_caught(problem: BudgetProblem, plan: BudgetPlan) -> None:
    tampered = plan.model_copy(update={"allocations": plan.allocations[1:]})
    assert validate_budget(problem, tampered) == ("agent 'a' gets no budget",)


def test_an_agent_with_two_budgets_is_caught(problem: BudgetProblem, plan: BudgetPlan) -> None:
    tampered = plan.model_copy(update={"allocations": (*plan.allocations, plan.allocations[0])})
    assert "agent 'a' gets 2 budgets" in validate_budget(problem, tampered)


def test_a_stranger_is_caught(problem: BudgetProblem, plan: BudgetPlan) -> None:
    tampered = _with_budget(plan, 0, agent_id="x")
    assert set(validate_budget(problem, tampered)) == {"agent 'a' gets no budget", "agent 'x' is not in the problem"}


def test_an_agent_in_the_wrong_stage_is_caught(problem: BudgetProblem, plan: BudgetPlan) -> None:
    tampered = _with_budget(plan, 0, stage_id="t")
    assert validate_budget(problem, tampered) == ("agent 'a' runs in stage 's', not in 't'",)


def test_a_plan_for_another_problem_is_caught(problem: BudgetProblem, plan: BudgetPlan) -> None:
    other = problem.model_copy(update={"reserve_tokens": 199})
    assert "the plan was made for another problem: the fingerprints differ" in validate_budget(other, plan)


def test_a_budget_below_the_floor_is_caught(problem: BudgetProblem, plan: BudgetPlan) -> None:
    tampered = _with_budget(plan, 0, tokens=36)
    assert "agent 'a' gets 36 tokens, less than its floor of 100" in validate_budget(problem, tampered)


def test_a_budget_above_the_cap_is_caught(problem: BudgetProblem, plan: BudgetPlan) -> None:
    tampered = _with_budget(plan, 1, tokens=704)
    assert "agent 'b' gets 704 tokens, more than its cap of 700" in validate_budget(problem, tampered)


def test_a_budget_off_the_grid_is_caught(problem: BudgetProblem, plan: BudgetPlan) -> None:
    tampered = _with_budget(plan, 0, tokens=_tokens(plan, 0) - 1)
    assert any("not whole quanta" in violation for violation in validate_budget(problem, tampered))


def test_a_stage_above_its_cap_is_caught(problem: BudgetProblem, plan: BudgetPlan) -> None:
    tampered = _with_budget(plan, 0, tokens=_tokens(plan, 0) + 64)
    assert any(
        violation.startswith("stage 's' gets") and violation.endswith("more than its cap of 1,300")
        for violation in validate_budget(problem, tampered)
    )


def test_a_workflow_that_eats_its_reserve_is_caught(problem: BudgetProblem, plan: BudgetPlan) -> None:
    tampered = _with_budget(plan, 2, tokens=_tokens(plan, 2) + 64)
    violations = validate_budget(problem, tampered)
    assert any("keeps 200 in reserve, more than its limit of 3,000" in violation for violation in violations)
    assert not any(violation.startswith("stage") for violation in violations)


def test_a_wrong_cut_off_probability_is_caught(problem: BudgetProblem, plan: BudgetPlan) -> None:
    tampered = _with_budget(plan, 2, cut_off_probability=plan.allocations[2].cut_off_probability / 2)
    (violation,) = validate_budget(problem, tampered)
    assert violation.startswith("agent 'c' is cut off with probability")


def test_a_wrong_objective_is_caught(problem: BudgetProblem, plan: BudgetPlan) -> None:
    tampered = plan.model_copy(update={"objective": plan.objective - 1})
    assert f"the budgets are worth {plan.objective:,}, not {plan.objective - 1:,}" in validate_budget(problem, tampered)


@pytest.mark.parametrize("off", [-1, 1])
def test_a_bound_that_the_prices_do_not_prove_is_caught(problem: BudgetProblem, plan: BudgetPlan, off: int) -> None:
    tampered = plan.model_copy(update={"bound": plan.bound + off})
    expected = f"the prices prove a bound of {plan.bound:,}, not {plan.bound + off:,}"
    assert expected in validate_budget(problem, tampered)


def test_a_tampered_price_proves_another_bound(problem: BudgetProblem, plan: BudgetPlan) -> None:
    first, *others = plan.prices
    dearer = LimitPrice(limit=first.limit, price=first.price + 20_000)
    tampered = plan.model_copy(update={"prices": (dearer, *others)})
    assert any("the prices prove a bound of" in violation for violation in validate_budget(problem, tampered))


@pytest.mark.parametrize("limit", ["stage:t", "stage:x", "moon"])
def test_a_price_on_a_limit_that_does_not_exist_is_caught(problem: BudgetProblem, plan: BudgetPlan, limit: str) -> None:
    tampered = plan.model_copy(update={"prices": (*plan.prices, LimitPrice(limit=limit, price=1))})
    assert f"the price of {limit!r} belongs to no limit" in validate_budget(problem, tampered)


def test_an_objective_above_the_bound_is_caught(problem: BudgetProblem, plan: BudgetPlan) -> None:
    tampered = plan.model_copy(update={"objective": plan.bound + 1})
    assert any("exceeds the bound" in violation for violation in validate_budget(problem, tampered))


def test_a_wrong_gap_is_caught(problem: BudgetProblem, plan: BudgetPlan) -> None:
    tampered = plan.model_copy(update={"gap": 0.0005})
    assert validate_budget(problem, tampered) == ("the gap is 0.000000%, not 0.050000%",)


def test_a_wrong_status_is_caught(problem: BudgetProblem, plan: BudgetPlan) -> None:
    tampered = plan.model_copy(update={"status": "FEASIBLE"})
    assert validate_budget(problem, tampered) == ("a plan with a gap of 0.000000% is not FEASIBLE",)


def test_a_plan_that_calls_itself_optimal_without_being_so_is_caught(problem: BudgetProblem, plan: BudgetPlan) -> None:
    lazy = _with_budget(plan, 2, tokens=0, cut_off_probability=1.0)
    violations = validate_budget(problem, lazy)
    worth = next(violation for violation in violations if violation.startswith("the budgets are worth"))
    value = int(worth.split()[4].rstrip(",").replace(",", ""))
    honest = lazy.model_copy(update={"objective": value, "gap": (plan.bound - value) / plan.bound})
    (violation,) = validate_budget(problem, honest)
    assert violation.endswith("is not OPTIMAL")
    assert validate_budget(problem, honest.model_copy(update={"status": "FEASIBLE"})) == ()
