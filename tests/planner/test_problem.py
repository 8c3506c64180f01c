from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from apportion.planner.plan import Plan
    from apportion.planner.problem import Problem


def test_a_changed_copy_has_a_fingerprint_and_records_of_its_own(
    planned: Callable[[int], tuple[Problem, Plan]],
) -> None:
    problem, _ = planned(1)
    before = problem.fingerprint
    assert problem.item_of
    assert problem.model_of
    changed = problem.model_copy(update={"items": (), "models": ()})
    assert changed.fingerprint != before
    assert not changed.item_of
    assert not changed.model_of
    assert problem.model_copy().fingerprint == before
