from __future__ import annotations

from itertools import chain, combinations
from typing import TYPE_CHECKING

import numpy as np
import pytest

from apportion.planner.invocation_problem import POINTS_PER_CALL, Waiting, invocation_problem
from apportion.planner.masking import PromptState, TokenPrices, mask_exactly
from apportion.planner.solver import THOROUGH, plan_workflow
from apportion.records import Demand

if TYPE_CHECKING:
    from apportion.planner.plan import Plan

PRICES = TokenPrices(read=0.5e-6, write=6.25e-6, output=25e-6)
LATER = Waiting("later", Demand(probabilities=(0.5, 0.9), tokens=(200_000, 900_000)), 40_000)


def state_of(rng: np.random.Generator, size: int, *, calls: float = 7.0) -> PromptState:
    return PromptState(
        tokens=rng.integers(30, 9000, size).astype(float),
        stub_tokens=np.full(size, 24.0),
        maskable=rng.random(size) < 0.7,
        need=rng.random(size) * 0.3,
        cached_items=int(rng.integers(0, size + 1)),
        overhead_tokens=float(rng.integers(0, 30_000)),
        remaining_calls=calls,
    )


def plan_of(state: PromptState, *, max_tokens: int, others: tuple[Waiting, ...] = (LATER,)) -> tuple[Plan, np.ndarray]:
    joint = invocation_problem(
        "main", state, PRICES, others, output_tokens=400, growth_tokens=900, max_tokens=max_tokens, reserve_tokens=0
    )
    plan = plan_workflow(joint.problem, deadline_ms=None, effort=THOROUGH)
    return plan, joint.masked(plan)


@pytest.mark.parametrize("seed", range(25))
def test_without_a_binding_limit_no_set_of_masks_is_cheaper_than_the_planned_one(seed: int) -> None:
    state = state_of(np.random.default_rng(seed), 6)
    plan, masked = plan_of(state, max_tokens=10**9)
    free = np.flatnonzero(state.maskable & (state.tokens > state.stub_tokens))
    subsets = chain.from_iterable(combinations(free, count) for count in range(len(free) + 1))
    best = max(mask_exactly(state, PRICES, np.array(rows, dtype=np.intp)).expected_saving for rows in subsets)
    prompt = state.overhead_tokens + state.tokens.sum()
    rounding = 2e-9 * len(free) + 1e-3 * prompt * PRICES.write  # costs and probabilities are whole numbers there
    assert mask_exactly(state, PRICES, masked).expected_saving >= best - rounding
    assert plan.agents[0].variant_id == "8 calls"


def test_pieces_that_stay_are_one_piece_unless_the_cached_prefix_ends_between_them() -> None:
    state = PromptState(
        tokens=np.array([100.0, 200.0, 3000.0, 50.0, 60.0]),
        stub_tokens=np.full(5, 24.0),
        maskable=np.array([False, False, True, False, False]),
        need=np.zeros(5),
        cached_items=4,
        overhead_tokens=1000.0,
        remaining_calls=3.0,
    )
    problem = invocation_problem(
        "main", state, PRICES, (), output_tokens=1, growth_tokens=1, max_tokens=10**6, reserve_tokens=0
    ).problem
    assert [item.tokens for item in problem.items] == [1000, 300, 3000, 50, 60]
    assert [item.pinned for item in problem.items] == [True, True, False, True, True]
    assert problem.agents[0].cached_uses == 4


def test_less_budget_means_fewer_calls_and_never_more_tokens_than_are_left() -> None:
    state = state_of(np.random.default_rng(3), 8, calls=30.0)
    made = []
    for left in (3_000_000, 600_000, 150_000, 60_000):
        plan, _ = plan_of(state, max_tokens=left)
        assert plan.tokens <= left
        made.append(int((plan.agents[0].variant_id or "0").split()[0]))
    assert made == sorted(made, reverse=True)
    assert made[0] > made[-1] >= 1


def test_masking_makes_room_for_calls_where_tokens_are_short() -> None:
    state = PromptState(
        tokens=np.array([500.0, 40_000.0, 500.0]),
        stub_tokens=np.full(3, 24.0),
        maskable=np.array([False, True, False]),
        need=np.array([0.0, 0.01, 0.0]),
        cached_items=3,
        overhead_tokens=0.0,
        remaining_calls=7.0,
    )
    rich, kept = plan_of(state, max_tokens=10**9, others=())
    poor, masked = plan_of(state, max_tokens=60_000, others=())
    assert masked.tolist() == [1]
    assert poor.points > POINTS_PER_CALL  # more than the one call that the whole prompt would leave room for
    assert rich.points >= poor.points
    assert kept.size <= 1
