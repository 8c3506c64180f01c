from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.planner.budgets.explanation import explain_budget
from apportion.planner.budgets.problem import AgentNeed, BudgetProblem, StageCap
from apportion.planner.budgets.solver import Answer, solve_budget

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import SearchStrategy


@pytest.fixture
def problem(agent: Callable[..., AgentNeed]) -> BudgetProblem:
    """One agent held by each kind of limit, and one that has enough."""
    return BudgetProblem(
        agents=(
            agent("capped", "t", max_tokens=640, weight=4),
            agent("staged", "s", weight=4),
            agent("waiting", "t"),
            agent("sated", "t", weight=20),
            agent("covered", "t", floor_tokens=2000),
        ),
        stages=(StageCap(id="s", max_tokens=640), StageCap(id="t")),
        max_tokens=640 + 640 + 320 + 1920 + 2000,
    )


def test_each_agent_is_told_what_holds_it(problem: BudgetProblem) -> None:
    explanation = explain_budget(problem, solve_budget(problem))
    assert {reason.agent_id: reason.held_by for reason in explanation.agents} == {
        "capped": "agent:capped",
        "staged": "stage:s",
        "waiting": "workflow",
        "sated": None,
        "covered": None,
    }


def test_the_words_are_short_and_carry_the_numbers(problem: BudgetProblem) -> None:
    text = str(explain_budget(problem, solve_budget(problem)))
    assert text.splitlines() == [
        (
            "5 agents get 5,520 tokens, with 5,520 tokens to spend, worth 20,720 points above the floors; "
            "no plan is better (bound: laminar dual)."
        ),
        "The workflow binds: 1,000 more tokens would gain 750 points.",
        "Stage s binds: 1,000 more tokens would gain 750 points.",
        "Agent capped binds: 1,000 more tokens would gain 750 points.",
        "capped gets 640 tokens and needs more with 50% probability: held by its own cap of 640.",
        (
            "staged gets 640 tokens and needs more with 50% probability: "
            "1,000 more would gain 1,500 points here, and cost 1,500 in stage s."
        ),
        (
            "waiting gets 320 tokens and needs more with 75% probability: "
            "1,000 more would gain 750 points here, and cost 750 in the workflow."
        ),
        "sated gets 1,920 tokens and needs more with 10% probability: its forecast asks for no more.",
        "covered gets 2,000 tokens and needs more with 10% probability: its floor covers its forecast.",
    ]


def test_without_limits_nothing_binds(agent: Callable[..., AgentNeed]) -> None:
    problem = BudgetProblem(agents=(agent(),), stages=(StageCap(id="s"),))
    explanation = explain_budget(problem, solve_budget(problem))
    assert explanation.limits == ()
    assert "with no limit" in explanation.summary


def test_a_degraded_plan_says_why(problem: BudgetProblem) -> None:
    plan = solve_budget(problem, engine=lambda *_: Answer("UNKNOWN", 0, None, "wall_time"))
    text = str(explain_budget(problem, plan))
    assert "Degraded: CP-SAT found no plan: UNKNOWN, stopped by wall_time." in text
    assert "Degraded: stopped by the clock" in text


def test_a_plan_below_the_bound_is_not_called_the_best(problem: BudgetProblem) -> None:
    plan = solve_budget(problem)
    worse = plan.model_copy(update={"objective": plan.objective // 2, "gap": 0.5, "status": "FEASIBLE", "prices": ()})
    explanation = explain_budget(problem, worse)
    assert "at most 50.00% below the best plan" in explanation.summary
    waiting = next(reason for reason in explanation.agents if reason.agent_id == "waiting")
    assert (waiting.held_by, "could be better" in waiting.text) == (None, True)


@settings(max_examples=50)
@given(data=st.data())
def test_every_binding_limit_and_every_agent_is_explained(
    problems: SearchStrategy[BudgetProblem], data: st.DataObject
) -> None:
    problem = data.draw(problems)
    plan = solve_budget(problem)
    explanation = explain_budget(problem, plan)
    assert tuple(reason.limit for reason in explanation.limits) == plan.binding
    assert [reason.agent_id for reason in explanation.agents] == [agent.id for agent in problem.agents]
    for reason in explanation.agents:
        assert reason.held_by is None or reason.held_by in plan.binding
        assert "could be better" not in reason.text
