from __future__ import annotations

import numpy as np
import pytest

from apportion.models.boosting import CORNERS, DEPTH, ITERATIONS, LEARNING_RATE, LEAVES, Boosting
from apportion.models.calibration import LEVELS


def examples(seed: int, rows: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Features, some unknown and one never known, and residuals that depend on two of them."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((rows, 5))
    features[rng.random((rows, 5)) < 0.2] = np.nan
    features[:, 4] = np.nan
    signal = np.where(np.isnan(features[:, 0]), 2.0, np.sign(features[:, 0])) + 0.5 * np.nan_to_num(features[:, 1])
    return features, np.tile((signal + 0.1 * rng.standard_normal(rows))[:, None], (1, len(CORNERS)))


@pytest.mark.parametrize("seed", range(3))
def test_the_arrays_predict_what_scikit_learn_predicts(seed: int) -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor

    features, residuals = examples(seed)
    found = Boosting(seed=seed).fit(features, residuals).predict(features)
    for corner, position in enumerate(CORNERS):
        learner = HistGradientBoostingRegressor(
            loss="quantile",
            quantile=LEVELS[position],
            max_iter=ITERATIONS,
            learning_rate=LEARNING_RATE,
            max_leaf_nodes=LEAVES,
            max_depth=DEPTH,
            min_samples_leaf=30,
            early_stopping=False,
            random_state=seed,
        )
        known = np.where(np.isnan(features).all(axis=0), 0.0, features)
        assert np.allclose(found[:, corner], learner.fit(known, residuals[:, corner]).predict(known), atol=1e-12)


def test_what_depends_on_features_is_learned() -> None:
    model = Boosting().fit(*examples(1))
    features, residuals = examples(2)
    found = model.predict(features)
    assert np.mean(np.abs(residuals[:, 1] - found[:, 1])) < 0.5 * np.mean(np.abs(residuals[:, 1]))
    below = [np.mean(residuals[:, corner] < found[:, corner]) for corner in range(len(CORNERS))]
    assert below[0] < 0.3
    assert below[2] > 0.7


def test_rows_are_predicted_alike_alone_and_together() -> None:
    model = Boosting().fit(*examples(1))
    features, _ = examples(3, rows=20)
    assert np.array_equal(np.concatenate([model.predict(row[None]) for row in features]), model.predict(features))


def test_a_feature_that_was_never_known_cannot_matter() -> None:
    model = Boosting().fit(*examples(1))
    features, _ = examples(3, rows=20)
    told = features.copy()
    told[:, 4] = 1e6
    assert np.array_equal(model.predict(told), model.predict(features))
