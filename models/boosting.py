"""Gradient boosting of what shrunk quantiles leave over, kept as plain arrays.

scikit-learn learns the trees (`HistGradientBoostingRegressor` with quantile loss, one for each of three levels). They
are then copied into arrays, for two reasons: ten agents are forecast in less time than its checks of input take, and
what is saved to a file is arrays and nothing that runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from apportion.models.calibration import LEVELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

CORNERS = (0, 3, 6)
"""Positions in `LEVELS` of the levels that are boosted: 5 %, 50 % and 95 %; the others are moved in between."""

ITERATIONS = 60
LEARNING_RATE = 0.05
LEAVES = 8
DEPTH = 4
"""Small trees: the data are thousands of examples, and each level of depth costs prediction time."""


class Boosting:
    """Learns corrections of quantiles from features.

    Args:
        seed: Seed of the learner.

    Attributes:
        known_: Which features were ever known, shape (n_features,); the others are passed over.
        feature_: Feature on which each node splits, shape (trees, nodes); the trees of a level stand together.
        threshold_: Up to which value it sends a row to the left.
        left_: Node to the left; a leaf names itself.
        right_: Node to the right.
        unknown_left_: Whether rows whose feature is unknown go to the left.
        value_: What each leaf adds.
        baseline_: Where each level begins, shape (3,).
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, features: NDArray[np.float64], residuals: NDArray[np.float64]) -> Boosting:
        """Learn from what is left over.

        Args:
            features: Shape (n, n_features), NaN where unknown.
            residuals: Value minus each of the three quantiles, shape (n, 3).
        """
        self.known_ = ~np.isnan(features).all(axis=0)
        used = self._used(features)
        learners = [self._learn(used, residuals[:, corner], LEVELS[CORNERS[corner]]) for corner in range(len(CORNERS))]
        self.baseline_ = np.array([float(np.ravel(learner._baseline_prediction)[0]) for learner in learners])  # noqa: SLF001
        trees = [stage[0].nodes for learner in learners for stage in learner._predictors]  # noqa: SLF001
        self._copy(trees)
        return self

    def _learn(self, features: NDArray[np.float64], residuals: NDArray[np.float64], level: float) -> Any:
        from sklearn.ensemble import HistGradientBoostingRegressor
        from threadpoolctl import threadpool_limits

        learner = HistGradientBoostingRegressor(
            loss="quantile",
            quantile=level,
            max_iter=ITERATIONS,
            learning_rate=LEARNING_RATE,
            max_leaf_nodes=LEAVES,
            max_depth=DEPTH,
            min_samples_leaf=min(40, max(5, len(features) // 20)),
            early_stopping=False,
            random_state=self.seed,
        )
        with threadpool_limits(limits=1, user_api="openmp"):  # on a busy machine, its threads wait for each other
            return learner.fit(features, residuals)

    def _copy(self, trees: list[NDArray[np.void]]) -> None:
        shape = (len(trees), max(map(len, trees)))
        self.feature_ = np.zeros(shape, dtype=np.int32)
        self.threshold_ = np.zeros(shape)
        self.left_ = np.tile(np.arange(shape[1], dtype=np.int32), (shape[0], 1))
        self.right_ = self.left_.copy()
        self.unknown_left_ = np.zeros(shape, dtype=np.bool_)
        self.value_ = np.zeros(shape)
        for row, nodes in enumerate(trees):
            inner = np.flatnonzero(nodes["is_leaf"] == 0)
            self.value_[row, : len(nodes)] = nodes["value"]
            self.feature_[row, inner] = nodes["feature_idx"][inner]
            self.threshold_[row, inner] = nodes["num_threshold"][inner]
            self.left_[row, inner] = nodes["left"][inner]
            self.right_[row, inner] = nodes["right"][inner]
            self.unknown_left_[row, inner] = nodes["missing_go_to_left"][inner] != 0

    def _used(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        used: NDArray[np.float64] = np.where(self.known_, features, 0.0)
        return used

    def predict(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the correction of each of the three quantiles, shape (n, 3), given features, shape (n, n_features)."""
        used = self._used(features)
        trees, nodes = self.feature_.shape
        start = np.arange(trees, dtype=np.intp) * nodes
        rows = np.arange(len(used), dtype=np.intp)[:, None] * used.shape[1]
        at = np.tile(start, (len(used), 1))
        feature, threshold, unknown_left = self.feature_.ravel(), self.threshold_.ravel(), self.unknown_left_.ravel()
        left, right, flat = self.left_.ravel(), self.right_.ravel(), used.ravel()
        for _ in range(DEPTH):
            seen = flat.take(feature.take(at) + rows)
            goes_left = (seen <= threshold.take(at)) | (np.isnan(seen) & unknown_left.take(at))
            at = start + np.where(goes_left, left.take(at), right.take(at))
        values = self.value_.ravel().take(at).reshape(len(used), len(CORNERS), -1)
        corrections: NDArray[np.float64] = values.sum(axis=2) + self.baseline_
        return corrections
