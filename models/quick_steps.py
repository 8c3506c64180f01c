"""The same forecasts of steps as those of `experts` and `mixture`, in a tenth of the time.

From one step to the next little changes: the text is the same, and contexts of a few names come again and again. What
depends on those alone is weighed, added up and kept; only what depends on which names came lately is done anew for each
forecast, in a few operations. Sums are taken in another order than by `Mixture`, so that probabilities differ by
rounding and by nothing else: a test compares the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from apportion.models.experts import EXPERTS, NEW, STARTS, even_base, return_shares
from apportion.models.step_classifier import LENGTHS
from apportion.models.trails import END

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from numpy.typing import NDArray

    from apportion.models.experts import StepExperts
    from apportion.models.mixture import Mixture
    from apportion.models.trails import Step

T = TypeVar("T")

MOST_KEPT = 8192
"""Rows of probabilities that are kept; beyond that all are forgotten. With 200 names they take 13 MB."""

_END, _OTHER = 0, 1
"""Positions of `END` and `OTHER` among the outcomes of experts."""


class _About(NamedTuple):
    """What rows are kept by: where a step is, whose weights count, whether there is a text, how many names."""

    here: str
    source: str | None
    reads: bool
    size: int


class _ByName(NamedTuple):
    """What the latest names say: weighed opinions, and the distribution from which a new name is drawn."""

    weighed: NDArray[np.float64]
    drawn: NDArray[np.float64]


class QuickSteps:
    """Experts and a mixture of them, prepared for many forecasts; neither may learn anything meanwhile.

    Args:
        experts: The experts.
        mixture: How they are mixed and calibrated.
    """

    def __init__(self, experts: StepExperts, mixture: Mixture) -> None:
        self.experts = experts
        self.mixture = mixture
        self._names = list(experts.outcomes_)
        self._rows: dict[Hashable, NDArray[np.float64]] = {}
        self._by_names: dict[Hashable, _ByName] = {}
        self._shares: dict[Hashable, tuple[float, ...]] = {}

    def probabilities(self, step: Step, source: str | None) -> tuple[list[str], list[float]]:
        """Return all possible names of a step and their calibrated probabilities, the likeliest first.

        Args:
            step: The step; its own name is not looked at.
            source: Whose weights and calibration count, or `None` for those of all sources.
        """
        outcomes = self.experts.outcomes_
        recent = [name for name in dict.fromkeys(reversed(step.history)) if name != END]
        unknown = [name for name in recent if name not in outcomes]
        places = [outcomes.get(name, _END) for name in recent]
        if unknown:
            ahead = {name: len(self._names) + nth for nth, name in enumerate(unknown)}
            places = [place or ahead[name] for name, place in zip(recent, places, strict=True)]
        mixed = self._mixed(step, source, places, len(self._names) + len(unknown))
        calibrated = self._calibrated(mixed, source)
        order = (-calibrated).argsort(kind="stable")
        names = self._names + unknown if unknown else self._names
        return [names[nth] for nth in order.tolist()], calibrated[order].tolist()

    def _mixed(self, step: Step, source: str | None, places: list[int], size: int) -> NDArray[np.float64]:
        """Return the weighed mean of the opinions, shape (size,), given the places of the latest names."""
        about = _About(step.source, source, bool(step.text), size)
        by_name = self._by_name(about, step)
        shares = self._returns(about, step, len(places))
        mixed = by_name.drawn.copy()
        mixed[_END] = 0.0
        for place in places:  # a few: quicker than indexing by a list
            if place != _OTHER:
                mixed[place] = 0.0
        mixed *= shares[0] / float(np.add.reduce(mixed))
        mixed += by_name.weighed
        for nth in range(len(self.experts.classifiers_)):
            said = self._classified(nth, about, step)
            if said is not None:
                mixed += said
        mixed[_END] += shares[1]
        for place, share in zip(places, shares[2:], strict=True):
            mixed[place] += share
        return mixed

    def _calibrated(self, mixed: NDArray[np.float64], source: str | None) -> NDArray[np.float64]:
        """Give the likeliest its confidence, and scale the others; as `Mixture.probabilities`."""
        top = int(mixed.argmax())
        confidence = self.mixture.calibration_.confidence(float(mixed[top]), source)
        mixed[top] = 0.0
        rest = float(np.add.reduce(mixed))
        second = float(mixed.max()) / rest
        confidence = max(confidence, second / (1 + second))
        mixed *= (1 - confidence) / rest
        mixed[top] = confidence
        return mixed

    def _weights(self, about: _About) -> tuple[float, ...]:
        """Return the weight of each expert, 0 for one that has nothing to say; they add up to 1."""
        return _kept(self._shares, about, lambda: self._worked_out_weights(about))

    def _worked_out_weights(self, about: _About) -> tuple[float, ...]:
        experts, weights, here = self.experts, self.mixture.weights_, about.here
        taught = [bool(classifier.weights_.size) and here in experts.names_ for classifier in experts.classifiers_]
        heard = [True, here in experts.names_, True, here in experts.patterns_, taught[0], taught[1] and about.reads]
        given = weights.get(about.source, weights[None]) * heard
        return tuple((given / given.sum()).tolist())

    def _by_name(self, about: _About, step: Step) -> _ByName:
        before = step.history[-self.experts.max_order :] if self.experts.max_order else ()
        started = len(step.history) < self.experts.max_order
        latest = (f"^{step.agent or ''}", *before) if started else before
        return _kept(self._by_names, (about, latest), lambda: self._worked_out_by_name(about, latest))

    def _worked_out_by_name(self, about: _About, latest: Sequence[str]) -> _ByName:
        weights, base = self._weights(about), even_base(about.size)
        said = [
            (weight, counts.probabilities(latest, base, self.experts.outcomes_))
            for weight, source in zip(weights[:2], (None, about.here), strict=True)
            if (counts := self.experts.names_.get(source)) is not None
        ]
        return _ByName(np.add.reduce([weight * row for weight, row in said]), said[-1][1])

    def _returns(self, about: _About, step: Step, recent: int) -> tuple[float, ...]:
        """Return the weighed shares of a new name, the end, and each of the latest names."""
        latest = _latest_ranks(step.history, self.experts.max_order)
        return _kept(self._shares, (about, latest, recent), lambda: self._worked_out_returns(about, latest, recent))

    def _worked_out_returns(self, about: _About, latest: Sequence[str], recent: int) -> tuple[float, ...]:
        said = [
            weight * return_shares(counts, latest, recent)
            for weight, source in zip(self._weights(about)[2:4], (None, about.here), strict=True)
            if (counts := self.experts.patterns_.get(source)) is not None
        ]
        return tuple(np.add.reduce(said).tolist())

    def _classified(self, nth: int, about: _About, step: Step) -> NDArray[np.float64] | None:
        """Return what a classifier says, weighed, shape (size,), or `None` where it has nothing to say."""
        weight = self._weights(about)[len(EXPERTS) - len(self.experts.classifiers_) + nth]
        if not weight:
            return None
        history, reads = step.history, self.experts.classifiers_[nth].reads_text
        view = step.agent, history[-2:], min(len(history), LENGTHS), step.text if reads else None
        return _kept(self._rows, (about, nth, view), lambda: self._worked_out_class(nth, about.size, step, weight))

    def _worked_out_class(self, nth: int, size: int, step: Step, weight: float) -> NDArray[np.float64]:
        said = self.experts.classified(nth, step, even_base(size))
        assert said is not None
        return weight * said


def _latest_ranks(history: Sequence[str], most: int) -> tuple[str, ...]:
    """Return the latest ranks of a history, as `experts.pattern` gives them, behind the mark of its beginning."""
    first = max(0, len(history) - most)
    ranks = tuple(_rank(history[:nth], history[nth]) for nth in range(first, len(history)))
    return (STARTS, *ranks) if len(history) < most else ranks


def _rank(before: Sequence[str], name: str) -> str:
    if name == END:
        return END
    if name not in before:
        return NEW
    since = before[len(before) - before[::-1].index(name) :]
    return str(len({*since} - {END}))


def _kept(kept: dict[Hashable, T], key: Hashable, work_out: Callable[[], T]) -> T:
    """Return what was worked out before, or work it out."""
    found = kept.get(key)
    if found is None:
        found = work_out()
        if len(kept) >= MOST_KEPT:
            kept.clear()
        kept[key] = found
    return found
