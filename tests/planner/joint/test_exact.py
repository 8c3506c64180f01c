from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from apportion.errors import PlanError
from apportion.planner import exact
from apportion.planner.choice import DEFERRED, Choice, cost, latency_ms, to_plan, value, violations
from apportion.planner.compiled import compile_problem
from apportion.planner.constraints import Constraints
from apportion.planner.exact import lower_cost, lower_latency, solve_exactly, stay_close
from apportion.planner.validate import validate_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from apportion.planner.compiled import Compiled
    from apportion.planner.problem import Problem

WORK = 10.0
"""Deterministic time that no small problem uses up."""

SMALL = min(100, settings().max_examples // 3)
"""Small problems in each of ten parts that are compared with all their plans; more in `make thorough`."""

RULES = [
    name
    for name in vars(Constraints)
    if name.startswith(("_one_", "_work_", "_prefix_", "_used_", "_choices_", "_preload_", "_within_"))
]


@pytest.fixture
def solvable(joint_problem: Callable[[int], Problem]) -> Callable[[int], Iterator[tuple[Problem, Compiled, Choice]]]:
    """Yield the first problems that have a plan, with the best one."""

    def problems(count: int) -> Iterator[tuple[Problem, Compiled, Choice]]:
        seed = 0
        while count:
            problem = joint_problem(seed)
            compiled = compile_problem(problem)
            choice = solve_exactly(compiled, deterministic_time=WORK).choice
            seed += 1
            if choice is not None:
                count -= 1
                yield problem, compiled, choice

    return problems


@pytest.mark.parametrize("block", range(10))
def test_the_best_of_all_plans_is_found_with_and_without_presolve(
    block: int, joint_problem: Callable[[int], Problem], try_all_plans: Callable[[Problem], Any]
) -> None:
    for seed in range(SMALL * block, SMALL * (block + 1)):
        problem = joint_problem(seed)
        plans, compiled = try_all_plans(problem), compile_problem(problem)
        best = int(plans.value[plans.fits].max()) if plans.fits.any() else None
        for presolve in (False, True):
            answer = solve_exactly(compiled, deterministic_time=WORK, presolve=presolve)
            assert answer.complaints == ()
            assert answer.stopped_by == "proof"
            if best is None:
                assert (answer.status, answer.choice, answer.bound) == ("INFEASIBLE", None, None), seed
            else:
                assert answer.choice is not None
                assert (answer.status, value(compiled, answer.choice), answer.bound) == ("OPTIMAL", best, best), seed


def test_later_phases_reach_the_least_cost_and_latency_and_keep_what_was_reached(
    joint_problem: Callable[[int], Problem], try_all_plans: Callable[[Problem], Any]
) -> None:
    preloaded = 0
    for seed in range(100):
        problem = joint_problem(seed)
        plans, compiled = try_all_plans(problem), compile_problem(problem)
        best = solve_exactly(compiled, deterministic_time=WORK).choice
        if best is None:
            continue
        least = value(compiled, best) - abs(value(compiled, best)) // 20
        good = plans.fits & (plans.value >= least)
        cheap = lower_cost(compiled, start=best, least_value=least, deterministic_time=WORK)
        assert cheap.choice is not None
        assert cheap.complaints == ()
        most = cost(compiled, cheap.choice)
        assert most == cheap.bound == plans.cost[good].min()
        fast = lower_latency(compiled, start=cheap.choice, least_value=least, most_cost=most, deterministic_time=WORK)
        assert fast.choice is not None
        assert fast.complaints == ()
        soonest = latency_ms(compiled, fast.choice)
        assert soonest == fast.bound == plans.latency_ms[good & (plans.cost <= most)].min()
        preloaded += any(fast.choice.preloads)
        close = stay_close(
            compiled,
            start=fast.choice,
            running=best,
            least_value=least,
            most_cost=most,
            most_latency_ms=soonest,
            deterministic_time=WORK,
        )
        assert close.choice is not None
        assert close.complaints == ()
        assert value(compiled, close.choice) >= least
        assert cost(compiled, close.choice) <= most
        assert latency_ms(compiled, close.choice) <= soonest
    assert preloaded > 5


def test_a_running_plan_that_is_still_as_good_as_any_stays(
    solvable: Callable[[int], Iterator[tuple[Problem, Compiled, Choice]]],
) -> None:
    for _, compiled, running in solvable(60):
        answer = stay_close(
            compiled,
            start=running,
            running=running,
            least_value=value(compiled, running) // 2,
            most_cost=cost(compiled, running),
            most_latency_ms=latency_ms(compiled, running),
            deterministic_time=WORK,
        )
        assert answer.choice == running


def test_a_hint_and_known_limits_of_the_value_do_not_change_the_optimum(
    solvable: Callable[[int], Iterator[tuple[Problem, Compiled, Choice]]],
) -> None:
    for _, compiled, best in solvable(60):
        worth = value(compiled, best)
        answer = solve_exactly(compiled, hint=best, lower=worth, upper=worth + 7, deterministic_time=WORK)
        assert answer.choice is not None
        assert value(compiled, answer.choice) == worth
        beyond = solve_exactly(compiled, hint=best, lower=worth + 1, deterministic_time=WORK)
        assert (beyond.status, beyond.choice) == ("INFEASIBLE", None)


def test_plans_of_the_model_pass_the_validator_that_shares_nothing_with_it(
    solvable: Callable[[int], Iterator[tuple[Problem, Compiled, Choice]]],
) -> None:
    for problem, compiled, best in solvable(100):
        plan = to_plan(
            problem, compiled, best, bound=value(compiled, best), bound_source="enumeration", cost_bound=None,
            least_value=None, source="cp-sat", stopped_by="proof",
        )  # fmt: skip
        assert validate_plan(problem, plan) == ()
        assert (plan.status, plan.gap, plan.objective) == ("OPTIMAL", 0.0, value(compiled, best))
        assert plan.cost_nusd == cost(compiled, best)


def test_a_plan_above_its_bound_is_refused(
    solvable: Callable[[int], Iterator[tuple[Problem, Compiled, Choice]]],
) -> None:
    problem, compiled, best = next(solvable(1))
    with pytest.raises(PlanError, match="more than its proven bound"):
        to_plan(
            problem, compiled, best, bound=value(compiled, best) - 1, bound_source="wrong", cost_bound=None,
            least_value=None, source="cp-sat", stopped_by="proof",
        )  # fmt: skip


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "_preload_only_what_runs"])
def test_without_any_one_rule_some_answer_is_noticed_to_be_wrong(
    rule: str, joint_problem: Callable[[int], Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Constraints, rule, lambda _self: None)
    problems = (compile_problem(joint_problem(seed)) for seed in range(250))
    assert any(solve_exactly(compiled, deterministic_time=WORK).complaints for compiled in problems)


def test_all_rules_are_in_the_table_of_contents(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    for rule in RULES:
        monkeypatch.setattr(Constraints, rule, lambda _self, rule=rule: called.append(rule))
    Constraints(*[None] * 4).add_constraints()  # type: ignore[arg-type]
    assert called == RULES
    assert len(RULES) == 14


def test_a_deferred_agent_is_not_loaded_in_advance(joint_problem: Callable[[int], Problem]) -> None:
    deferred = 0
    for seed in range(60):
        compiled = compile_problem(joint_problem(seed))
        best = solve_exactly(compiled, deterministic_time=WORK).choice
        if best is None or DEFERRED not in best.modes or not compiled.preload_ticks.any():
            continue
        fast = lower_latency(
            compiled, start=best, least_value=value(compiled, best), most_cost=2**52, deterministic_time=WORK
        )
        assert fast.complaints == ()
        deferred += 1
    assert deferred > 10


def test_answers_are_the_same_in_every_thread(joint_problem: Callable[[int], Problem]) -> None:
    problems = [compile_problem(joint_problem(seed)) for seed in range(20)]
    alone = [solve_exactly(compiled, deterministic_time=WORK) for compiled in problems]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda compiled: solve_exactly(compiled, deterministic_time=WORK), problems * 3))
    assert together == alone * 3


