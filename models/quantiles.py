"""Quantiles of one target: shrunk down the hierarchy, boosted where that wins, calibrated.

All targets are logarithms of counts. A target is observed as a few numbers (a call: its output; a run: calls, growth
and output per call), and `Measure` says what these would come to from the prompt at hand: thirty calls cost another
total when they begin with 20,000 tokens than with 150,000.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from apportion.models.boosting import CORNERS, Boosting
from apportion.models.calibration import LEVELS, Conformal, even_offsets, pinball
from apportion.models.shrinkage import SHARED, Shrinkage, framework_of, quantiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

OWN_WEIGHTS = (2.0, 5.0, 10.0, 20.0, 40.0)
"""What all other workflows may be worth in observations of the running one; the data decide."""

SAMPLE = 4_000
"""Rows on which they decide."""

FOLDS = 5
CHOOSING = 2
"""On so many of the folds it is decided whether boosting is used; the others calibrate it, and need more workflows."""

BLOCK = 512
"""Rows predicted at once; bounds the memory."""

MOST_BOOSTED = 8_000
"""Rows from which boosting learns at most; bounds the time of training."""

LEAST_TO_BOOST = 50
"""Workflows from which on boosting is tried."""

LEAST_GAIN = 0.01
"""By which share boosting has to lower the loss on the workflows on which it is chosen; it has to win in each fold."""

_SPREAD = np.array([np.interp(level, [LEVELS[corner] for corner in CORNERS], [0.0, 1.0, 2.0]) for level in LEVELS])
"""Where each level lies between the three that are boosted."""


class Measure(StrEnum):
    """What observations come to from a prompt of C tokens, as a logarithm."""

    COUNT = "count"
    """(ln(1 + count),): itself, whatever the prompt."""

    MULTIPLE = "multiple"
    """(ln(total / C),): that multiple of the prompt."""

    RUN = "run"
    """(calls n, growth g, output o): ln of n C + g n (n - 1) / 2 + n o."""

    @property
    def columns(self) -> int:
        """How many numbers an observation has."""
        return 3 if self is Measure.RUN else 1

    def of(self, values: NDArray[np.float64], prompts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the logarithms of shape s, given observations, shape (*s, d), and prompt tokens that fit to s."""
        if self is Measure.COUNT:
            return values[..., 0]
        if self is Measure.MULTIPLE:
            multiple: NDArray[np.float64] = values[..., 0] + np.log1p(prompts)
            return multiple
        calls, growth, output = values[..., 0], values[..., 1], values[..., 2]
        total: NDArray[np.float64] = np.log1p(calls * (prompts + output) + growth * calls * (calls - 1.0) / 2.0)
        return total


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What a target is learned from, or predicted for.

    Attributes:
        chains: Groups of each row, the widest first.
        prompts: Prompt tokens, shape (n,).
        histories: Earlier observations of the same workflow, each of shape (any, d).
        features: Shape (n, n_features), NaN where unknown; empty columns where nothing but the groups is known.
        workflows: Workflow of each row; only to learn from.
        values: Observations, shape (n, d); only to learn from.
        targets: Logarithms of what each came to in fact, shape (n,); only to learn from. Observations of runs give it
            back only where the prompt grows evenly.
    """

    chains: Sequence[tuple[str, ...]]
    prompts: NDArray[np.float64]
    histories: Sequence[NDArray[np.float64]]
    features: NDArray[np.float64]
    workflows: Sequence[str] = ()
    values: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 1)))
    targets: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def __len__(self) -> int:
        return len(self.chains)

    def at(self, rows: NDArray[np.intp]) -> Rows:
        """Return some of the rows."""
        return Rows(
            [self.chains[row] for row in rows],
            self.prompts[rows],
            [self.histories[row] for row in rows],
            self.features[rows],
            [self.workflows[row] for row in rows],
            self.values[rows],
            self.targets[rows],
        )


def fold_of(workflows: Sequence[str], folds: int, seed: int) -> NDArray[np.intp]:
    """Return a fold for each row, shape (n,); rows of one workflow share it."""
    names = sorted(set(workflows))
    order = np.random.default_rng(seed).permutation(len(names))
    number = {name: int(place) % folds for name, place in zip(names, order, strict=True)}
    return np.array([number[name] for name in workflows], dtype=np.intp)


class QuantileModel:
    """Learns the quantiles of one target.

    Args:
        measure: What its observations are, a value of `Measure`.
        boost: Whether boosting is tried at all.
        seed: Seed of folds and learner.

    Attributes:
        shrinkage_: The distributions of the groups.
        own_weight_: What all other workflows are worth in observations of the running one.
        conformal_: Offsets of the shrunk quantiles.
        boosting_: The corrections, or `None` where they did not win.
        boosted_conformal_: Offsets of the boosted quantiles, or `None`.
        elsewhere_: Offsets of the shrunk quantiles of callers whose framework is new, shape (len(LEVELS),), learned by
            holding out each framework in turn; `None` where only one was seen, and for multiples of the prompt.
        report_: Numbers behind the decisions: losses in log units on held-out workflows.
    """

    def __init__(self, measure: str, *, boost: bool = True, seed: int = 0) -> None:
        self.measure = measure
        self.boost = boost
        self.seed = seed

    def fit(self, rows: Rows) -> QuantileModel:
        """Learn from rows of at least as many workflows as there are folds."""
        targets = rows.targets
        self.report_: dict[str, Any] = {"rows": len(rows), "workflows": len(set(rows.workflows))}
        self._choose_own_weight(rows, targets)
        shrunk = self._held_out(rows, self._folds(rows))
        self.report_["loss_shrunk"] = float(pinball(targets, shrunk).mean())
        self.shrinkage_ = Shrinkage().fit(rows.chains, rows.values, rows.workflows)
        self.conformal_ = Conformal().fit(rows.chains, targets[:, None] - shrunk, rows.workflows)
        self.elsewhere_ = self._learned_elsewhere(rows, targets)
        self.boosting_: Boosting | None = None
        self.boosted_conformal_: Conformal | None = None
        if self.boost and self.report_["workflows"] >= LEAST_TO_BOOST:
            self._try_boosting(rows, targets, shrunk)
        return self

    def held_out(self, rows: Rows) -> NDArray[np.float64]:
        """Return quantiles of the rows it was fitted on, each learned without its workflow, without boosting."""
        return self._calibrated(rows, self._held_out(rows, self._folds(rows)), self.conformal_)

    def _choose_own_weight(self, rows: Rows, targets: NDArray[np.float64]) -> None:
        some = np.sort(np.random.default_rng(self.seed).permutation(len(rows))[:SAMPLE])
        sample, losses = rows.at(some), {}
        for weight in OWN_WEIGHTS if any(map(len, rows.histories)) else OWN_WEIGHTS[-1:]:
            self.own_weight_ = weight
            losses[weight] = float(pinball(targets[some], self._held_out(sample, self._folds(sample))).mean())
        self.own_weight_ = min(losses, key=losses.__getitem__)
        self.report_["own_weight"] = self.own_weight_

    def _folds(self, rows: Rows) -> NDArray[np.intp]:
        return fold_of(rows.workflows, FOLDS, self.seed)

    def _learned_elsewhere(self, rows: Rows, targets: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Learn offsets for new frameworks, by holding out each in turn.

        Multiples of the prompt get none: frameworks differ so much in how many calls a stage has that what a few teach
        widens intervals more than a hundredfold, and they hold hardly more often.
        """
        names, framework = np.unique([framework_of(groups) for groups in rows.chains], return_inverse=True)
        if len(names) == 1 or self.measure == Measure.MULTIPLE:
            return None
        return even_offsets(targets[:, None] - self._held_out(rows, framework), framework)

    def _held_out(self, rows: Rows, folds: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return shrunk quantiles of each row, learned from the rows of other folds, shape (n, len(LEVELS))."""
        found = np.empty((len(rows), len(LEVELS)))
        for fold in np.unique(folds):
            train, test = rows.at(np.flatnonzero(folds != fold)), np.flatnonzero(folds == fold)
            shrinkage = Shrinkage().fit(train.chains, train.values, train.workflows)
            found[test] = self._shrunk(shrinkage, rows.at(test))
        return found

    def _shrunk(self, shrinkage: Shrinkage, rows: Rows) -> NDArray[np.float64]:
        found = np.empty((len(rows), len(LEVELS)))
        for start in range(0, len(rows), BLOCK):
            block = slice(start, start + BLOCK)
            values, weights = shrinkage.mixtures(rows.chains[block], rows.histories[block], self.own_weight_)
            found[block] = quantiles(Measure(self.measure).of(values, rows.prompts[block, None]), weights, LEVELS)
        return found

    def _try_boosting(self, rows: Rows, targets: NDArray[np.float64], shrunk: NDArray[np.float64]) -> None:
        """Use boosting where it wins on some folds, and calibrate it on the others.

        Held-out rows on which it happened to win would flatter it, and its intervals would come out too narrow.
        """
        folds = self._folds(rows)
        choosing = folds < CHOOSING
        boosted = self._held_out_boosted(rows, targets, shrunk, folds, range(CHOOSING))
        losses = [pinball(targets, each) for each in (shrunk, boosted)]
        gains = [float(1.0 - losses[1][folds == n].mean() / losses[0][folds == n].mean()) for n in range(CHOOSING)]
        before, after = (float(each[choosing].mean()) for each in losses)
        wins = after < (1.0 - LEAST_GAIN) * before and min(gains) > 0
        self.report_ |= {"chosen_on": [before, after], "gains_boosted": gains, "boosted": wins}
        if wins:
            boosted = self._held_out_boosted(rows, targets, shrunk, folds, range(CHOOSING, FOLDS))
            kept = rows.at(np.flatnonzero(~choosing))
            residuals = kept.targets[:, None] - boosted[~choosing]
            self.report_["loss_boosted"] = float(pinball(kept.targets, boosted[~choosing]).mean())
            self.boosting_ = self._boosting(rows, targets, shrunk)
            self.boosted_conformal_ = Conformal().fit(kept.chains, residuals, kept.workflows)

    def _held_out_boosted(
        self,
        rows: Rows,
        targets: NDArray[np.float64],
        shrunk: NDArray[np.float64],
        folds: NDArray[np.intp],
        numbers: Sequence[int],
    ) -> NDArray[np.float64]:
        """Return boosted quantiles of the rows of some folds, learned from all others; elsewhere the shrunk ones."""
        boosted = shrunk.copy()
        for fold in numbers:
            train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            inner = rows.at(train)
            learner = self._boosting(inner, targets[train], self._held_out(inner, self._folds(inner)))
            boosted[test] = _corrected(learner, rows.features[test], shrunk[test])
        return boosted

    def _boosting(self, rows: Rows, targets: NDArray[np.float64], shrunk: NDArray[np.float64]) -> Boosting:
        some = np.sort(np.random.default_rng(self.seed).permutation(len(rows))[:MOST_BOOSTED])
        corners = shrunk[some][:, CORNERS]
        return Boosting(self.seed).fit(np.hstack([rows.features[some], corners]), targets[some, None] - corners)

    def predict(self, rows: Rows) -> NDArray[np.float64]:
        """Return calibrated quantiles at `LEVELS`, shape (n, len(LEVELS)), as logarithms; they never cross.

        Boosting takes part where rows have features, and their framework is known.
        """
        shrunk = self._shrunk(self.shrinkage_, rows)
        if self.boosting_ is None or self.boosted_conformal_ is None or not rows.features.shape[1]:
            found = self._calibrated(rows, shrunk, self.conformal_)
        else:
            found = self._calibrated(rows, _corrected(self.boosting_, rows.features, shrunk), self.boosted_conformal_)
        if self.elsewhere_ is not None:
            new = [not self._knows_framework(groups) for groups in rows.chains]
            found[new] = _in_order(shrunk[new] + self.elsewhere_)
        return found

    def _knows_framework(self, groups: Sequence[str]) -> bool:
        return self.shrinkage_.group(groups) not in groups[:SHARED]

    def seen(self, groups: Sequence[str]) -> int:
        """Return how many observations the narrowest known group has; 0 where nothing is known of the framework.

        Observations of other frameworks make a forecast, but do not tell how far to trust it.
        """
        known = self._knows_framework(groups)
        return self.shrinkage_.examples_[self.shrinkage_.group(groups)] if known else 0

    def _calibrated(self, rows: Rows, raw: NDArray[np.float64], conformal: Conformal) -> NDArray[np.float64]:
        return _in_order(raw + np.array([conformal.offsets(groups) for groups in rows.chains]))


def _in_order(moved: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sort(np.maximum(moved, 0.0), axis=1)


def _corrected(boosting: Boosting, features: NDArray[np.float64], shrunk: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return shrunk quantiles with their corrections; levels between two that are boosted move by both."""
    corrections = boosting.predict(np.hstack([features, shrunk[:, CORNERS]]))
    lower = np.minimum(_SPREAD.astype(int), len(CORNERS) - 2)
    part = _SPREAD - lower
    moved = shrunk + corrections[:, lower] * (1.0 - part) + corrections[:, lower + 1] * part
    return np.sort(moved, axis=1)
