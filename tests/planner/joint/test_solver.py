"""Laws of the engine: limits hold, bounds are right, answers are the same everywhere, and lies are caught."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from apportion.errors import InfeasiblePlanError, PlanError
from apportion.planner import elastic, exact, solver
from apportion.planner.choice import DEFERRED, Choice, from_plan, value, violations
from apportion.planner.compiled import compile_problem
from apportion.planner.exact import solve_exactly
from apportion.planner.master import Answer, Master
from apportion.planner.replan import Replanner
from apportion.planner.solver import QUICK, THOROUGH, plan_workflow
from apportion.planner.validate import validate_plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from apportion.planner.plan import Plan
    from apportion.planner.problem import Problem

WORK = 10.0
"""Deterministic time that no small problem uses up."""

SOME = settings().max_examples // 4
"""Small problems of which a law is tried; `make thorough` tries four times as many."""

SMALL = min(330, settings().max_examples)
"""Small problems that are compared with all their plans."""


def planned_or_infeasible(problem: Problem, **options: Any) -> Plan | None:
    try:
        return plan_workflow(problem, deadline_ms=None, **options)
    except InfeasiblePlanError:
        return None


def require_valid(problem: Problem, plan: Plan) -> None:
    """Check a plan twice: by the validator, and by the arithmetic of choices."""
    assert validate_plan(problem, plan) == ()
    compiled = compile_problem(problem)
    choice = from_plan(compiled, plan)
    assert choice is not None
    assert violations(compiled, choice) == ()
    assert plan.objective == value(compiled, choice) <= plan.bound


def require_precedence(problem: Problem, plan: Plan) -> None:
    deferred = set(plan.deferred)
    for agent in problem.agents:
        assert not (agent.mandatory and agent.id in deferred)
        assert agent.id in deferred or deferred.isdisjoint(agent.after)


def middling(problem: Problem, seed: int) -> Problem:
    """Return a larger random problem with limits that bind: parts of what it takes without any."""
    free = plan_workflow(problem, deadline_ms=None)
    rng = Random(seed)  # noqa: S311  (for examples, not for secrets)
    share = rng.choice((0.5, 0.7, 0.9))
    return problem.model_copy(
        update={"max_tokens": int(free.tokens * share), "max_cost_nusd": int(free.cost_nusd * rng.choice((0.6, 1.0)))}
    )


# (a) Limits hold, and (e) deferral respects precedence.


@pytest.mark.parametrize("seed", range(settings().max_examples // 8))
def test_plans_of_larger_problems_never_exceed_a_limit_and_defer_in_order(
    seed: int, planned: Callable[[int], tuple[Problem, Plan]]
) -> None:
    for problem in (planned(seed)[0], middling(planned(seed)[0], seed)):
        plan = planned_or_infeasible(problem)
        if plan is not None:
            require_valid(problem, plan)
            require_precedence(problem, plan)


def test_the_plan_that_a_random_problem_was_built_around_is_matched_within_the_gap(
    planned: Callable[[int], tuple[Problem, Plan]],
) -> None:
    for seed in range(settings().max_examples // 8):
        problem, known = planned(seed)
        plan = plan_workflow(problem, deadline_ms=None)
        assert plan.bound >= known.objective, seed


# (b) Bound >= optimum >= plan.


@pytest.mark.parametrize("block", range(10))
def test_bounds_and_plans_enclose_the_best_of_all_plans(
    block: int, joint_problem: Callable[[int], Problem], try_all_plans: Callable[[Problem], Any]
) -> None:
    size = SMALL // 10
    for seed in range(size * block, size * (block + 1)):
        problem = joint_problem(seed)
        plans = try_all_plans(problem)
        best = int(plans.value[plans.fits].max()) if plans.fits.any() else None
        for effort in (QUICK, THOROUGH) if seed % 3 == 0 else (THOROUGH,):
            plan = planned_or_infeasible(problem, effort=effort)
            assert (plan is None) == (best is None), seed
            if plan is None or best is None:
                continue
            require_valid(problem, plan)
            require_precedence(problem, plan)
            assert plan.objective <= best <= plan.bound, seed
            assert best - plan.objective <= plan.gap * max(1, abs(plan.bound)) + 1, seed
            assert best - plan.objective <= 0.01 * abs(plan.bound) + 1 or effort is QUICK, seed
            if plan.cost_bound_nusd is not None:
                assert plan.least_value is not None
                cheap = plans.cost[plans.fits & (plans.value >= plan.least_value)]
                assert plan.cost_bound_nusd <= int(cheap.min()) <= plan.cost_nusd, seed


# (c) More is never worse.


def test_more_budget_never_lowers_the_optimum_nor_refutes_a_bound(joint_problem: Callable[[int], Problem]) -> None:
    for seed in range(SOME):
        problem = joint_problem(seed)
        more = problem.model_copy(
            update={
                name: None if amount is None else amount + amount // 10 + 1
                for name, amount in (("max_tokens", problem.max_tokens), ("max_cost_nusd", problem.max_cost_nusd))
            }
        )
        require_no_worse(problem, more, seed)


def test_one_more_form_never_lowers_the_optimum_nor_refutes_a_bound(joint_problem: Callable[[int], Problem]) -> None:
    for seed in range(SOME):
        more = joint_problem(seed)
        item = next((item for item in more.items if item.forms), None)
        if item is None:
            continue
        fewer = item.model_copy(update={"forms": item.forms[:-1]})
        items = tuple(fewer if other.id == item.id else other for other in more.items)
        require_no_worse(more.model_copy(update={"items": items}), more, seed)


def require_no_worse(less: Problem, more: Problem, seed: int) -> None:
    before, after = (optimum(problem) for problem in (less, more))
    if before is None:
        return
    assert after is not None, seed
    assert after >= before, seed
    for problem, best in ((less, before), (more, after)):
        plan = plan_workflow(problem, deadline_ms=None)
        assert plan.objective <= best <= plan.bound, seed
        assert plan.bound >= before or problem is less, seed


def optimum(problem: Problem) -> int | None:
    compiled = compile_problem(problem)
    answer = solve_exactly(compiled, deterministic_time=WORK)
    return None if answer.choice is None else value(compiled, answer.choice)


def test_the_bound_of_a_planner_that_is_given_more_never_falls(planned: Callable[[int], tuple[Problem, Plan]]) -> None:
    raised = 0
    for seed in range(10):
        problem = middling(planned(seed)[0], seed)
        try:
            replanner = Replanner(problem, deadline_ms=None)
        except InfeasiblePlanError:
            continue
        assert problem.max_tokens is not None
        before = replanner.plan
        again = replanner.replan(deadline_ms=None, max_tokens=problem.max_tokens + problem.max_tokens // 20)
        require_valid(replanner.problem, again)
        assert again.bound >= before.objective, seed
        raised += again.bound >= before.bound
    assert raised > 2


# (d) The same plan everywhere.


def test_plans_are_the_same_to_the_byte_in_all_threads_and_processes(
    planned: Callable[[int], tuple[Problem, Plan]], tmp_path: Path
) -> None:
    problems = [problem for problem in (middling(planned(seed)[0], seed) for seed in range(6)) if feasible(problem)]
    alone = [plan_workflow(problem, deadline_ms=None).model_dump_json() for problem in problems]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda each: plan_workflow(each, deadline_ms=None).model_dump_json(), problems * 2))
    assert together == alone * 2
    assert len(problems) > 2
    for number, problem in enumerate(problems):
        problem.save(tmp_path / f"{number:02}.json")
    script = (
        "import sys; from pathlib import Path; from apportion.planner.problem import Problem; "
        "from apportion.planner.solver import plan_workflow\n"
        "for path in sorted(Path(sys.argv[1]).glob('*.json')):\n"
        "    print(plan_workflow(Problem.load(path), deadline_ms=None).model_dump_json())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "1", "PYTHONPATH": PYTHONPATH},
    )  # fmt: skip
    assert done.stdout.splitlines() == alone


PYTHONPATH = str(Path(solver.__file__).parents[2])


def feasible(problem: Problem) -> bool:
    return planned_or_infeasible(problem) is not None


# (f) An engine that lies.


@pytest.fixture(scope="session")
def coupled(planned: Callable[[int], tuple[Problem, Plan]]) -> list[Problem]:
    """Return problems whose limits bind, so that CP-SAT is asked."""
    problems = [middling(planned(seed)[0], seed) for seed in range(8)]
    found = [problem for problem in problems if (plan := planned_or_infeasible(problem)) is not None and plan.prices]
    assert len(found) >= 3
    return found[:3]


def nonsense(compiled: Any) -> Choice:
    """Return a choice that defers everybody, mandatory or not, and yet takes work."""
    agents, slots = len(compiled.problem.agents), compiled.value.shape[1]
    return Choice((DEFERRED,) * agents, ((0,) * slots,) * agents, (10**6,) * agents, (True,) * agents)


def test_a_master_that_answers_nonsense_is_not_believed(
    coupled: list[Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lie(self: Master, *_: object, **__: object) -> Answer:
        return Answer("OPTIMAL", nonsense(self._compiled))

    for question in ("decide", "best", "cheapest"):
        monkeypatch.setattr(Master, question, lie)
    for problem in coupled:
        for effort in (QUICK, THOROUGH):
            require_valid(problem, plan_workflow(problem, deadline_ms=None, effort=effort))


def test_a_master_that_claims_there_is_no_plan_is_refuted(
    coupled: list[Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    for question in ("decide", "best", "cheapest"):
        monkeypatch.setattr(Master, question, lambda _self, *_, **__: Answer("INFEASIBLE", None))
    for problem in coupled:
        for effort in (QUICK, THOROUGH):
            require_valid(problem, plan_workflow(problem, deadline_ms=None, effort=effort))


@pytest.mark.parametrize("status", ["INFEASIBLE", "UNKNOWN", "MODEL_INVALID"])
def test_a_whole_model_that_claims_to_have_no_plan_is_refuted_and_reported_as_degraded(
    status: Any, coupled: list[Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, status)
    for problem in coupled:
        plan = plan_workflow(problem, deadline_ms=None, effort=THOROUGH)
        require_valid(problem, plan)
        assert status == "UNKNOWN" or plan.degraded or plan.gap <= THOROUGH.gap


def test_where_no_good_plan_is_found_the_most_frugal_columns_still_hold_one(
    coupled: list[Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of agents that press on a limit are too much for the whole model."""
    decide = Master.decide

    def only_any(self: Master, least_value: int, **options: Any) -> Answer:
        return decide(self, least_value, **options) if least_value == solver.LOWEST else Answer("UNKNOWN", None)

    monkeypatch.setattr(Master, "decide", only_any)
    monkeypatch.setattr(Master, "best", lambda _self, *_, **__: Answer("UNKNOWN", None))
    monkeypatch.setattr(elastic, "find_floor", lambda _compiled: pytest.fail("the whole model was asked"))
    for problem in coupled:
        require_valid(problem, plan_workflow(problem, deadline_ms=None))


