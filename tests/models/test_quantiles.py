from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.models.calibration import LEVELS, coverage
from apportion.models.quantiles import LEAST_TO_BOOST, Measure, QuantileModel, Rows, fold_of


def drawn(seed: int, *, workflows: int = 120, signal: float = 0.0, agents: int = 3) -> Rows:
    """Counts of three agent types, four per workflow; a feature tells a part of them, another nothing."""
    rng = np.random.default_rng(seed)
    rows = 4 * workflows
    agent = rng.integers(agents, size=rows)
    features = rng.standard_normal((rows, 2))
    values = np.maximum(0.0, 5 + agent + signal * features[:, 0] + rng.standard_normal(rows))
    return Rows(
        chains=[("all", f"agent-{each}") for each in agent],
        prompts=np.full(rows, 1000.0),
        histories=[values[row - row % 4 : row, None] for row in range(rows)],
        features=features,
        workflows=[f"w{row // 4}" for row in range(rows)],
        values=values[:, None],
        targets=values,
    )


def state(value: Any) -> Any:
    """Everything that a model holds, comparable."""
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, dict):
        return {key: state(each) for key, each in value.items()}
    return state(vars(value)) if hasattr(value, "__dict__") else value


@pytest.fixture(scope="module")
def plain() -> QuantileModel:
    return QuantileModel("count").fit(drawn(1))


@pytest.fixture(scope="module")
def telling() -> QuantileModel:
    return QuantileModel("count").fit(drawn(1, signal=2.0))


def test_boosting_is_used_where_features_tell_something_and_only_there(
    plain: QuantileModel, telling: QuantileModel
) -> None:
    assert plain.boosting_ is None
    assert not plain.report_["boosted"]
    assert telling.boosting_ is not None
    assert telling.report_["loss_boosted"] < 0.8 * telling.report_["loss_shrunk"]


def test_boosting_is_not_even_tried_on_few_workflows() -> None:
    few = QuantileModel("count").fit(drawn(1, signal=2.0, workflows=LEAST_TO_BOOST - 1))
    assert few.boosting_ is None
    assert "loss_boosted" not in few.report_
    assert QuantileModel("count", boost=False).fit(drawn(1, signal=2.0)).boosting_ is None


@pytest.mark.parametrize("signal", [0.0, 2.0])
def test_intervals_cover_what_they_claim_on_new_workflows(signal: float) -> None:
    covered = []
    for seed in range(2):
        new = drawn(100 + seed, signal=signal)
        model = QuantileModel("count").fit(drawn(seed, signal=signal))
        covered.append(coverage(new.targets, model.predict(new)))
    assert 0.88 <= np.mean(covered) <= 0.94


@settings(max_examples=60)
@given(
    agent=st.sampled_from(["agent-0", "agent-2", "unknown"]),
    history=st.lists(st.floats(0, 30), max_size=20),
    features=st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=2, max_size=2) | st.none(),
)
def test_quantiles_never_cross_nor_fall_below_nothing(
    telling: QuantileModel, agent: str, history: list[float], features: list[float] | None
) -> None:
    columns = np.zeros((1, 0)) if features is None else np.array([features])
    rows = Rows([("all", agent)], np.array([1.0]), [np.array(history).reshape(-1, 1)], columns)
    found = telling.predict(rows)[0]
    assert list(found) == sorted(found)
    assert found[0] >= 0.0
    assert len(found) == len(LEVELS)


def test_prediction_changes_nothing(telling: QuantileModel) -> None:
    before = copy.deepcopy(state(telling))
    telling.predict(drawn(7))
    assert state(telling) == before


def test_equal_seeds_learn_the_same() -> None:
    first, again = (QuantileModel("count", seed=3).fit(drawn(2, signal=2.0, workflows=60)) for _ in range(2))
    assert state(first) == state(again)


def test_a_history_informs_where_workflows_differ() -> None:
    rows = drawn(1)
    shift = np.repeat(np.random.default_rng(0).normal(0, 3, 120), 4)[:, None]
    values = np.maximum(0.0, rows.values + shift)
    histories = [values[row - row % 4 : row] for row in range(len(rows))]
    different = Rows(rows.chains, rows.prompts, histories, rows.features, rows.workflows, values, values[:, 0])
    assert QuantileModel("count").fit(different).own_weight_ < QuantileModel("count").fit(rows).own_weight_


def test_folds_keep_workflows_together() -> None:
    names = [f"w{number % 17}" for number in range(200)]
    folds = fold_of(names, 5, 0)
    assert set(folds.tolist()) == set(range(5))
    assert all(
        len({fold for fold, each in zip(folds.tolist(), names, strict=True) if each == name}) == 1 for name in names
    )


@given(
    calls=st.integers(1, 50),
    growth=st.integers(0, 5000),
    output=st.integers(0, 5000),
    prompt=st.integers(0, 200_000),
)
def test_a_run_comes_to_the_sum_of_its_calls(calls: int, growth: int, output: int, prompt: int) -> None:
    found = Measure.RUN.of(np.array([[calls, growth, output]], dtype=float), np.array([prompt], dtype=float))[0]
    assert np.expm1(found) == pytest.approx(sum(prompt + call * growth + output for call in range(calls)), abs=1e-3)


def test_a_multiple_counts_from_the_prompt_and_a_count_does_not() -> None:
    values, prompts = np.array([[2.0], [2.0]]), np.array([10.0, 100.0])
    assert np.allclose(Measure.MULTIPLE.of(values, prompts), 2.0 + np.log1p(prompts))
    assert np.allclose(Measure.COUNT.of(values, prompts), 2.0)
