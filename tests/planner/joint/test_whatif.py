from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from apportion.errors import InfeasiblePlanError, ProblemError
from apportion.planner.comparison import Comparison
from apportion.planner.plan import Plan
from apportion.planner.problem import UNITS_PER_POINT, Problem
from apportion.planner.solver import plan_workflow
from apportion.planner.validate import validate_plan
from apportion.planner.whatif import STUDY, changed_problem, plan_cheapest, what_if

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    JointProblem = Callable[[int], Problem]


SOME = settings().max_examples // 8
"""Small problems of which a law is tried; `make thorough` tries four times as many."""


def planned(joint_problem: JointProblem, seeds: range) -> Iterator[tuple[Problem, Plan]]:
    for seed in seeds:
        problem = joint_problem(seed)
        try:
            yield problem, plan_workflow(problem, deadline_ms=None, effort=STUDY)
        except InfeasiblePlanError:
            continue


@pytest.fixture(scope="module")
def example(joint_problem: JointProblem) -> tuple[Problem, Plan]:
    """A problem of several agents, and its plan."""
    return next(pair for pair in planned(joint_problem, range(50)) if len(pair[0].agents) == 3)


def test_without_an_agent_is_the_plan_of_the_reduced_problem(joint_problem: JointProblem) -> None:
    compared = 0
    for problem, plan in planned(joint_problem, range(SOME)):
        if len(problem.agents) < 2:
            continue
        gone = problem.agents[-1].id
        data = problem.model_dump()
        data["agents"] = [agent for agent in data["agents"] if agent["id"] != gone]
        reduced = Problem.parse(data)  # nobody waits for the last agent, reports to it or holds what it gets
        try:
            other = plan.what_if(without=[gone]).after
        except InfeasiblePlanError:
            continue
        assert other == plan_workflow(reduced, deadline_ms=None, effort=STUDY)
        assert other.problem == reduced
        compared += 1
    assert compared > 0.3 * SOME


def test_nobody_waits_for_an_agent_that_is_left_out(joint_problem: JointProblem) -> None:
    """Whichever agent goes, the rest is a problem without contradictions that names it nowhere."""
    for seed in range(60):
        problem = joint_problem(seed)
        for agent in problem.agents if len(problem.agents) > 1 else ():
            changed = changed_problem(problem, without=[agent.id])
            assert f'"{agent.id}"' not in changed.model_dump_json()
            assert [each.id for each in changed.agents] == [each.id for each in problem.agents if each != agent]


def test_a_piece_that_is_left_out_shortens_the_cached_prefix(joint_problem: JointProblem) -> None:
    for seed in range(60):
        problem = joint_problem(seed)
        for item in problem.items:
            changed = changed_problem(problem, without=item.id)
            assert item.id not in changed.item_of
            for before, after in zip(problem.agents, changed.agents, strict=True):
                cached = [use.item_id for use in before.uses[: before.cached_uses] if use.item_id != item.id]
                assert [use.item_id for use in after.uses[: after.cached_uses]] == cached


def test_more_budget_never_lowers_what_is_possible(joint_problem: JointProblem) -> None:
    for problem, plan in planned(joint_problem, range(SOME)):
        changes: list[dict[str, Any]] = [{"budget_tokens": math.inf}, {"budget_usd": math.inf}]
        for change in changes:
            comparison = plan.what_if(**change)
            assert comparison.points_range[1] >= 0
            assert comparison.points >= -0.006 * abs(comparison.after.bound) / UNITS_PER_POINT  # the second phase
            assert not validate_plan(changed_problem(problem, **change), comparison.after)


def test_the_cheapest_plan_of_a_quality_is_as_cheap_as_all_plans_tried_out_say(
    joint_problem: JointProblem, try_all_plans: Callable[[Problem], Any]
) -> None:
    hits = tried = 0
    for problem, plan in planned(joint_problem, range(SOME)):
        every = try_all_plans(problem)
        for share in (0.5, 0.8, 1.0):
            least = plan.points * share
            after = plan.what_if(quality=least).after
            enough = every.fits & (every.value >= least * UNITS_PER_POINT)
            cheapest = int(every.cost[enough].min())
            assert after.cost_bound_nusd is not None
            assert after.cost_bound_nusd <= cheapest <= after.cost_nusd
            assert after.points >= least
            assert not validate_plan(problem, after)
            hits += after.cost_nusd <= cheapest * (1 + STUDY.gap)
            tried += 1
    assert hits >= 0.98 * tried > SOME


def test_a_quality_that_no_plan_has_is_refused_with_what_is_proven(example: tuple[Problem, Plan]) -> None:
    _, plan = example
    with pytest.raises(InfeasiblePlanError, match="none is worth more than"):
        plan.what_if(quality=plan.bound / UNITS_PER_POINT + 1)


