from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.models.calibration import LEVELS, coverage
from apportion.models.quantiles import LEAST_TO_BOOST, Measure, QuantileModel, Rows, fold_of

if TYPE_CHECKING:
    from collections.abc import Sequence


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


@pytest.mark.parametrize(("learned", "signal"), [("plain", 0.0), ("telling", 2.0)])
def test_intervals_cover_what_they_claim_on_new_workflows(
    learned: str, signal: float, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(learned)
    covered = []
    for seed in range(4):
        new = drawn(100 + seed, signal=signal)
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


def test_equal_seeds_learn_the_same(telling: QuantileModel) -> None:
    assert state(QuantileModel("count").fit(drawn(1, signal=2.0))) == state(telling)


def test_a_history_informs_where_workflows_differ(plain: QuantileModel) -> None:
    rows = drawn(1)
    shift = np.repeat(np.random.default_rng(0).normal(0, 3, 120), 4)[:, None]
    values = np.maximum(0.0, rows.values + shift)
    histories = [values[row - row % 4 : row] for row in range(len(rows))]
    different = Rows(rows.chains, rows.prompts, histories, rows.features, rows.workflows, values, values[:, 0])
    assert QuantileModel("count").fit(different).own_weight_ < plain.own_weight_


def frameworks(seed: int, sizes: Sequence[int], *, first: int = 0) -> Rows:
    """Counts in frameworks of so many workflows each, which differ far more than the workflows within."""
    rng = np.random.default_rng(seed)
    framework = np.repeat(np.arange(len(sizes)), sizes)
    values = np.maximum(0.0, 20 + rng.normal(0, 3, len(sizes))[framework] + rng.normal(0, 0.3, len(framework)))
    return Rows(
        chains=[("all", "all main", f"tool-{first + each}/main") for each in framework],
        prompts=np.full(len(values), 1000.0),
        histories=[np.zeros((0, 1))] * len(values),
        features=np.zeros((len(values), 0)),
        workflows=[f"w{first}-{row}" for row in range(len(values))],
        values=values[:, None],
        targets=values,
    )


def test_intervals_in_new_frameworks_are_those_that_held_in_held_out_ones() -> None:
    covered, without = [], []
    for seed in range(4):
        model = QuantileModel("count").fit(frameworks(seed, [200, *[10] * 15]))
        new = frameworks(100 + seed, [5] * 30, first=50)
        covered.append(coverage(new.targets, model.predict(new)))
        model.elsewhere_ = None
        without.append(coverage(new.targets, model.predict(new)))
    assert 0.8 <= np.mean(covered) <= 0.97
    assert np.mean(without) < np.mean(covered) - 0.1


def test_known_frameworks_are_forecast_as_if_there_were_no_new_ones() -> None:
    rows = frameworks(0, [100, *[30] * 5])
    model = QuantileModel("count").fit(rows)
    before = model.predict(rows)
    model.elsewhere_ = None
    assert (model.predict(rows) == before).all()
    assert model.seen(rows.chains[0]) == 100
    assert model.seen(("all", "all main", "new/main")) == model.seen(("all", "all main")) == 0


def test_one_framework_says_nothing_about_others_and_multiples_of_the_prompt_do_not_carry_over() -> None:
    assert QuantileModel("count").fit(frameworks(0, [100])).elsewhere_ is None
    assert QuantileModel("multiple").fit(frameworks(0, [50, 50])).elsewhere_ is None


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
