from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.models import backoff
from apportion.models.backoff import BackoffCounts

INDEX = {name: nth for nth, name in enumerate("abcd")}
steps = st.sampled_from("abcd")
seen = st.lists(st.tuples(st.lists(steps, max_size=5), steps), max_size=30)
BASE = np.full(4, 0.25)


def counted(observations: list[tuple[list[str], str]], max_order: int = 3) -> BackoffCounts:
    counts = BackoffCounts(max_order)
    for context, step in observations:
        counts.add(context, step)
    return counts


def by_the_formula(observations: list[tuple[list[str], str]], context: list[str], step: str, order: int) -> float:
    """The probability as the module's docstring states it, by recursion."""
    if order < 0:
        return 0.25
    here = context[len(context) - order :]
    after = [each for before, each in observations if len(before) >= order and before[len(before) - order :] == here]
    shorter = by_the_formula(observations, context, step, order - 1)
    kinds = len(set(after))
    return (after.count(step) + kinds * shorter) / (len(after) + kinds) if after else shorter


def test_the_examples_run() -> None:
    results = doctest.testmod(backoff)
    assert results.attempted > 0
    assert results.failed == 0


@given(observations=seen, context=st.lists(steps, max_size=5))
def test_probabilities_follow_the_formula_and_sum_to_one(
    observations: list[tuple[list[str], str]], context: list[str]
) -> None:
    found = counted(observations).probabilities(context, BASE, INDEX)
    order = min(3, len(context))
    assert found.sum() == pytest.approx(1.0)
    assert found == pytest.approx([by_the_formula(observations, context, step, order) for step in INDEX])
    assert (BASE == 0.25).all()


@given(observations=seen, context=st.lists(steps, max_size=5), step=steps)
def test_seeing_a_step_again_never_makes_it_less_likely(
    observations: list[tuple[list[str], str]], context: list[str], step: str
) -> None:
    counts = counted([*observations, (context, step)])
    before = counts.probabilities(context, BASE, INDEX)
    counts.add(context, step)
    after = counts.probabilities(context, BASE, INDEX)
    assert after[INDEX[step]] >= before[INDEX[step]] - 1e-12


@settings(max_examples=settings().max_examples // 4)
@given(observations=seen, context=st.lists(steps, max_size=5))
def test_counts_come_back_from_their_state_exactly(
    observations: list[tuple[list[str], str]], context: list[str]
) -> None:
    counts = counted(observations)
    again = BackoffCounts.from_state(counts.to_state())
    assert again.steps == counts.steps == {step for _, step in observations}
    assert (again.probabilities(context, BASE, INDEX) == counts.probabilities(context, BASE, INDEX)).all()
    assert again.total(context[-2:]) == counts.total(context[-2:])


@pytest.mark.parametrize(
    "damage",
    [
        {"max_order": -1},
        {"max_order": "3"},
        {"names": ["a", 7]},
        {"names": ["a"]},
        {"table": np.zeros((1, 5))},
        {"table": np.zeros((1, 4), dtype=np.int64)},
        {"table": np.array([[-1, -1, -1, -1, 1]])},
        {"table": np.array([[-2, -1, -1, 0, 1]])},
        {"table": np.array([[-1, -1, -1, 0, 0]])},
        {"table": [[-1, -1, -1, 0, 1]]},
    ],
)
def test_a_state_that_is_none_is_refused(damage: dict[str, Any]) -> None:
    state = counted([(["a"], "b"), (["b", "a"], "c")]).to_state()
    with pytest.raises(ValueError, match="a table of counts"):
        BackoffCounts.from_state(state | damage)
