from __future__ import annotations

import doctest

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from apportion.models import shrinkage
from apportion.models.features import Caller
from apportion.models.shrinkage import ATOMS, Shrinkage, chain, quantiles

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
names = st.sampled_from(["all", "all main", "main", "a", "a/b", "b", "b/c", "c", "~", "~1", ""])
numbers = st.lists(st.floats(0, 20), min_size=1, max_size=40)


def test_the_examples_run() -> None:
    results = doctest.testmod(shrinkage)
    assert results.attempted > 0
    assert results.failed == 0


def fitted(groups: dict[str, list[float]], *, workflows: int | None = None) -> Shrinkage:
    chains = [("all", group) for group, values in groups.items() for _ in values]
    values = np.array([[value] for each in groups.values() for value in each])
    return Shrinkage().fit(chains, values, [n if workflows is None else n % workflows for n in range(len(values))])


def forecast(model: Shrinkage, group: str, history: list[float], own_weight: float = 5.0) -> list[float]:
    values, weights = model.mixtures([("all", group)], [np.array(history).reshape(-1, 1)], own_weight)
    found: list[float] = quantiles(values[..., 0], weights, LEVELS)[0].tolist()
    return found


@given(values=numbers, level=st.floats(0.01, 0.99))
def test_a_quantile_is_the_smallest_value_that_reaches_its_probability(values: list[float], level: float) -> None:
    weights = np.full((1, len(values)), 1 / len(values))
    found = quantiles(np.array([values]), weights, (level,))[0, 0]
    assert found in values
    assert sum(value <= found for value in values) / len(values) >= level - 1e-6
    assert sum(value < found for value in values) / len(values) < level + 1e-6


@given(values=numbers, more=numbers)
def test_values_without_weight_do_not_count(values: list[float], more: list[float]) -> None:
    weights = [1 / len(values)] * len(values) + [0.0] * len(more)
    alone = quantiles(np.array([values]), np.array([weights[: len(values)]]), LEVELS)
    assert np.array_equal(quantiles(np.array([values + more]), np.array([weights]), LEVELS), alone)


@given(first=numbers, second=numbers, history=numbers)
def test_quantiles_never_cross(first: list[float], second: list[float], history: list[float]) -> None:
    found = forecast(fitted({"a": first, "b": second}), "a", history)
    assert found == sorted(found)


@given(others=numbers, use=st.floats(0, 20), times=st.integers(0, 30))
def test_more_history_of_constant_use_draws_each_quantile_nearer_and_never_widens_an_interval_around_it(
    others: list[float], use: float, times: int
) -> None:
    model = fitted({"a": others})
    before, after = (forecast(model, "a", [use] * count) for count in (times, times + 1))
    assert all(abs(new - use) <= abs(old - use) for new, old in zip(after, before, strict=True))
    if before[0] <= use <= before[-1]:
        assert after[-1] - after[0] <= before[-1] - before[0]


def test_a_long_history_outweighs_all_others() -> None:
    assert forecast(fitted({"a": [1.0, 2.0, 3.0]}), "a", [9.0] * 200) == [9.0] * len(LEVELS)


def test_a_group_speaks_for_itself_the_more_workflows_it_was_seen_in() -> None:
    others = [1.0] * 1000
    medians = [forecast(fitted({"b": others, "a": [9.0] * count}), "a", [])[2] for count in (1, 4, 6, 100)]
    assert medians == [1.0, 1.0, 9.0, 9.0]


def test_many_observations_of_one_workflow_count_as_one() -> None:
    assert forecast(fitted({"b": [1.0] * 1000, "a": [9.0] * 100}, workflows=1), "a", [])[2] == 1.0


@given(values=numbers)
def test_an_unknown_group_gets_the_distribution_of_the_one_above(values: list[float]) -> None:
    model = fitted({"a": values})
    overall = quantiles(model.atoms(("all",)).T, np.full((1, ATOMS), 1 / ATOMS), LEVELS)[0].tolist()
    assert forecast(model, "never seen", []) == overall


def test_each_group_is_kept_in_the_same_small_size() -> None:
    model = fitted({"a": [0.0], "b": list(np.arange(5000.0))})
    assert {atoms.shape for atoms in model.atoms_.values()} == {(ATOMS, 1)}
    found = forecast(model, "b", [])
    assert np.allclose(found, np.array(LEVELS) * 5000, atol=5000 / ATOMS)


def test_a_chain_ends_at_the_project_and_names_what_stands_above() -> None:
    groups = chain(Caller("f", "project", "agent", "sub", None))
    assert groups == ("all", "all sub", "f/sub", "f/sub/agent", "f/sub/agent/None", "f/sub/agent/None/project")


@given(
    st.lists(st.builds(Caller, names, names, names, st.sampled_from(["main", "sub"]), st.none() | names), min_size=1)
)
def test_a_group_always_has_the_same_ones_above_it_whatever_callers_are_called(callers: list[Caller]) -> None:
    above: dict[str, tuple[str, ...]] = {}
    for groups in map(chain, callers):
        assert len(set(groups)) == len(groups)
        for depth, group in enumerate(groups):
            assert above.setdefault(group, groups[:depth]) == groups[:depth]
    Shrinkage().fit([*map(chain, callers)], np.ones((len(callers), 1)), [*range(len(callers))])
