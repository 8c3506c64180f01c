from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from apportion.planner.comparison import Comparison, compare

if TYPE_CHECKING:
    from collections.abc import Callable

    from apportion.planner.plan import AgentPlan, Plan
    from apportion.planner.problem import Problem

    Planned = Callable[[int], tuple[Problem, Plan]]

SEEDS = range(40)
EVIL = "<img src=x onerror=alert(1)>\x1b[31m&\n"


def pairs(planned: Planned) -> list[tuple[Plan, Plan]]:
    plans = [planned(seed)[1] for seed in SEEDS]
    return [*pairwise(plans), *((plan, plan) for plan in plans[:5])]


def test_a_comparison_is_antisymmetric(planned: Planned) -> None:
    for first, second in pairs(planned):
        there, back = compare(first, second), compare(second, first)
        assert (there.points, there.tokens, there.cost_nusd) == (-back.points, -back.tokens, -back.cost_nusd)
        assert there.points_range == tuple(-end for end in reversed(back.points_range))
        assert set(there.newly_deferred) == set(back.no_longer_deferred)
        assert set(there.other_variant) == set(back.other_variant)
        assert {each.agent_id for each in there.agents} == {each.agent_id for each in back.agents}
        for each in there.agents:
            other = back.agent(each.agent_id)
            assert (each.before, each.after) == (other.after, other.before)
            assert each.variants == other.variants[::-1]
            assert each.work_tokens == other.work_tokens[::-1]
            assert each.hand_backs == other.hand_backs[::-1]
            assert (each.tokens, each.cost_nusd) == (-other.tokens, -other.cost_nusd)
            assert {(p.item_id, p.before, p.after, p.tokens) for p in each.pieces} == {
                (p.item_id, p.after, p.before, -p.tokens) for p in other.pieces
            }


def test_differences_of_agents_add_up_to_those_of_the_workflow(planned: Planned) -> None:
    for first, second in pairs(planned):
        assert sum(each.tokens for each in compare(first, second).agents) == second.tokens - first.tokens


def test_a_plan_compared_with_itself_changes_nothing(planned: Planned) -> None:
    for seed in SEEDS:
        plan = planned(seed)[1]
        same = compare(plan, plan)
        assert (same.points, same.tokens, same.cost_nusd) == (0, 0, 0)
        assert not any(each.changed for each in same.agents)
        assert same.points_range[0] <= 0 <= same.points_range[1]


def test_an_agent_in_one_plan_only_is_absent_from_the_other(planned: Planned) -> None:
    plan = next(planned(seed)[1] for seed in SEEDS if len(planned(seed)[1].agents) > 2)
    less = plan.model_copy(update={"agents": plan.agents[1:]})
    change = compare(plan, less).agent(plan.agents[0].agent_id)
    assert change.after == "absent"
    assert change.tokens == -plan.agents[0].tokens - plan.agents[0].given_tokens
    with pytest.raises(KeyError):
        compare(plan, less).agent("nobody")


def test_hostile_names_are_escaped_in_notebooks_and_terminals(planned: Planned) -> None:
    _, plan = next(planned(seed) for seed in SEEDS if any(agent.pieces for agent in planned(seed)[1].agents))

    def evil(agent: AgentPlan) -> AgentPlan:
        pieces = tuple(piece.model_copy(update={"item_id": EVIL + piece.item_id}) for piece in agent.pieces)
        variant = None if agent.variant_id is None else EVIL
        return agent.model_copy(update={"agent_id": EVIL, "variant_id": variant, "pieces": pieces})

    agents = tuple(evil(agent) for agent in plan.agents[:1])
    other = tuple(agent.model_copy(update={"pieces": (), "work_tokens": 1, "hand_back": EVIL}) for agent in agents)
    first, second = (plan.model_copy(update={"agents": each, "degraded": (EVIL,)}) for each in (agents, other))
    for comparison in (compare(first, second, change=EVIL), compare(second, first, change=EVIL)):
        html = comparison._repr_html_()
        assert "<img" not in html
        assert "&lt;img" in html
        assert "\x1b" not in str(comparison)


def test_rows_are_flat_and_the_record_can_be_written(planned: Planned) -> None:
    for first, second in pairs(planned)[:5]:
        comparison = compare(first, second, change="another seed")
        rows = comparison.to_rows()
        assert len(rows) == len(comparison.agents)
        assert all(isinstance(value, str | int | float | None) for row in rows for value in row.values())
        assert Comparison.model_validate_json(comparison.model_dump_json()) == comparison
        assert str(comparison).startswith("What if: another seed.")
