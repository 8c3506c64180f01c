"""Mixing the experts' opinions on the next step, and calibrating what comes out, from held-out forecasts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from apportion.models.experts import EXPERTS, OTHER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from apportion.models.experts import Opinions

PRIOR_STEPS = 20
"""How many held-out steps of a source the weights of all sources are worth."""

CORRECTION_SCALE = 0.25
"""How freely the calibration of a source may differ: standard deviation of slope and intercept before any data."""

LEAST_PROBABILITY = 0.002
"""Probabilities nearer to 0 or 1 are taken as this near."""

ITERATIONS = 60
"""Rounds of expectation maximisation; the weights hardly change after 30."""

ANCHORS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Invented steps at which probabilities are right; they steady a calibration that is learned from few."""


class Held(NamedTuple):
    """A step of a workflow that was held out.

    Attributes:
        source: Where the workflow comes from.
        opinions: What experts that had not seen the workflow said.
        name: The step that came.
        samples: How many learned steps followed the same step.
    """

    source: str
    opinions: Opinions
    name: str
    samples: int


class Calibration(NamedTuple):
    """A logistic curve over log odds (Platt 1999), corrected for each known source.

    Attributes:
        slope: Slope over all sources.
        intercept: Intercept over all sources.
        corrections: What is added to slope and intercept in a source, drawn towards 0.
    """

    slope: float = 1.0
    intercept: float = 0.0
    corrections: Mapping[str, tuple[float, float]] = {}

    def confidence(self, probability: float, source: str | None) -> float:
        """Return how often a step of that probability comes, in (0, 1)."""
        slope, intercept = (0.0, 0.0) if source is None else self.corrections.get(source, (0.0, 0.0))
        # A curve that falls would prefer doubt to certainty: level is the least that may be learned.
        rise = max(0.0, self.slope + slope)
        return 1 / (1 + math.exp(-(rise * _log_odds(probability) + self.intercept + intercept)))

    @classmethod
    def fit(cls, probabilities: Sequence[float], hits: Sequence[bool], sources: Sequence[str]) -> Self:
        """Learn from steps whose likeliest outcome had these probabilities, and whether it came."""
        from sklearn.linear_model import LogisticRegression

        known = sorted(set(sources))
        odds = np.array([_log_odds(each) for each in (*probabilities, *ANCHORS, *ANCHORS)])
        here = np.array([[source == each for each in known] for source in (*sources, *[None] * 2 * len(ANCHORS))])
        outcomes = [*hits, *[True] * len(ANCHORS), *[False] * len(ANCHORS)]
        importance = [*[1.0] * len(hits), *ANCHORS, *[1 - each for each in ANCHORS]]
        scaled = here * CORRECTION_SCALE
        fitted = LogisticRegression(C=1.0, max_iter=1000)
        fitted.fit(np.column_stack([odds, odds[:, None] * scaled, scaled]), outcomes, sample_weight=importance)
        slope, *rest = (float(each) for each in fitted.coef_[0])
        steps = [each * CORRECTION_SCALE for each in rest]
        pairs = zip(steps[: len(known)], steps[len(known) :], strict=True)
        return cls(slope, float(fitted.intercept_[0]), dict(zip(known, pairs, strict=True)))

    def to_state(self) -> dict[str, Any]:
        """Return the curve as numbers and names."""
        return {
            "slope": self.slope,
            "intercept": self.intercept,
            "corrections": {source: list(pair) for source, pair in self.corrections.items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the curve from what `to_state` returned.

        Raises:
            ValueError: It is not finite.
            KeyError: A part is missing.
        """
        pairs = {str(source): (float(slope), float(add)) for source, (slope, add) in state["corrections"].items()}
        made = cls(float(state["slope"]), float(state["intercept"]), pairs)
        if not np.isfinite([made.slope, made.intercept, *(each for pair in pairs.values() for each in pair)]).all():
            raise ValueError("the calibration is not finite")
        return made


class Mixture:
    """Weights of the experts and a calibration of the result, per source.

    Attributes:
        weights_: Weight of each of `EXPERTS`, per source; those of all sources under `None`.
        calibration_: Turns the probability of the likeliest step into a confidence.
    """

    def __init__(self) -> None:
        self.weights_: dict[str | None, NDArray[np.float64]] = {None: np.full(len(EXPERTS), 1 / len(EXPERTS))}
        self.calibration_ = Calibration()

    def fit(self, held: Sequence[Held]) -> Self:
        """Learn from held-out steps; from none, all experts count alike and probabilities stay as they are."""
        if not held:
            return self
        likelihoods = np.array([_likelihoods(each) for each in held])
        everywhere = _mixture_weights(likelihoods, self.weights_[None])
        sources = [each.source for each in held]
        self.weights_ = {None: everywhere} | {
            source: _mixture_weights(likelihoods[[each == source for each in sources]], everywhere)
            for source in sorted(set(sources))
        }
        mixed = [self._mixed(each.opinions, each.source) for each in held]
        hits = [each.opinions.names[int(found.argmax())] == each.name for each, found in zip(held, mixed, strict=True)]
        self.calibration_ = Calibration.fit([float(each.max()) for each in mixed], hits, sources)
        return self

    def probabilities(self, opinions: Opinions, source: str | None) -> NDArray[np.float64]:
        """Return the calibrated probability of each name.

        The likeliest name gets its confidence, the others are scaled; it stays the likeliest.

        Returns:
            Array of shape (n_names,) that sums to 1.
        """
        mixed = self._mixed(opinions, source)
        top = int(mixed.argmax())
        return _with_top(mixed, top, self.calibration_.confidence(float(mixed[top]), source))

    def ranked(self, opinions: Opinions, source: str | None) -> tuple[list[str], list[float]]:
        """Return all names and their calibrated probabilities, the likeliest first."""
        found = self.probabilities(opinions, source)
        order = np.argsort(-found, kind="stable")
        return [opinions.names[nth] for nth in order.tolist()], found[order].tolist()

    def _mixed(self, opinions: Opinions, source: str | None) -> NDArray[np.float64]:
        weights = self.weights_.get(source, self.weights_[None]) * opinions.heard
        return np.asarray(weights @ opinions.probabilities / weights.sum())

    def to_state(self) -> dict[str, Any]:
        """Return what was learned as names, numbers and arrays."""
        named = [source for source in self.weights_ if source is not None]
        return {
            "sources": named,
            "weights": np.array([self.weights_[source] for source in (None, *named)]),
            "calibration": self.calibration_.to_state(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the mixture from what `to_state` returned.

        Raises:
            ValueError: The parts do not fit together.
            KeyError: A part is missing.
        """
        made = cls()
        weights, sources = state["weights"], [None, *map(str, state["sources"])]
        if weights.shape != (len(sources), len(EXPERTS)) or not (np.isfinite(weights) & (weights > 0)).all():
            raise ValueError("the weights of the experts are not usable")
        made.weights_ = dict(zip(sources, weights, strict=True))
        made.calibration_ = Calibration.from_state(state["calibration"])
        return made


def _likelihoods(held: Held) -> NDArray[np.float64]:
    """Return the probability that each expert gave to the step that came; 0 for one that is not heard."""
    names = held.opinions.names
    right = names.index(held.name if held.name in names else OTHER)
    return held.opinions.probabilities[:, right] * held.opinions.heard


def _mixture_weights(likelihoods: NDArray[np.float64], prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weights under which what came is likeliest, by expectation maximisation with a prior.

    Args:
        likelihoods: Array of shape (n_steps, n_experts).
        prior: Weights that are worth `PRIOR_STEPS` further steps.
    """
    weights = prior
    for _ in range(ITERATIONS):
        shares = likelihoods * weights
        shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1e-300)
        weights = shares.sum(axis=0) + PRIOR_STEPS * prior
        weights = weights / weights.sum()
    return weights


def _with_top(probabilities: NDArray[np.float64], top: int, confidence: float) -> NDArray[np.float64]:
    rest = probabilities.copy()
    rest[top] = 0.0
    rest /= rest.sum()
    second = float(rest.max())
    confidence = max(confidence, second / (1 + second))  # where both are equally likely
    rest *= 1 - confidence
    rest[top] = confidence
    return rest


def _log_odds(probability: float) -> float:
    clipped = min(max(probability, LEAST_PROBABILITY), 1 - LEAST_PROBABILITY)
    return math.log(clipped / (1 - clipped))
