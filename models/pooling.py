"""Quantiles of what several runs use together.

Adding up the bounds of single runs supposes that all of them hit their bound at once. Their sum is drawn instead: each
run by its own quantiles, with a share of luck in common, because runs of one workflow tend to be long together. How
large that share is, and how far the drawn quantiles have to move to hold, is learned from sums of held-out workflows.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from apportion.models.calibration import LEAST_WORKFLOWS, LEVELS, Conformal, pinball

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

DRAWS = 256
COLUMNS = 32
"""Draws of single runs that are kept; more runs take them again, in another order."""

COMMON = (0.0, 0.1, 0.2, 0.35, 0.5, 0.7)
"""Shares of luck in common that are tried."""

_NORMAL = NormalDist()
_END = 3.0
"""Standard normal score up to which the outer quantiles are extended."""

_SCORES = np.array([-_END, *map(_NORMAL.inv_cdf, LEVELS), _END])
_LEAST_WIDTH = 1e-3


def sum_bounds(members: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logarithms of the sums of single quantiles, shape (len(LEVELS),): what pooling improves on.

    Args:
        members: Logarithms of the quantiles of each run, shape (n, len(LEVELS)).
    """
    total: NDArray[np.float64] = np.log(np.exp(members).sum(axis=0))
    return total


class Pooling:
    """Learns to pool quantiles.

    Args:
        seed: Seed of the draws.

    Attributes:
        common_: Share of luck in common, in [0, 1).
        draws_: Standard normal scores: of what is common in the first column, of single runs in the others.
        conformal_: Offsets of pooled quantiles, in widths of the drawn interval.
        losses_: Loss of each share that was tried, on held-out workflows.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def fit(
        self,
        members: Sequence[NDArray[np.float64]],
        totals: NDArray[np.float64],
        chains: Sequence[Sequence[str]],
        workflows: Sequence[str],
    ) -> Pooling:
        """Learn from sums; from those of several runs alone where enough workflows have them.

        Args:
            members: For each sum, logarithms of the held-out quantiles of its runs, each of shape (runs, len(LEVELS)).
            totals: Logarithms of what the runs used together, shape (n,).
            chains: Groups of each sum, the widest first.
            workflows: Workflow of each sum.
        """
        kept = [row for row, each in enumerate(members) if len(each) > 1]
        if len({workflows[row] for row in kept}) < LEAST_WORKFLOWS:
            kept = list(range(len(members)))
        self._learn([members[r] for r in kept], totals[kept], [chains[r] for r in kept], [workflows[r] for r in kept])
        return self

    def _learn(
        self,
        members: Sequence[NDArray[np.float64]],
        totals: NDArray[np.float64],
        chains: Sequence[Sequence[str]],
        workflows: Sequence[str],
    ) -> None:
        rng = np.random.default_rng(self.seed)
        even = np.array([_NORMAL.inv_cdf((row + 0.5) / DRAWS) for row in range(DRAWS)])
        self.draws_ = np.stack([rng.permutation(even) for _ in range(COLUMNS + 1)], axis=1)
        self.losses_: dict[str, float] = {}
        drawn = {}
        for share in COMMON:
            self.common_ = share
            drawn[share] = np.array([self._drawn(each) for each in members])
            self.losses_[str(share)] = float(pinball(totals, drawn[share]).mean())
        self.common_ = min(COMMON, key=lambda share: self.losses_[str(share)])
        chosen = drawn[self.common_]
        self.conformal_ = Conformal().fit(chains, (totals[:, None] - chosen) / _width(chosen), workflows)

    def _drawn(self, members: NDArray[np.float64]) -> NDArray[np.float64]:
        if len(members) == 1:
            alone: NDArray[np.float64] = members[0]
            return alone
        total = np.zeros(DRAWS)
        common = np.sqrt(self.common_) * self.draws_[:, 0]
        for number, levels in enumerate(members):
            column = np.roll(self.draws_[:, 1 + number % COLUMNS], 17 * (number // COLUMNS))
            total += np.exp(np.interp(common + np.sqrt(1.0 - self.common_) * column, _SCORES, _extended(levels)))
        found: NDArray[np.float64] = np.log(np.quantile(total, LEVELS))
        return found

    def predict(self, members: NDArray[np.float64], groups: Sequence[str]) -> NDArray[np.float64]:
        """Return the logarithms of the quantiles of a sum at `LEVELS`, shape (len(LEVELS),); they never cross.

        One run alone is its own forecast.

        Args:
            members: Logarithms of the quantiles of its runs, shape (runs, len(LEVELS)).
            groups: Groups of the sum, the widest first.
        """
        drawn = self._drawn(members)
        if len(members) == 1:
            return drawn
        return np.sort(drawn + self.conformal_.offsets(groups) * _width(drawn[None])[0])


def _extended(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return quantiles with one more at each end, on the line through the two outer ones."""
    low = levels[0] - (levels[1] - levels[0]) * (_SCORES[1] - _SCORES[0]) / (_SCORES[2] - _SCORES[1])
    high = levels[-1] + (levels[-1] - levels[-2]) * (_SCORES[-1] - _SCORES[-2]) / (_SCORES[-2] - _SCORES[-3])
    return np.array([low, *levels, high])


def _width(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the width of each 90 % interval, shape (n, 1)."""
    return np.maximum(drawn[:, -1:] - drawn[:, :1], _LEAST_WIDTH)