def refuse(monkeypatch: pytest.MonkeyPatch, status: Any) -> None:
    """Let CP-SAT answer everything but the elastic model with a refusal."""
    refusal = exact.Answer(None, status, None, "proof")
    monkeypatch.setattr(exact, "solve_exactly", lambda *_, **__: refusal)
    for question in ("decide", "best", "cheapest"):
        monkeypatch.setattr(Master, question, lambda _self, *_, **__: Answer(status, None))


def test_a_whole_model_that_answers_nonsense_is_reported_as_degraded(
    coupled: list[Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lie(compiled: Any, **_: object) -> exact.Answer:
        choice = nonsense(compiled)
        faults = violations(compiled, choice)
        complaints = tuple(f"the answer of CP-SAT is not valid: {fault}" for fault in faults)
        return exact.Answer(choice, "OPTIMAL", 0, "proof", complaints)

    monkeypatch.setattr(exact, "solve_exactly", lie)
    for question in ("decide", "best"):
        monkeypatch.setattr(Master, question, lambda _self, *_, **__: Answer("UNKNOWN", None))
    degraded = 0
    for problem in coupled:
        plan = plan_workflow(problem, deadline_ms=None, effort=THOROUGH)
        require_valid(problem, plan)
        degraded += any("not valid" in reason for reason in plan.degraded)
        assert plan.degraded or plan.gap <= THOROUGH.gap
    assert degraded


def test_a_bound_below_a_real_plan_is_a_defect_that_is_named(
    coupled: list[Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = solver.Search._lower_bound
    monkeypatch.setattr(solver.Search, "_lower_bound", lambda self, prices, _: honest(self, prices, -1e12))
    for problem in coupled:
        with pytest.raises(PlanError, match="more than its proven bound"):
            plan_workflow(problem, deadline_ms=None)


# (g) No time at all.


def test_without_any_time_there_is_a_valid_plan_that_says_so(planned: Callable[[int], tuple[Problem, Plan]]) -> None:
    for seed in range(8):
        problem = middling(planned(seed)[0], seed)
        if not feasible(problem):
            with pytest.raises(InfeasiblePlanError):
                plan_workflow(problem, deadline_ms=0)
            continue
        plan = plan_workflow(problem, deadline_ms=0)
        require_valid(problem, plan)
        assert plan.stopped_by == "deadline"
        assert any("deadline" in reason for reason in plan.degraded)


def test_without_any_effort_there_is_a_valid_plan(joint_problem: Callable[[int], Problem]) -> None:
    least = replace(QUICK, steps=0, rounds=0, per_agent=1, decide=0.0, cheapen=0.0)
    for seed in range(SOME):
        problem = joint_problem(seed)
        plan = planned_or_infeasible(problem, effort=least)
        assert (plan is None) == (optimum(problem) is None), seed
        if plan is not None:
            require_valid(problem, plan)
