from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from apportion.errors import InputError
from apportion.planner.problem import LATENCY_TICKS, Problem, tick_ms
from apportion.planner.solver import plan_workflow

if TYPE_CHECKING:
    from collections.abc import Callable

    from apportion.planner.plan import Plan

PRICES = dict.fromkeys(("input", "output", "cache_read", "cache_write_5m", "cache_write_1h"), 10**6)


def problem_of(agents: list[dict[str, Any]], *, stages: list[dict[str, Any]], items: Any = ()) -> Problem:
    """Make a problem of agents that need nothing but what they say."""
    ways = [{"model_id": "m", "demand": {"probabilities": [0.5, 0.9], "tokens": [1000, 2000]}}]
    return Problem.parse({
        "models": [{"id": "m", **PRICES}],
        "stages": stages,
        "agents": [{"variants": ways, **agent} for agent in agents],
        "items": list(items),
    })  # fmt: skip


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


def test_an_agent_cannot_wait_for_one_of_a_later_stage() -> None:
    stages: list[dict[str, Any]] = [{"id": "first"}, {"id": "second", "after": ["first"]}]
    waiting = {"id": "a", "stage_id": "first", "after": ["b"]}
    with pytest.raises(InputError, match=r"in the order of the stages.* waits for itself"):
        problem_of([waiting, {"id": "b", "stage_id": "second"}], stages=stages)
    problem_of([waiting, {"id": "b", "stage_id": "first"}], stages=stages)


def test_an_agent_cannot_hold_what_one_of_a_later_stage_will_get() -> None:
    stages: list[dict[str, Any]] = [{"id": "first"}, {"id": "second", "after": ["first"]}]
    items = [{"id": "file", "tokens": 100}]
    uses = [{"item_id": "file"}]
    held = [{"item_id": "file", "held_if_kept_by": "b"}]
    with pytest.raises(InputError, match="in the order of the stages"):
        problem_of(
            [{"id": "a", "stage_id": "first", "uses": held}, {"id": "b", "stage_id": "second", "uses": uses}],
            stages=stages,
            items=items,
        )


@pytest.mark.parametrize("pieces", [1, 10, 100, 300])
def test_rounding_up_to_ticks_costs_at_most_a_fifth_of_a_limit(pieces: int) -> None:
    for limit in (1, 7, 100, 1_500, 10**6):
        tick = tick_ms(limit, pieces)
        assert tick * LATENCY_TICKS >= limit or pieces > 10
        assert tick == 1 or pieces * tick <= limit / 5 + pieces


def test_many_pieces_that_take_a_moment_each_keep_within_a_limit() -> None:
    count = 100
    form = {"action": "mask", "tokens": 10, "latency_ms": 3}
    items = [{"id": f"i{number}", "tokens": 1000, "forms": [form]} for number in range(count)]
    agent = {
        "id": "a", "stage_id": "s", "mandatory": True, "can_expand": True,
        "uses": [{"item_id": item["id"]} for item in items],
    }  # fmt: skip
    problem = problem_of([agent], stages=[{"id": "s", "max_latency_ms": 500}], items=items)
    plan = plan_workflow(problem.model_copy(update={"max_tokens": 10_000}), deadline_ms=None)
    assert plan.agents[0].latency_ms <= 500
    assert sum(piece.form.startswith("mask") for piece in plan.agents[0].pieces) > 85


def test_loading_in_advance_what_takes_days_is_planned_like_what_takes_long_enough() -> None:
    form = {"action": "mask", "tokens": 10, "latency_ms": 30}
    items = [{"id": "a file", "tokens": 1000, "forms": [form]}]
    stage = {"id": "s", "max_latency_ms": 1500}

    def plan(saved_ms: int) -> Plan:
        variant = {"model_id": "m", "latency_ms": 3000, "demand": {"probabilities": [0.9], "tokens": [2000]}}
        preload = {"memory_bytes": 1, "probability_ppm": 10**6, "latency_ms": saved_ms}
        agent = {"id": "a", "stage_id": "s", "variants": [variant], "preload": preload, "can_expand": True}
        problem = problem_of([agent | {"uses": [{"item_id": "a file"}]}], stages=[stage], items=items)
        return plan_workflow(problem.model_copy(update={"max_tokens": 1500}), deadline_ms=None)

    enough, days = plan(10_000), plan(10**9)
    assert enough.agents[0].preload
    assert days.agents == enough.agents
    assert days.bound == enough.bound
