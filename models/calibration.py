"""Split-conformal calibration of quantiles: what a forecast claims, held-out workflows have to bear out.

Each quantile is moved by an offset such that the stated share of held-out values lies below it: conformalised quantile
regression with one offset per tail (Romano, Patterson and Candès, 2019). The correction for a finite sample of n values
is (n + 1) / n. But values of one workflow resemble each other, so n is the effective sample size: all values where
workflows do not matter, down to about the number of workflows where they are everything (Kish's design effect).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from apportion.models.shrinkage import quantiles

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
"""Probabilities of the quantiles that are learned; the outer two are the 90 % interval."""

LEAST_WORKFLOWS = 20
"""Workflows that a group needs to be calibrated by itself: one less cannot bear out a quantile at 0.95."""


FINEST = 4
"""How many groups of a chain are calibrated by themselves: down to the agent type, not each model and project."""


def effective_size(values: NDArray[np.float64], workflows: Sequence[Hashable]) -> float:
    """Return how many independent values the given ones are worth, in [1, n].

    It is n / (1 + (m - 1) r): m is the number of values in the workflow of an average value, r the correlation of the
    ranks within workflows (analysis of variance).

    >>> effective_size(np.array([1.0, 1.0, 5.0, 5.0, 9.0, 9.0]), ["a", "a", "b", "b", "c", "c"])
    3.0
    """
    _, member, sizes = np.unique(np.asarray(workflows), return_inverse=True, return_counts=True)
    n, groups = len(values), len(sizes)
    if groups in {1, n}:
        return float(groups)
    ranks = np.searchsorted(np.sort(values), values) / n
    means = np.bincount(member, ranks) / sizes
    within = float(((ranks - means[member]) ** 2).sum()) / (n - groups)
    between = float((sizes * (means - ranks.mean()) ** 2).sum()) / (groups - 1)
    usual = (n - float((sizes**2).sum()) / n) / (groups - 1)
    spread = between + (usual - 1.0) * within
    correlation = max(0.0, (between - within) / spread) if spread > 0.0 else 1.0
    return n / (1.0 + (float((sizes**2).sum()) / n - 1.0) * correlation)


def conformal_level(level: float, size: float) -> float:
    """Return the empirical level at which a quantile has to be taken to hold for the next value, in [0, 1].

    >>> round(conformal_level(0.95, 99), 4), round(conformal_level(0.05, 99), 4), conformal_level(0.5, 99)
    (0.9596, 0.0404, 0.5)
    """
    factor = (size + 1.0) / size
    if level > 0.5:
        return min(1.0, level * factor)
    return max(0.0, 1.0 - (1.0 - level) * factor) if level < 0.5 else 0.5


def conformal_offsets(residuals: NDArray[np.float64], workflows: Sequence[Hashable]) -> NDArray[np.float64]:
    """Return by how much each quantile has to move, shape (len(LEVELS),).

    Args:
        residuals: Held-out value minus each quantile, shape (n, len(LEVELS)).
        workflows: Workflow of each value.
    """
    found = np.empty(len(LEVELS))
    for column, level in enumerate(LEVELS):
        method: Literal["higher", "lower", "linear"] = "higher" if level > 0.5 else "lower" if level < 0.5 else "linear"
        size = effective_size(residuals[:, column], workflows)
        found[column] = np.quantile(residuals[:, column], conformal_level(level, size), method=method)
    return found


def even_offsets(residuals: NDArray[np.float64], group: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return by how much each quantile has to move where all groups count alike, shape (len(LEVELS),).

    A group that is new resembles some of those that were seen, the small ones as likely as the large ones. How well
    that holds depends on how many there were: no correction for a finite sample makes up for few.

    Args:
        residuals: Value minus each quantile, shape (n, len(LEVELS)), found without the value's group.
        group: Number of the group of each value, shape (n,).
    """
    weights = 1.0 / np.bincount(group)[group]
    shares = (weights / weights.sum())[None]
    found = [quantiles(residuals[:, [column]].T, shares, (level,))[0, 0] for column, level in enumerate(LEVELS)]
    return np.array(found)


class Conformal:
    """Learns offsets of quantiles for each group with enough workflows; others take those of the group above.

    Args:
        least_workflows: Workflows that a group needs.

    Attributes:
        offsets_: Offset of each quantile, by group.
        counts_: Workflows on which they were calibrated, by group.
    """

    def __init__(self, least_workflows: int = LEAST_WORKFLOWS) -> None:
        self.least_workflows = least_workflows

    def fit(
        self, chains: Sequence[Sequence[str]], residuals: NDArray[np.float64], workflows: Sequence[Hashable]
    ) -> Conformal:
        """Learn from held-out residuals.

        Args:
            chains: Groups of each, the widest first; the first one is shared by all.
            residuals: Value minus each quantile, shape (n, len(LEVELS)).
            workflows: Workflow of each.
        """
        members: dict[str, list[int]] = {}
        for position, groups in enumerate(chains):
            for group in groups[:FINEST]:
                members.setdefault(group, []).append(position)
        counts = {group: len({workflows[row] for row in rows}) for group, rows in members.items()}
        self.counts_ = {g: n for g, n in counts.items() if n >= self.least_workflows or g == chains[0][0]}
        self.offsets_ = {
            group: conformal_offsets(residuals[members[group]], [workflows[row] for row in members[group]])
            for group in self.counts_
        }
        return self

    def group(self, groups: Sequence[str]) -> str:
        """Return the narrowest of some groups that was calibrated."""
        return next(group for group in reversed(groups) if group in self.offsets_)

    def offsets(self, groups: Sequence[str]) -> NDArray[np.float64]:
        """Return the offsets for a value of some groups, shape (len(LEVELS),)."""
        found: NDArray[np.float64] = self.offsets_[self.group(groups)]
        return found


def coverage(values: NDArray[np.float64], quantiles: NDArray[np.float64]) -> float:
    """Return the share of values within the 90 % interval, in [0, 1]; quantiles have shape (n, len(LEVELS))."""
    return float(np.mean((values >= quantiles[:, 0]) & (values <= quantiles[:, -1])))


def pinball(values: NDArray[np.float64], quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean pinball loss over the levels of each value, shape (n,), in the unit of the values."""
    missed = values[:, None] - quantiles
    levels = np.asarray(LEVELS)
    loss: NDArray[np.float64] = np.maximum(levels * missed, (levels - 1.0) * missed).mean(axis=1)
    return loss
