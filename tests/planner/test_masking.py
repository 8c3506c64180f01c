from __future__ import annotations

import itertools
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.planner import masking
from apportion.planner.masking import (
    EXPANSION_OUTPUT_TOKENS,
    SURE_CALLS,
    MaskPlan,
    PromptState,
    Solvency,
    TokenPrices,
    plan_masks,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

PRICES = TokenPrices(read=0.1, write=1.25, output=5.0)
RICH = Solvency(credit=1e12, allowance=0.0)


def state(
    tokens: Sequence[int],
    *,
    need: float | Sequence[float] = 0.0,
    cached: int = 0,
    remaining: float = 20.0,
    overhead: float = 0.0,
    maskable: Sequence[bool] | None = None,
) -> PromptState:
    return PromptState(
        tokens=np.array(tokens, dtype=float),
        stub_tokens=np.full(len(tokens), 24.0),
        maskable=np.ones(len(tokens), dtype=bool) if maskable is None else np.array(maskable, dtype=bool),
        need=np.broadcast_to(np.array(need, dtype=float), len(tokens)).copy(),
        cached_items=cached,
        overhead_tokens=overhead,
        remaining_calls=remaining,
    )


def expected_bill(s: PromptState, chosen: tuple[int, ...]) -> float:
    """The bill of this and the expected later calls, written out independently of the planner."""
    tokens = s.tokens.copy()
    tokens[list(chosen)] = s.stub_tokens[list(chosen)]
    intact = min([s.cached_items, *chosen])
    read, total = tokens[:intact].sum(), tokens.sum()
    bill = PRICES.read * read + PRICES.write * (total - read) + s.remaining_calls * PRICES.read * total
    prompt = s.overhead_tokens + s.tokens.sum()
    for item in chosen:
        extra = PRICES.read * prompt + PRICES.output * EXPANSION_OUTPUT_TOKENS
        again = s.tokens[item] * (PRICES.write + PRICES.read * s.remaining_calls)
        bill += s.need[item] * (extra + again)
    return float(bill)


states = st.integers(1, 7).flatmap(
    lambda n: st.builds(
        state,
        st.lists(st.integers(1, 5000), min_size=n, max_size=n),
        need=st.lists(st.floats(0, 0.9), min_size=n, max_size=n),
        cached=st.integers(0, n),
        remaining=st.floats(0, 80),
        overhead=st.floats(0, 40_000),
        maskable=st.lists(st.booleans(), min_size=n, max_size=n),
    )
)


@given(states)
def test_the_plan_is_the_best_of_all_subsets_when_nothing_limits_it(s: PromptState) -> None:
    with patch.object(masking, "CAUTION", 0.0):
        plan = plan_masks(s, PRICES, RICH)
    nothing = expected_bill(s, ())
    items = [item for item in range(len(s.tokens)) if s.maskable[item] and s.tokens[item] > s.stub_tokens[item]]
    subsets = itertools.chain.from_iterable(itertools.combinations(items, size) for size in range(len(items) + 1))
    best = min(expected_bill(s, subset) for subset in subsets)
    assert nothing - expected_bill(s, tuple(plan.items)) == pytest.approx(plan.expected_saving, rel=1e-6, abs=1e-4)
    assert expected_bill(s, tuple(plan.items)) == pytest.approx(best, rel=1e-6, abs=1e-4)


@given(states, st.floats(0, 1e6), st.floats(0, 2.0))
def test_no_plan_is_expected_to_cost_more_than_doing_nothing(s: PromptState, credit: float, weight: float) -> None:
    plan = plan_masks(s, PRICES, Solvency(credit, 0.0), token_weight=weight)
    assert plan.expected_saving >= 0
    assert expected_bill(s, tuple(plan.items)) <= expected_bill(s, ()) + 1e-6 * expected_bill(s, ())
    assert not plan.forced


@given(states, st.floats(0, 1e6), st.floats(0, 2.0))
def test_pressing_saves_no_fewer_tokens_and_is_not_dearer_either(s: PromptState, credit: float, weight: float) -> None:
    plain, pressed = (
        plan_masks(s, PRICES, Solvency(credit, 0.0), token_weight=weight, press=press) for press in (False, True)
    )
    assert pressed.saved_tokens >= plain.saved_tokens
    assert expected_bill(s, tuple(pressed.items)) <= expected_bill(s, ()) * (1 + 1e-6)


@given(states, st.floats(-1e4, 1e5))
def test_a_plan_risks_no_more_than_the_workflow_can_afford(s: PromptState, free: float) -> None:
    plan = plan_masks(s, PRICES, Solvency(free, 0.0))
    if not plan.items.size:
        return
    tokens = s.tokens[plan.items]
    saved = (tokens - s.stub_tokens[plan.items]).sum()
    intact = min(s.cached_items, int(plan.items[0]))
    rewritten = (PRICES.write - PRICES.read) * s.tokens[intact : s.cached_items].sum()
    extra_call = PRICES.read * (s.overhead_tokens + s.tokens.sum()) + PRICES.output * EXPANSION_OUTPUT_TOKENS
    expansions = extra_call + tokens * (PRICES.write + PRICES.read * min(SURE_CALLS, s.remaining_calls))
    sure = PRICES.write + PRICES.read * min(SURE_CALLS, s.remaining_calls)
    assert rewritten - sure * saved + expansions.max() <= free + 1e-6 * max(1.0, abs(free)) + 1e-3


def test_a_cold_cache_makes_breaks_free() -> None:
    tokens, maskable = [3000, 20_000] * 5, [True, False] * 5
    cold, warm = (state(tokens, need=0.02, cached=cached, remaining=2.0, maskable=maskable) for cached in (0, 10))
    assert plan_masks(cold, PRICES, RICH).items.tolist() == [0, 2, 4, 6, 8]
    assert plan_masks(warm, PRICES, RICH).items.size == 0


def test_pinned_items_are_never_masked() -> None:
    plan = plan_masks(state([5000, 5000], maskable=[False, True]), PRICES, RICH)
    assert plan.items.tolist() == [1]


def test_a_hard_limit_forces_enough_out_and_says_so() -> None:
    s = state([2000] * 10, need=0.9, cached=10, remaining=0.0)
    assert plan_masks(s, PRICES, RICH).items.size == 0
    plan = plan_masks(s, PRICES, RICH, must_save=5000)
    assert plan.saved_tokens >= 5000
    assert plan.forced


def test_an_empty_prompt_needs_no_plan() -> None:
    plan = plan_masks(state([]), PRICES, RICH)
    assert plan.items.tolist() == MaskPlan.nothing().items.tolist() == []
