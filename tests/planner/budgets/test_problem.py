from __future__ import annotations

import doctest
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from apportion.errors import InfeasiblePlanError, ProblemError
from apportion.planner.budgets import segments
from apportion.planner.budgets.problem import AgentNeed, BudgetProblem, StageCap
from apportion.planner.budgets.segments import cut_off_probability, quantize, value_curve
from apportion.records import Demand

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import SearchStrategy

STAGE = (StageCap(id="s"),)


def test_a_problem_without_agents_is_refused() -> None:
    with pytest.raises(ProblemError, match="at least one agent"):
        BudgetProblem(agents=(), stages=STAGE)


def test_an_agent_in_an_unknown_stage_is_refused_and_the_known_stages_are_listed(
    agent: Callable[..., AgentNeed],
) -> None:
    with pytest.raises(ProblemError, match=r"'review', which does not exist\. Known stages: s"):
        BudgetProblem(agents=(agent(stage_id="review"),), stages=STAGE)


def test_ids_are_unique(agent: Callable[..., AgentNeed]) -> None:
    with pytest.raises(ProblemError, match="agent 'a' is there twice"):
        BudgetProblem(agents=(agent(), agent("b"), agent()), stages=STAGE)
    with pytest.raises(ProblemError, match="stage 's' is there twice"):
        BudgetProblem(agents=(agent(),), stages=STAGE * 2)


def test_a_floor_above_the_cap_is_refused(agent: Callable[..., AgentNeed]) -> None:
    with pytest.raises(ProblemError, match="must get 1,000 tokens but may use only 999"):
        agent(floor_tokens=1000, max_tokens=999)
    assert agent(floor_tokens=1000, max_tokens=1000).most_tokens == 1000


def test_a_reserve_needs_a_limit_that_covers_it(agent: Callable[..., AgentNeed]) -> None:
    with pytest.raises(ProblemError, match="from no limit"):
        BudgetProblem(agents=(agent(),), stages=STAGE, reserve_tokens=1)
    with pytest.raises(ProblemError, match="from a limit of 99 tokens"):
        BudgetProblem(agents=(agent(),), stages=STAGE, max_tokens=99, reserve_tokens=100)
    assert BudgetProblem(agents=(agent(),), stages=STAGE, max_tokens=100, reserve_tokens=100).spendable_tokens == 0


def test_numbers_too_large_to_add_exactly_are_refused(agent: Callable[..., AgentNeed]) -> None:
    huge = Demand(probabilities=(0.5,), tokens=(2**53,))
    with pytest.raises(ProblemError, match="too many to add exactly"):
        BudgetProblem(agents=(agent(demand=huge), agent("b", demand=huge)), stages=STAGE)
    with pytest.raises(ProblemError, match="too much to compare exactly"):
        BudgetProblem(agents=(agent(weight=2**40),), stages=STAGE)


def test_weights_are_positive(agent: Callable[..., AgentNeed]) -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        agent(weight=0)


def test_equal_problems_have_equal_fingerprints_and_others_do_not(agent: Callable[..., AgentNeed]) -> None:
    one = BudgetProblem(agents=(agent(),), stages=STAGE, max_tokens=1000)
    same = BudgetProblem.model_validate_json(one.model_dump_json())
    other = BudgetProblem(agents=(agent(),), stages=STAGE, max_tokens=1001)
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_floors_beyond_the_workflow_name_what_is_missing(agent: Callable[..., AgentNeed]) -> None:
    problem = BudgetProblem(
        agents=(agent("a", floor_tokens=700), agent("b", floor_tokens=500)),
        stages=STAGE,
        max_tokens=1150,
        reserve_tokens=50,
    )
    with pytest.raises(InfeasiblePlanError, match="limit of the workflow by 100 tokens") as caught:
        quantize(problem)
    assert caught.value.missing_tokens == 100


def test_the_broken_limit_with_the_fewest_agents_is_named_and_the_others_are_counted(
    agent: Callable[..., AgentNeed],
) -> None:
    problem = BudgetProblem(
        agents=(agent("a", "s", floor_tokens=700), agent("b", "t", floor_tokens=500)),
        stages=(StageCap(id="s", max_tokens=1000), StageCap(id="t", max_tokens=493)),
        max_tokens=1100,
    )
    with pytest.raises(InfeasiblePlanError, match=r"limit of stage 't' by 7 tokens.*the workflow lacks 100") as caught:
        quantize(problem)
    assert caught.value.missing_tokens == 7


