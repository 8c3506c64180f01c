from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ortools.sat.python.cp_model_helper import CpModelProto

from apportion.planner.budgets.constraints import Constraints
from apportion.planner.budgets.objective import Objective
from apportion.planner.budgets.problem import AgentNeed, BudgetProblem, StageCap
from apportion.planner.budgets.segments import quantize
from apportion.planner.budgets.variables import Variables

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hypothesis.strategies import SearchStrategy


def _model(problem: BudgetProblem) -> tuple[Any, Variables]:
    quantized = quantize(problem)
    model = CpModelProto()
    variables = Variables(model, quantized)
    Constraints(model, quantized, variables).add_constraints()
    Objective(model, quantized, variables).maximise_expected_use()
    return model, variables


def _rows(model: Any) -> list[tuple[list[int], list[int], list[int]]]:
    return [(list(row.linear.vars), list(row.linear.coeffs), list(row.linear.domain)) for row in model.constraints]


def _holds(model: Any, values: Sequence[int]) -> bool:
    return all(
        low
        <= sum(coefficient * values[index] for index, coefficient in zip(indices, coefficients, strict=True))
        <= high
        for indices, coefficients, (low, high) in _rows(model)
    )


def _within_limits(problem: BudgetProblem, budgets: Sequence[int]) -> bool:
    """Check the limits as a user would, in tokens."""
    spent = dict.fromkeys([stage.id for stage in problem.stages], 0)
    for agent, tokens in zip(problem.agents, budgets, strict=True):
        spent[agent.stage_id] += tokens
    stages_hold = all(stage.max_tokens is None or spent[stage.id] <= stage.max_tokens for stage in problem.stages)
    return stages_hold and (problem.max_tokens is None or sum(budgets) <= problem.max_tokens - problem.reserve_tokens)


@settings(max_examples=60)
@given(data=st.data())
def test_the_model_allows_exactly_the_budgets_within_all_limits(
    small_problems: SearchStrategy[BudgetProblem], data: st.DataObject
) -> None:
    problem = data.draw(small_problems)
    model, variables = _model(problem)
    domains = [range(variable.domain[0], variable.domain[1] + 1) for variable in model.variables]
    for values in itertools.islice(itertools.product(*domains), 3000):
        budgets = [
            agent.floor_tokens + 64 * sum(quanta)
            for agent, quanta in zip(problem.agents, variables.read(values), strict=True)
        ]
        assert all(
            agent.max_tokens is None or tokens <= agent.max_tokens
            for agent, tokens in zip(problem.agents, budgets, strict=True)
        )
        assert _holds(model, values) == _within_limits(problem, budgets)


@settings(max_examples=settings().max_examples // 4)
@given(data=st.data())
def test_no_rule_is_an_equation(problems: SearchStrategy[BudgetProblem], data: st.DataObject) -> None:
    model, _ = _model(data.draw(problems))
    assume(len(model.constraints) > 0)
    for _, coefficients, (low, _high) in _rows(model):
        assert low == 0
        assert set(coefficients) <= {1}


def test_there_is_one_rule_per_limit_that_can_bind(agent: Callable[..., AgentNeed]) -> None:
    problem = BudgetProblem(
        agents=(agent("a", "s"), agent("b", "s"), agent("c", "t"), agent("d", "u")),
        stages=(StageCap(id="s", max_tokens=1000), StageCap(id="t", max_tokens=1920), StageCap(id="u")),
        max_tokens=2000,
    )
    model, _ = _model(problem)
    assert [(len(indices), domain[1]) for indices, _, domain in _rows(model)] == [(12, 31), (6, 15)]
    roomy = problem.model_copy(update={"max_tokens": None, "stages": (StageCap(id="s"), *problem.stages[1:])})
    assert _rows(_model(roomy)[0]) == []


def test_the_objective_maximises_by_minimising_the_negative(agent: Callable[..., AgentNeed]) -> None:
    model, _ = _model(BudgetProblem(agents=(agent(weight=2),), stages=(StageCap(id="s"),)))
    assert list(model.objective.coeffs) == [-30_000, -15_000, -7_000]
    assert model.objective.scaling_factor == -1


def test_a_hint_names_every_variable_once(agent: Callable[..., AgentNeed]) -> None:
    model, variables = _model(BudgetProblem(agents=(agent("a"), agent("b")), stages=(StageCap(id="s"),)))
    variables.hint(((10, 5, 0), (1, 0, 0)))
    assert list(model.solution_hint.vars) == list(range(6))
    assert variables.read(list(model.solution_hint.values)) == ((10, 5, 0), (1, 0, 0))
