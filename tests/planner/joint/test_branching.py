"""Laws of bounds by cases: above the best of all plans, at or below the bound of prices alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from apportion.planner import branching
from apportion.planner.branching import Ways, bound_by_cases
from apportion.planner.compiled import compile_problem
from apportion.planner.dual import VALUE, Cases, Dual

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from apportion.planner.problem import Problem

STEPS = 12


@pytest.fixture(scope="module")
def solvable(
    joint_problem: Callable[[int], Problem], try_all_plans: Callable[[Problem], Any]
) -> list[tuple[Dual, int]]:
    """Small problems that have a plan, with what the best one is worth."""

    def found() -> Iterator[tuple[Dual, int]]:
        for seed in range(60):
            problem = joint_problem(seed)
            plans = try_all_plans(problem)
            if plans.fits.any():
                yield Dual(compile_problem(problem)), int(plans.value[plans.fits].max())

    return list(found())


def bound(dual: Dual, target: float, cases: int = 40) -> float:
    start = dual.start(VALUE)
    return bound_by_cases(dual, start, target=target, cases=cases, steps=STEPS, stop=lambda: False)


def test_no_plan_is_worth_more_than_the_best_case(solvable: list[tuple[Dual, int]]) -> None:
    for dual, best in solvable:
        assert bound(dual, target=best) >= best - 1


def test_cases_never_loosen_the_bound_of_prices_and_often_tighten_it(solvable: list[tuple[Dual, int]]) -> None:
    tighter = 0
    for dual, best in solvable:
        _, alone = dual.descend(dual.start(VALUE), VALUE, steps=STEPS, latency=True)
        split = bound(dual, target=best)
        assert split <= alone.bound + 1e-6 * abs(alone.bound)
        tighter += split < alone.bound - 1e-4 * abs(alone.bound)
    assert tighter >= len(solvable) // 10


def test_a_case_that_is_forgotten_is_noticed(solvable: list[tuple[Dual, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    whole_split = branching._split
    monkeypatch.setattr(branching, "_split", lambda *arguments: whole_split(*arguments)[:1])
    assert any(bound(dual, target=best) < best - 1 for dual, best in solvable)


def test_the_cases_of_a_way_share_everything_and_overlap_in_nothing_of_its_agent(
    joint_problem: Callable[[int], Problem],
) -> None:
    for seed in range(20):
        compiled = compile_problem(joint_problem(seed))
        ways = Ways.of(compiled)
        everything = Cases(ways.of_mode >= 0, compiled.deferrable.copy())
        for way in range(len(ways.agent)):
            alone, others = branching._split(ways, everything, way)
            of_agent = ways.agent[ways.of_mode] == ways.agent[way]
            assert ((alone.runs | others.runs) == everything.runs).all()
            assert ((alone.defers | others.defers) == everything.defers).all()
            assert not (alone.runs & others.runs & of_agent).any()


def test_a_stop_ends_the_search_with_the_bound_so_far(solvable: list[tuple[Dual, int]]) -> None:
    dual, best = solvable[0]
    start = dual.start(VALUE)
    _, alone = dual.descend(start, VALUE, steps=STEPS, latency=True)
    stopped = bound_by_cases(dual, start, target=-1.0, cases=100, steps=STEPS, stop=lambda: True)
    assert best - 1 <= stopped == pytest.approx(alone.bound)