@settings(max_examples=settings().max_examples // 4)
@given(data=st.data())
def test_exactly_the_missing_tokens_make_a_workflow_feasible(
    problems: SearchStrategy[BudgetProblem], data: st.DataObject
) -> None:
    drawn = data.draw(problems)
    floors = sum(agent.floor_tokens for agent in drawn.agents)
    if floors == 0:
        quantize(drawn.model_copy(update={"max_tokens": 0, "reserve_tokens": 0}))
        return
    limit = data.draw(st.integers(0, floors - 1))
    tight = drawn.model_copy(update={"max_tokens": limit, "reserve_tokens": 0})
    with pytest.raises(InfeasiblePlanError) as caught:
        quantize(tight)
    assert caught.value.missing_tokens == floors - limit
    assert quantize(tight.model_copy(update={"max_tokens": limit + floors - limit})).workflow_room == 0


def test_slopes_are_the_weighted_probability_of_being_cut_off(agent: Callable[..., AgentNeed]) -> None:
    curve = value_curve(agent(weight=3))
    assert curve.slopes == (3 * 15_000, 3 * 7_500, 3 * 3_500)
    assert curve.quanta == (10, 10, 10)


def test_a_floor_cuts_the_curve_from_below_and_a_cap_from_above(agent: Callable[..., AgentNeed]) -> None:
    curve = value_curve(agent(floor_tokens=320, max_tokens=1280 + 70))
    assert curve.quanta == (5, 10, 1)
    assert curve.refused_slope == 3_500
    assert value_curve(agent(floor_tokens=1920)).quanta == ()
    assert value_curve(agent(max_tokens=0)) == ((), (), 15_000)


def test_a_jump_of_the_distribution_makes_no_segment_but_lowers_the_slope(agent: Callable[..., AgentNeed]) -> None:
    jump = Demand(probabilities=(0.1, 0.5, 0.9), tokens=(640, 640, 1280))
    assert value_curve(agent(demand=jump)) == ((19_000, 6_000), (10, 10), 0)


def test_probabilities_too_close_to_tell_apart_make_one_segment(agent: Callable[..., AgentNeed]) -> None:
    close = Demand(probabilities=(0.5, 0.5000001, 0.5000002), tokens=(640, 1280, 1920))
    assert value_curve(agent(demand=close)) == ((15_000, 10_000), (10, 20), 0)


def test_a_demand_that_is_certain_has_no_value_beyond_it(agent: Callable[..., AgentNeed]) -> None:
    certain = Demand(probabilities=(0.99999, 0.999999), tokens=(640, 1280))
    assert value_curve(agent(demand=certain)) == ((10_000,), (10,), 0)


@settings(max_examples=settings().max_examples // 4)
@given(data=st.data())
def test_slopes_fall_strictly_and_lengths_are_positive(
    problems: SearchStrategy[BudgetProblem], data: st.DataObject
) -> None:
    for need in data.draw(problems).agents:
        curve = value_curve(need)
        assert all(high > low for high, low in pairwise(curve.slopes))
        assert 0 <= curve.refused_slope <= min(curve.slopes, default=curve.refused_slope)
        assert all(quanta > 0 for quanta in curve.quanta)
        assert sum(curve.quanta) <= -(-max(0, need.most_tokens - need.floor_tokens) // 64)


def test_the_cut_off_probability_is_linear_between_quantiles_and_falls_at_jumps() -> None:
    demand = Demand(probabilities=(0.2, 0.4, 0.8), tokens=(100, 100, 200))
    expected = {0: 1.0, 50: 0.9, 99: 0.802, 100: 0.6, 150: 0.4, 199: 0.204, 200: 0.2, 10_000: 0.2}
    assert {tokens: cut_off_probability(demand, tokens) for tokens in expected} == pytest.approx(expected)


@given(data=st.data())
def test_more_tokens_never_raise_the_cut_off_probability(
    problems: SearchStrategy[BudgetProblem], data: st.DataObject
) -> None:
    demand = data.draw(problems).agents[0].demand
    few, many = sorted(data.draw(st.tuples(st.integers(0, 25_000), st.integers(0, 25_000))))
    assert 0 <= cut_off_probability(demand, many) <= cut_off_probability(demand, few) <= 1


@pytest.mark.parametrize(
    "module", ["apportion", "apportion.planner.budgets.problem", "apportion.planner.budgets.solver"]
)
def test_importing_the_planner_does_not_import_the_solver(module: str) -> None:
    code = f"import sys, {module}; sys.exit('ortools' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_examples_run() -> None:
    results = doctest.testmod(segments)
    assert results.attempted > 0
    assert results.failed == 0
