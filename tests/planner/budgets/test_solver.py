from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.errors import InfeasiblePlanError, PlanError
from apportion.planner.budgets import solver
from apportion.planner.budgets.bound import plan_greedily
from apportion.planner.budgets.problem import AgentNeed, BudgetProblem, StageCap
from apportion.planner.budgets.segments import quantize
from apportion.planner.budgets.solver import Answer, solve_budget, solve_with_cp_sat
from apportion.planner.budgets.validate import validate_budget
from apportion.records import Demand

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import SearchStrategy

    from apportion.planner.budgets.segments import QuantizedProblem

    Quanta = tuple[tuple[int, ...], ...]

fast = settings(max_examples=50)


@pytest.fixture
def problem(agent: Callable[..., AgentNeed]) -> BudgetProblem:
    """Three agents in two stages, half of what they ask for."""
    return BudgetProblem(
        agents=(agent("a", "s", weight=2), agent("b", "s"), agent("c", "t", floor_tokens=100)),
        stages=(StageCap(id="s", max_tokens=1500), StageCap(id="t")),
        max_tokens=3000,
        reserve_tokens=100,
    )


@fast
@given(data=st.data())
def test_plans_are_valid_optimal_and_by_cp_sat(problems: SearchStrategy[BudgetProblem], data: st.DataObject) -> None:
    problem = data.draw(problems)
    plan = solve_budget(problem)
    assert validate_budget(problem, plan) == ()
    assert (plan.status, plan.gap, plan.source, plan.stopped_by, plan.degraded) == (
        "OPTIMAL", 0.0, "cp-sat", "proof", ()
    )  # fmt: skip
    assert plan.objective == plan.bound
    assert plan.fingerprint == problem.fingerprint


@fast
@given(data=st.data())
def test_more_budget_never_makes_the_optimum_worse(
    problems: SearchStrategy[BudgetProblem], data: st.DataObject
) -> None:
    problem = data.draw(problems)
    more = data.draw(st.integers(0, 10_000))
    stages = tuple(
        stage if stage.max_tokens is None else StageCap(id=stage.id, max_tokens=stage.max_tokens + more)
        for stage in problem.stages
    )
    wider = None if problem.max_tokens is None else problem.max_tokens + more
    objective = solve_budget(problem).objective
    assert solve_budget(problem.model_copy(update={"stages": stages})).objective >= objective
    assert solve_budget(problem.model_copy(update={"max_tokens": wider})).objective >= objective


@fast
@given(data=st.data())
def test_scaling_all_weights_scales_the_objective_and_keeps_the_budgets(
    problems: SearchStrategy[BudgetProblem], data: st.DataObject
) -> None:
    problem = data.draw(problems)
    factor = data.draw(st.integers(2, 9))
    agents = tuple(need.model_copy(update={"weight": need.weight * factor}) for need in problem.agents)
    plan, scaled = solve_budget(problem), solve_budget(problem.model_copy(update={"agents": agents}))
    assert scaled.objective == factor * plan.objective
    assert scaled.allocations == plan.allocations


@fast
@given(data=st.data())
def test_presolve_on_and_off_agree_with_each_other_and_with_the_bound(
    problems: SearchStrategy[BudgetProblem], data: st.DataObject
) -> None:
    quantized = quantize(data.draw(problems))
    bound = plan_greedily(quantized).bound
    for presolve in (False, True):
        answer = solve_with_cp_sat(quantized, None, presolve=presolve)
        assert answer.status == "OPTIMAL"
        assert bound * (1 - solver.RELATIVE_GAP_LIMIT) - 1 <= answer.objective <= bound


@fast
@given(data=st.data())
def test_the_order_of_agents_does_not_matter_to_the_optimum(
    problems: SearchStrategy[BudgetProblem], data: st.DataObject
) -> None:
    problem = data.draw(problems)
    shuffled = problem.model_copy(update={"agents": tuple(data.draw(st.permutations(problem.agents)))})
    assert solve_budget(shuffled).objective == solve_budget(problem).objective


def test_equal_problems_get_equal_plans_in_many_threads(problem: BudgetProblem) -> None:
    problems = [problem.model_copy(update={"max_tokens": 1000 + 64 * number}) for number in range(20)]
    one_by_one = [solve_budget(each).model_dump_json() for each in problems]
    with ThreadPoolExecutor(16) as pool:
        at_once = list(pool.map(lambda each: solve_budget(each).model_dump_json(), problems * 5))
    assert at_once == one_by_one * 5


def test_another_process_gets_the_same_plan_byte_for_byte(problem: BudgetProblem) -> None:
    code = (
        "import sys; from apportion import BudgetProblem, solve_budget; "
        "print(solve_budget(BudgetProblem.model_validate_json(sys.stdin.read())).model_dump_json())"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], input=problem.model_dump_json(), capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == solve_budget(problem).model_dump_json()


