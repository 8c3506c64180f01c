from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from apportion.errors import InfeasiblePlanError
from apportion.planner.explanation import Explanation, explain, explain_infeasible
from apportion.planner.plan import LimitPrice, Plan
from apportion.planner.problem import UNITS_PER_POINT, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    Planned = Callable[[int], tuple[Problem, Plan]]

SEEDS = range(60)


def test_everything_is_explained(planned: Planned) -> None:
    for seed in SEEDS:
        problem, plan = planned(seed)
        why = explain(problem, plan)
        assert [agent.agent_id for agent in why.agents] == [agent.id for agent in problem.agents]
        for agent, each in zip(plan.agents, why.agents, strict=True):
            assert [(piece.item_id, piece.form) for piece in each.pieces] == [
                (piece.item_id, piece.form) for piece in agent.pieces
            ]
            assert each.text.endswith(".")
            assert (each.decision == "deferred") == agent.deferred
            if agent.cut_off_probability is not None:
                assert each.confidence == pytest.approx(1 - agent.cut_off_probability)
        odd = [each.agent_id for each in why.agents if each.decision != "full"]
        assert [decision.agent_id for decision in why.policies] == odd
        assert Explanation.model_validate_json(why.model_dump_json()) == why


def test_the_runner_up_is_compared_at_the_prices_of_the_plan(planned: Planned) -> None:
    """Without prices only quality counts; at a price per token, each token more takes that much from it."""
    compared = 0
    for seed in SEEDS:
        problem, plan = planned(seed)
        free = explain(problem, plan.model_copy(update={"prices": ()}))
        units = 3.0 * UNITS_PER_POINT
        dear = explain(problem, plan.model_copy(update={"prices": (LimitPrice(limit="tokens", units=units),)}))
        for before, after in zip(free.agents, dear.agents, strict=True):
            for one, other in zip(before.pieces, after.pieces, strict=True):
                if one.runner_up is not None and one.runner_up == other.runner_up:
                    assert one.loss_points is not None
                    assert other.loss_points == pytest.approx(one.loss_points + 3.0 * one.more_tokens)
                    compared += 1
    assert compared > 50


def test_a_piece_that_another_agent_needs_whole_has_no_runner_up(planned: Planned) -> None:
    texts = [piece.text for seed in SEEDS for agent in explain(*planned(seed)).agents for piece in agent.pieces]
    assert any(text.endswith("because another agent's diff or reference needs it whole.") for text in texts)
    assert any(text.endswith("because it is pinned.") for text in texts)


def test_what_a_limit_is_worth_is_told_in_its_unit(planned: Planned) -> None:
    problem, plan = planned(0)
    prices = tuple(LimitPrice(limit=limit, units=2.0) for limit in ("tokens", "cost of stage s0", "memory"))
    tokens, cost, memory = explain(problem, plan.model_copy(update={"prices": prices})).limits
    assert tokens.text == "The limit on tokens binds: 1,000 more tokens would gain 0.1 points."
    assert (tokens.points_per_1k_tokens, tokens.points_per_cent) == (0.1, None)
    assert cost.text == "The limit on cost of stage s0 binds: one more cent would gain 1,000 points."
    assert (cost.points_per_1k_tokens, cost.points_per_cent) == (None, 1000)
    assert memory.text == "The limit on memory binds: one more megabyte would gain 100 points."


def test_names_are_escaped_in_notebooks(planned: Planned) -> None:
    problem, plan = planned(0)
    text = problem.model_dump_json().replace('"a0"', '"<script>alert(1)</script>"')
    evil = Problem.model_validate_json(text)
    agents = plan.model_dump_json().replace('"a0"', '"<script>alert(1)</script>"')
    html = explain(evil, Plan.model_validate_json(agents))._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_an_explanation_is_readable_in_a_terminal(planned: Planned) -> None:
    problem, plan = planned(3)
    lines = str(explain(problem, plan.model_copy(update={"degraded": ("the deadline came first",)}))).splitlines()
    assert lines[0].startswith(f"{sum(not agent.deferred for agent in plan.agents)} of {len(plan.agents)} agents run")
    assert lines[1] == "Degraded: the deadline came first."
    assert all(len(line) > 10 for line in lines)


def test_the_reason_of_a_deferral_that_follows_from_another_names_it(planned: Planned) -> None:
    reasons = [
        (decision.reason, problem.agents[number].after)
        for problem, plan in map(planned, SEEDS)
        for decision in explain(problem, plan).policies
        for number, agent in enumerate(problem.agents)
        if agent.id == decision.agent_id and decision.policy == "defer"
    ]
    assert any(reason.startswith("it needs the result of") for reason, _ in reasons)
    assert any(reason.startswith("running it would be worth") for reason, _ in reasons)
    assert all(after for reason, after in reasons if reason.startswith("it needs"))


def test_an_infeasible_problem_is_explained_with_its_conflict_and_what_is_missing() -> None:
    error = InfeasiblePlanError("the mandatory agents do not fit", missing_tokens=1200, hint="Raise max_tokens")
    error.__dict__ |= {"conflict": ("tokens", "agent a<b>"), "missing": {"tokens": 1200, "cost": 5 * 10**9}}
    why = explain_infeasible(error)
    assert str(why).splitlines() == [
        "No plan: the mandatory agents do not fit.",
        "These cannot all be kept, while any one fewer could: tokens, agent a<b>.",
        "Missing at least: 1,200 tokens (tokens).",
        "Missing at least: $5.0000 (cost).",
        "Raise max_tokens.",
    ]
    assert "a&lt;b&gt;" in why._repr_html_()