def test_a_price_multiplies_all_prices_of_a_model_and_rounds_up(example: tuple[Problem, Plan]) -> None:
    problem, _ = example
    model = problem.models[0]
    dearer = changed_problem(problem, price={model.id: 1.1}).model_of[model.id]
    for name in ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h"):
        assert getattr(dearer, name) == -(-getattr(model, name) * 11 // 10)
    assert [tier.input for tier in dearer.tiers] == [-(-tier.input * 11 // 10) for tier in model.tiers]
    assert changed_problem(problem, price={model.id: 1}) == problem


def test_twice_the_price_is_twice_the_cost_up_to_rounding(joint_problem: JointProblem) -> None:
    """With all prices doubled and no limit on cost, a plan of the same value costs twice as much."""
    for problem, _ in planned(joint_problem, range(8)):
        free = changed_problem(problem, budget_usd=math.inf)
        free = free.model_copy(
            update={
                "stages": tuple(stage.model_copy(update={"max_cost_nusd": None}) for stage in free.stages),
                "items": tuple(
                    item.model_copy(
                        update={"forms": tuple(form.model_copy(update={"prepare_nusd": 0}) for form in item.forms)}
                    )
                    for item in free.items
                ),
            }
        )
        plan = plan_workflow(free, deadline_ms=None, effort=STUDY)
        after = plan.what_if(price=dict.fromkeys(free.model_of, 2)).after
        assert after.cost_nusd <= 2 * plan.cost_nusd * 1.02 + 1000
        assert after.objective >= plan.objective - 0.006 * abs(plan.bound)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget_tokens": -1}, "budget_tokens"),
        ({"budget_tokens": 1.5}, "budget_tokens"),
        ({"budget_tokens": math.nan}, "budget_tokens"),
        ({"budget_tokens": True}, "budget_tokens"),
        ({"budget_usd": -0.01}, "budget_usd"),
        ({"budget_usd": math.nan}, "budget_usd"),
        ({"budget_usd": 1e300}, "budget_usd"),
        ({"price": {"nobody": 2}}, "'nobody', which does not exist"),
        ({"price": {"m0": -1}}, "cannot be multiplied by -1"),
        ({"price": {"m0": math.inf}}, "cannot be multiplied by inf"),
        ({"price": {"m0": 1e12}}, "too high when it is multiplied"),
        ({"without": ["nobody"]}, "neither an agent nor a piece"),
        ({"without": ["a0", "a1", "a2"]}, "at least one agent"),
        ({"quality": math.nan}, "quality must be a number"),
        ({"quality": 1e300}, "quality must be a number"),
    ],
)
def test_a_change_that_is_not_possible_is_named(
    example: tuple[Problem, Plan], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProblemError, match=message):
        example[1].what_if(**change)


def test_a_budget_below_what_must_run_says_what_is_missing(joint_problem: JointProblem) -> None:
    problem, plan = next(
        pair for pair in planned(joint_problem, range(50)) if any(agent.mandatory for agent in pair[0].agents)
        and pair[1].tokens
    )  # fmt: skip
    with pytest.raises(InfeasiblePlanError, match="tokens lacks") as caught:
        plan.what_if(budget_tokens=problem.reserve_tokens)
    assert caught.value.missing["tokens"] > 0


def test_a_plan_from_json_needs_its_problem(example: tuple[Problem, Plan]) -> None:
    problem, plan = example
    loaded = Plan.model_validate_json(plan.model_dump_json())
    assert loaded == plan
    assert hash(loaded) == hash(plan)
    with pytest.raises(ProblemError, match="does not remember its problem"):
        loaded.what_if(budget_tokens=100_000)
    again = what_if(loaded, problem=problem, budget_tokens=100_000)
    assert again == plan.what_if(budget_tokens=100_000)
    assert loaded.of(problem).problem == problem


def test_a_plan_is_not_taken_for_that_of_another_problem(example: tuple[Problem, Plan]) -> None:
    problem, plan = example
    with pytest.raises(ProblemError, match="another problem"):
        plan.of(changed_problem(problem, budget_tokens=123_456))


def test_the_problem_of_a_plan_is_not_written(example: tuple[Problem, Plan]) -> None:
    _, plan = example
    assert "models" not in plan.model_dump()
    assert plan.model_copy().problem is plan.problem


def test_a_comparison_can_be_written_and_read(example: tuple[Problem, Plan]) -> None:
    comparison = example[1].what_if(quality=0.5 * example[1].points)
    assert Comparison.model_validate_json(comparison.model_dump_json()) == comparison
    assert "For certain no plan worth" in str(comparison)
    assert comparison.change.startswith("the cheapest plan worth at least")


def test_equal_questions_get_equal_answers(example: tuple[Problem, Plan]) -> None:
    problem, plan = example
    first, second = (plan_cheapest(problem, plan.points / 2) for _ in range(2))
    assert first.model_dump_json() == second.model_dump_json()