def test_solving_does_not_import_pandas(problem: BudgetProblem) -> None:
    code = (
        "import sys; from apportion import BudgetProblem, solve_budget; "
        "solve_budget(BudgetProblem.model_validate_json(sys.stdin.read())); sys.exit('pandas' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], input=problem.model_dump_json(), text=True, check=False)
    assert answer.returncode == 0


def test_the_budget_is_spent_but_for_the_reserve(problem: BudgetProblem) -> None:
    plan = solve_budget(problem)
    spent = sum(allocation.tokens for allocation in plan.allocations)
    assert 2900 - 64 < spent <= 2900
    assert plan.binding == ("workflow", "stage:s")
    assert {price.limit: price.per_1k_tokens for price in plan.prices} == {"workflow": 175.0, "stage:s": 750.0 - 175.0}


def test_without_limits_every_agent_gets_its_largest_quantile(agent: Callable[..., AgentNeed]) -> None:
    plan = solve_budget(BudgetProblem(agents=(agent("a"), agent("b")), stages=(StageCap(id="s"),)))
    assert [(a.tokens, a.cut_off_probability) for a in plan.allocations] == [(1920, 0.1), (1920, 0.1)]
    assert plan.prices == ()
    assert plan.points == pytest.approx(2 * 640 * (0.75 + 0.375 + 0.175))


def test_agents_that_need_nothing_get_their_floors(agent: Callable[..., AgentNeed]) -> None:
    nothing = Demand(probabilities=(0.5,), tokens=(0,))
    problem = BudgetProblem(
        agents=(agent("a", demand=nothing, floor_tokens=70), agent("b", demand=nothing)),
        stages=(StageCap(id="s"),),
        max_tokens=100,
    )
    plan = solve_budget(problem)
    assert [allocation.tokens for allocation in plan.allocations] == [70, 0]
    assert (plan.objective, plan.bound, plan.gap, plan.status) == (0, 0, 0.0, "OPTIMAL")


def test_floors_that_do_not_fit_are_an_error_with_the_missing_tokens(problem: BudgetProblem) -> None:
    with pytest.raises(InfeasiblePlanError) as caught:
        solve_budget(problem.model_copy(update={"max_tokens": 150}))
    assert caught.value.missing_tokens == 50


def test_numbers_near_the_safe_range_are_solved_exactly(agent: Callable[..., AgentNeed]) -> None:
    demand = Demand(probabilities=(0.5, 0.9), tokens=(2**42, 2**43))
    agents = tuple(agent(name, demand=demand) for name in "abc")
    plan = solve_budget(BudgetProblem(agents=agents, stages=(StageCap(id="s"),), max_tokens=2**44 + 1))
    assert plan.degraded == ()
    assert plan.objective == plan.bound > 2**51


def test_a_running_plan_that_is_as_good_as_any_is_kept(agent: Callable[..., AgentNeed]) -> None:
    agents = tuple(agent(name) for name in "ab")
    problem = BudgetProblem(agents=agents, stages=(StageCap(id="s"),), max_tokens=640)
    plan = solve_budget(problem)
    tokens = (640, 0)
    running = plan.model_copy(
        update={
            "allocations": tuple(
                a.model_copy(update={"tokens": t}) for a, t in zip(plan.allocations, tokens, strict=True)
            )
        }
    )
    assert [a.tokens for a in plan.allocations] == [320, 320]
    assert [a.tokens for a in solve_budget(problem, hint=running).allocations] == [640, 0]


def test_a_running_plan_that_no_longer_fits_or_is_worse_is_not_kept(
    problem: BudgetProblem, agent: Callable[..., AgentNeed]
) -> None:
    plan = solve_budget(problem)
    for max_tokens in (2000, 4000):
        changed = problem.model_copy(update={"max_tokens": max_tokens})
        assert solve_budget(changed, hint=plan) == solve_budget(changed)
    fewer = problem.model_copy(update={"agents": problem.agents[:2]})
    assert solve_budget(fewer, hint=plan) == solve_budget(fewer)


def _answer(status: str, objective: int, quanta: Quanta | None) -> Callable[[QuantizedProblem, Quanta], Answer]:
    return lambda _problem, _start: Answer(status, objective, quanta, "proof")


def test_an_optimum_above_the_bound_is_caught(problem: BudgetProblem) -> None:
    honest = solve_budget(problem)
    quanta = solve_with_cp_sat(quantize(problem), plan_greedily(quantize(problem)).quanta).quanta
    plan = solve_budget(problem, engine=_answer("OPTIMAL", honest.bound + 1, quanta))
    assert plan.source == "greedy"
    assert plan.allocations == honest.allocations
    assert len(plan.degraded) == 1
    assert "no plan is worth more" in plan.degraded[0]


def test_a_plan_that_breaks_the_limits_is_caught_although_its_value_is_claimed_right(problem: BudgetProblem) -> None:
    full = tuple(curve.quanta for curve in quantize(problem).curves)
    value = sum(
        slope * quanta for c in quantize(problem).curves for slope, quanta in zip(c.slopes, c.quanta, strict=True)
    )
    plan = solve_budget(problem, engine=_answer("OPTIMAL", value, full))
    assert "no plan is worth more" in plan.degraded[0]
    assert validate_budget(problem, plan) == ()


def test_a_plan_within_the_bound_that_breaks_a_limit_is_caught_by_the_validator(
    agent: Callable[..., AgentNeed],
) -> None:
    problem = BudgetProblem(
        agents=(agent("a", "s"), agent("b", "t")),
        stages=(StageCap(id="s", max_tokens=640), StageCap(id="t")),
        max_tokens=1280,
    )
    quanta = ((10, 10, 0), (0, 0, 0))
    within = solve_budget(problem, engine=_answer("OPTIMAL", 10 * 15_000 + 10 * 7_500, quanta))
    assert "greedy reaches" in within.degraded[0]
    equal = problem.model_copy(update={"agents": (agent("a", "s", weight=2), agent("b", "t"))})
    quanta = ((10, 10, 0), (0, 0, 0))
    plan = solve_budget(equal, engine=_answer("OPTIMAL", 450_000, quanta))
    assert plan.degraded == (
        "the answer of CP-SAT is not valid: stage 's' gets 1,280 tokens, more than its cap of 640",
    )
    assert plan.objective == 450_000


def test_a_claim_of_infeasibility_is_refuted(problem: BudgetProblem) -> None:
    plan = solve_budget(problem, engine=_answer("INFEASIBLE", 0, None))
    assert "no plan fits, but one worth" in plan.degraded[0]
    assert (plan.source, plan.status) == ("greedy", "OPTIMAL")


def test_a_wrong_claim_about_its_own_value_is_caught(problem: BudgetProblem) -> None:
    honest = solve_budget(problem)
    quanta = plan_greedily(quantize(problem)).quanta
    plan = solve_budget(problem, engine=_answer("OPTIMAL", honest.objective - 1, quanta))
    assert "but it is worth" in plan.degraded[0]


def test_a_plan_worse_than_greedy_is_replaced_and_said_so(problem: BudgetProblem) -> None:
    nothing: Quanta = tuple(tuple(0 for _ in curve.quanta) for curve in quantize(problem).curves)
    plan = solve_budget(problem, engine=_answer("OPTIMAL", 0, nothing))
    assert "is worth 0, but greedy reaches" in plan.degraded[0]
    assert plan.objective == solve_budget(problem).objective


def test_a_search_without_a_result_is_replaced_and_said_so(problem: BudgetProblem) -> None:
    def gives_up(_problem: QuantizedProblem, _start: Quanta) -> Answer:
        return Answer("UNKNOWN", 0, None, "deterministic_time")

    plan = solve_budget(problem, engine=gives_up)
    assert plan.degraded == ("CP-SAT found no plan: UNKNOWN, stopped by deterministic_time",)
    assert plan.stopped_by == "deterministic_time"


def test_the_deterministic_limit_fires_first_and_the_plan_tells(
    problem: BudgetProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solver, "MAX_DETERMINISTIC_TIME", 0.0)
    plan = solve_budget(problem)
    assert plan.stopped_by == "deterministic_time"
    assert validate_budget(problem, plan) == ()


def test_the_clock_is_a_safety_net_and_the_plan_tells(problem: BudgetProblem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "MAX_WALL_S", 0.0)
    plan = solve_budget(problem)
    assert plan.stopped_by == "wall_time"
    assert any("stopped by the clock" in reason for reason in plan.degraded)
    assert validate_budget(problem, plan) == ()


def test_a_defect_of_our_own_never_leaves_as_a_plan(problem: BudgetProblem, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong_bound(quantized: QuantizedProblem) -> object:
        greedy = plan_greedily(quantized)
        return greedy._replace(bound=greedy.bound + 1)

    monkeypatch.setattr(solver, "plan_greedily", wrong_bound)
    with pytest.raises(PlanError, match=r"neither CP-SAT nor greedy.*prices prove a bound"):
        solve_budget(problem)


def test_a_plan_survives_a_round_trip_through_json(problem: BudgetProblem) -> None:
    plan = solve_budget(problem)
    assert type(plan).model_validate(json.loads(plan.model_dump_json())) == plan


def test_presolve_can_be_switched_on_for_comparison(problem: BudgetProblem) -> None:
    assert solve_budget(problem, engine=partial(solve_with_cp_sat, presolve=True)).objective == (
        solve_budget(problem).objective
    )