def test_a_search_that_is_cut_short_says_so(joint_problem: Callable[[int], Problem]) -> None:
    answer = solve_exactly(compile_problem(joint_problem(1)), deterministic_time=0.0)
    assert (answer.choice, answer.status, answer.stopped_by) == (None, "UNKNOWN", "deterministic_time")


def test_claims_of_cp_sat_are_compared_with_what_its_choice_really_measures() -> None:
    response: Any = SimpleNamespace(objective_value=100.0, best_objective_bound=110.0)
    claims = exact._false_claims
    assert claims(response, 100, maximising=True) == claims(response, 110, maximising=True) == []
    assert claims(response, 99, maximising=True) == ["CP-SAT claims that its choice measures 100, but it measures 99"]
    assert claims(response, 111, maximising=True) == [
        "CP-SAT claims that no choice beats 110, but its own measures 111"
    ]
    cheap: Any = SimpleNamespace(objective_value=100.0, best_objective_bound=90.0)
    assert claims(cheap, 95, maximising=False) == []
    assert len(claims(cheap, 101, maximising=False)) == len(claims(cheap, 89, maximising=False)) == 1


def test_broken_choices_are_described(solvable: Callable[[int], Iterator[tuple[Problem, Compiled, Choice]]]) -> None:
    problem, compiled, best = next(
        found for found in solvable(100) if len(found[0].agents) > 1 and found[0].agents[0].mandatory
    )
    none = (0,) * compiled.value.shape[1]
    deferred = best._replace(modes=(DEFERRED, *best.modes[1:]), options=(none, *best.options[1:]))
    assert any("mandatory but deferred" in fault for fault in violations(compiled, deferred))
    strange = best._replace(options=((99, *none[1:]), *best.options[1:]))
    assert violations(compiled, strange) == ("agent 'a0' has no option 99 in slot 0",)
    greedy = best._replace(quanta=(10**6, *best.quanta[1:]))
    assert violations(compiled, greedy) == ("agent 'a0' cannot use 1000000 work quanta",)
    foreign = best._replace(modes=(len(compiled.modes) - 1, *best.modes[1:]))
    assert violations(compiled, foreign) == (f"agent 'a0' has no mode {len(compiled.modes) - 1}",)
    assert violations(compiled, best._replace(quanta=())) == (f"the choice is not about {len(problem.agents)} agents",)
    assert violations(compiled, best) == ()
