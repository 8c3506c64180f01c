"""How good forecasts were: figures on pairs of what was forecast and what came.

A confidence is a claim. `calibration_error` says how far it is from the truth on average, and `calibration_noise` how
far a perfect one would seem to be with so few outcomes: an error below the noise proves nothing either way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

BINS = 10
"""Bins of confidence, of equal width over [0, 1]."""


class ReliabilityBin(NamedTuple):
    """Forecasts of similar confidence.

    Attributes:
        low: Lowest confidence of the bin, in [0, 1].
        forecasts: Number of forecasts.
        confidence: Their mean confidence, in [0, 1].
        hit_rate: Share of them that came true, in [0, 1].
    """

    low: float
    forecasts: int
    confidence: float
    hit_rate: float


def reliability(confidences: ArrayLike, hits: ArrayLike, *, bins: int = BINS) -> list[ReliabilityBin]:
    """Return the bins that hold forecasts, from the lowest confidence to the highest.

    Args:
        confidences: Array of shape (n,), in [0, 1].
        hits: Array of shape (n,): whether each forecast came true.
        bins: Number of bins of equal width.

    >>> [tuple(each) for each in reliability([0.25, 0.95, 0.85], [False, True, True])]
    [(0.2, 1, 0.25, 0.0), (0.8, 1, 0.85, 1.0), (0.9, 1, 0.95, 1.0)]
    """
    confidence, hit = _pair(confidences, hits)
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        ReliabilityBin(
            low=int(each) / bins,
            forecasts=int((number == each).sum()),
            confidence=float(confidence[number == each].mean()),
            hit_rate=float(hit[number == each].mean()),
        )
        for each in np.unique(number)
    ]


def calibration_error(confidences: ArrayLike, hits: ArrayLike, *, bins: int = BINS) -> float:
    """Return the expected calibration error: the mean distance of confidence and hit rate, bin by bin.

    Bins are of equal width and count by their forecasts (Naeini, Cooper and Hauskrecht 2015).

    Args:
        confidences: Array of shape (n,), in [0, 1].
        hits: Array of shape (n,): whether each forecast came true.
        bins: Number of bins.

    Returns:
        The error, in [0, 1]; NaN where there are no forecasts.

    >>> round(calibration_error([0.8] * 10, [True] * 7 + [False] * 3), 3)
    0.1
    """
    found = reliability(confidences, hits, bins=bins)
    total = sum(each.forecasts for each in found)
    if not total:
        return float("nan")
    return sum(each.forecasts * abs(each.confidence - each.hit_rate) for each in found) / total


def calibration_noise(confidences: ArrayLike, *, bins: int = BINS, draws: int = 200, seed: int = 0) -> float:
    """Return the calibration error that perfectly calibrated forecasts would show on average, drawn at random.

    Args:
        confidences: Array of shape (n,), in [0, 1].
        bins: Number of bins.
        draws: How often outcomes are drawn.
        seed: Of the random numbers.
    """
    confidence = np.asarray(confidences, dtype=np.float64)
    if not len(confidence):
        return float("nan")
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    random = np.random.default_rng(seed)
    errors = []
    for _ in range(draws):
        surplus = (random.random(len(confidence)) < confidence) - confidence
        errors.append(np.abs(np.bincount(number, weights=surplus, minlength=bins)).sum() / len(confidence))
    return float(np.mean(errors))


def hit_rate_above(confidences: Sequence[float], hits: Sequence[bool], least: float) -> tuple[float | None, float]:
    """Return the share of hits among forecasts of more than a confidence, and the share of such forecasts.

    The first is `None` where there are none.

    >>> hit_rate_above([0.6, 0.8, 0.9, 0.95], [True, True, True, False], 0.7)
    (0.6666666666666666, 0.75)
    """
    confidence, hit = _pair(confidences, hits)
    chosen = confidence > least
    rate = float(hit[chosen].mean()) if chosen.any() else None
    return rate, float(chosen.mean()) if len(chosen) else 0.0


def _pair(confidences: ArrayLike, hits: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    confidence = np.asarray(confidences, dtype=np.float64)
    return confidence, np.asarray(hits, dtype=bool)
