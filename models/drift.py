"""Noticing that forecasts no longer fit, and what to do until the models are trained again: widen them, and say so.

Intervals: a forecast interval claims to hold an outcome with some probability, its level. Each outcome multiplies the
evidence that the true coverage is lower (a likelihood ratio), and evidence may begin at any time: this is the detector
of Shiryaev and Roberts. While the level holds, it raises a false alarm once in `false_alarm_every` outcomes on average,
or less often, however often one looks. The intervals are then widened by the factor that would have restored the level
over the latest outcomes.

Categories: the population stability index compares shares then and now. By rule of thumb more than 0.25 is a shift.
With few observations chance alone reaches that, so the index must also exceed what chance reaches once in a thousand
times (Yurdakul 2018: under no change the index is distributed as chi-square, scaled by 1/n + 1/m).
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Annotated, NamedTuple, Self

from pydantic import Field

from apportion.errors import InputError
from apportion.models.priors import MAX_TOKENS
from apportion.records import Demand, Record, Share

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from apportion.models.demand import DemandForecaster, StageUse
    from apportion.models.features import Caller

MEDIAN = 0.5

MAX_FACTOR = 4.0
"""Intervals are never widened by more: what drifted further should not be forecast by this model at all."""

SHIFT = 0.25
"""Population stability index that counts as a shift, by rule of thumb."""

CHANCE = 0.001
"""How seldom chance alone may look like a shift of categories."""


class Interval(NamedTuple):
    """A forecast interval, both ends included.

    >>> Interval(100, 300).widened(1.5)
    Interval(low=50.0, high=350.0)
    """

    low: float
    high: float

    def widened(self, factor: float) -> Interval:
        """Return the interval that is so many times as wide about the same middle; it never goes below 0.

        >>> Interval(0, 100).widened(2)
        Interval(low=0.0, high=150.0)
        """
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        return Interval(max(0.0, middle - half * factor), middle + half * factor)


class WidenedDemand:
    """A forecaster whose quantiles above the median are so many times as far from it; the others stay as they are.

    Args:
        demand: What forecasts.
        factor: By how much, at least 1.
    """

    def __init__(self, demand: DemandForecaster, factor: float) -> None:
        self.demand = demand
        self.factor = factor

    def forecast(
        self,
        role: str,
        *,
        prompt_tokens: int,
        history: Sequence[StageUse] = (),
        caller: Caller | None = None,
        features: Sequence[float] | None = None,
    ) -> Demand:
        """Return the demand of one agent run in one stage; see `DemandForecaster`."""
        found = self.demand.forecast(
            role, prompt_tokens=prompt_tokens, history=history, caller=caller, features=features
        )
        return widened(found, self.factor)

    def per_call(self, role: str, *, history: Sequence[StageUse] = (), caller: Caller | None = None) -> tuple[int, int]:
        """Return the median growth of the prompt and the median output of a call; medians are not widened."""
        return self.demand.per_call(role, history=history, caller=caller)

    def overhead_tokens(self, caller: Caller) -> int | None:
        """Return the usual size of system prompt and tool schemas, in tokens; `None` where that is unknown."""
        return self.demand.overhead_tokens(caller)


def widened(demand: Demand, factor: float) -> Demand:
    """Return a demand whose quantiles above the median are so many times as far from it.

    The median is the highest quantile of at most 50 %, or 0 where there is none.

    >>> widened(Demand(probabilities=(0.1, 0.5, 0.9), tokens=(50, 100, 300)), 1.5).tokens
    (50, 100, 400)
    """
    pairs = list(zip(demand.probabilities, demand.tokens, strict=True))
    middle = max((tokens for probability, tokens in pairs if probability <= MEDIAN), default=0)
    tokens = tuple(
        tokens if probability <= MEDIAN else min(MAX_TOKENS, middle + math.ceil((tokens - middle) * factor))
        for probability, tokens in pairs
    )
    return Demand(probabilities=demand.probabilities, tokens=tokens, sample_size=demand.sample_size)


class DriftVerdict(Record):
    """What the latest outcomes say of forecast intervals.

    Attributes:
        drifted: Whether they fit no longer.
        factor: By how much to widen intervals, from 1 (not at all) to `MAX_FACTOR`.
        level: Probability with which intervals claim to hold, in (0, 1).
        coverage: Share of the latest outcomes within their intervals; `None` before the first.
        outcomes: Number of those outcomes.
        reason: Why intervals are widened, or `None` where they are not.
    """

    drifted: bool
    factor: Annotated[float, Field(ge=1.0, le=MAX_FACTOR)]
    level: Share
    coverage: Share | None
    outcomes: int
    reason: str | None


class CoverageMonitor:
    """Watches whether forecast intervals still hold as often as they claim.

    Once it has found a drift it stays with that, until `reset` after a new training.

    >>> monitor = CoverageMonitor(level=0.9)
    >>> for observed in [50, 150] * 20:
    ...     verdict = monitor.observe(Interval(0, 100), observed)
    >>> verdict.drifted, verdict.factor, verdict.coverage
    (True, 2.0, 0.5)
    >>> verdict.reason
    'only 50 % of the last 40 outcomes lay within their 90 % intervals: intervals are widened 2.0 times'

    Args:
        level: Probability with which intervals claim to hold, in (0, 1).
        tolerance: Loss of coverage that should be noticed soon, in (0, level).
        false_alarm_every: Mean number of outcomes until a false alarm, at least.
        window: Number of latest outcomes from which coverage and factor are taken.
    """

    def __init__(
        self, level: float, *, tolerance: float = 0.1, false_alarm_every: float = 10_000, window: int = 100
    ) -> None:
        if not (0 < tolerance < level < 1 and false_alarm_every > 1 and window > 0):
            raise InputError(
                f"a monitor cannot watch a level of {level:g} with a tolerance of {tolerance:g}",
                hint="0 < tolerance < level < 1; window and false_alarm_every are positive",
            )
        self.level = level
        self.tolerance = tolerance
        self.false_alarm_every = false_alarm_every
        self.window = window
        self._scores: deque[float] = deque(maxlen=window)
        self._evidence = 0.0
        self._drifted = False

    def observe(self, interval: Interval, observed: float) -> DriftVerdict:
        """Take an outcome into account and return what is known now.

        Args:
            interval: What was forecast, not widened.
            observed: What came.
        """
        score = _score(interval, observed)
        self._scores.append(score)
        worse = self.level - self.tolerance
        ratio = worse / self.level if score <= 1 else (1 - worse) / (1 - self.level)
        self._evidence = min((1 + self._evidence) * ratio, 1e300)
        self._drifted = self._drifted or self._evidence >= self.false_alarm_every
        return self.verdict()

    def observe_all(self, pairs: Iterable[tuple[Interval, float]]) -> DriftVerdict:
        """Take several outcomes into account, in their order."""
        for interval, observed in pairs:
            self.observe(interval, observed)
        return self.verdict()

    def verdict(self) -> DriftVerdict:
        """Return what is known now."""
        outcomes = len(self._scores)
        coverage = sum(score <= 1 for score in self._scores) / outcomes if outcomes else None
        factor = self._factor() if self._drifted else 1.0
        reason = None
        if factor > 1:
            reason = (
                f"only {coverage:.0%} of the last {outcomes} outcomes lay within their {self.level:.0%} intervals: "
                f"intervals are widened {factor:.1f} times"
            ).replace("%", " %")
        return DriftVerdict(
            drifted=self._drifted,
            factor=factor,
            level=self.level,
            coverage=coverage,
            outcomes=outcomes,
            reason=reason,
        )

    def reset(self) -> Self:
        """Forget all outcomes, after a new training."""
        self._scores.clear()
        self._evidence = 0.0
        self._drifted = False
        return self

    def _factor(self) -> float:
        """Return the conformal quantile of the scores at the level: widened so much, the intervals would have held."""
        ordered = sorted(self._scores)
        rank = math.ceil((len(ordered) + 1) * self.level)
        wanted = ordered[rank - 1] if rank <= len(ordered) else ordered[-1]
        return min(MAX_FACTOR, max(1.0, wanted))


class ShiftVerdict(Record):
    """Whether the shares of categories have shifted.

    Attributes:
        shifted: Whether they have.
        index: Population stability index, at least 0.
        threshold: The index that counts as a shift with so many observations.
        reason: What has shifted most, or `None` where nothing has.
    """

    shifted: bool
    index: Annotated[float, Field(ge=0)]
    threshold: float
    reason: str | None


def category_shift(before: Mapping[str, int], now: Mapping[str, int]) -> ShiftVerdict:
    """Compare how often categories occurred before and occur now.

    Args:
        before: Counts when the model was trained.
        now: Recent counts.

    Raises:
        InputError: One of them counts nothing.

    >>> category_shift({"Bash": 500, "Read": 500}, {"Bash": 95, "Read": 5}).reason
    "'Read' has gone from 50 % to 5 %"
    >>> category_shift({"Bash": 500, "Read": 500}, {"Bash": 5, "Read": 2}).shifted
    False
    """
    from scipy.stats import chi2

    names = sorted({*before, *now})
    total_before, total_now = sum(before.values()), sum(now.values())
    if not total_before or not total_now:
        raise InputError("shares of categories need counts on both sides")
    half = 0.5 * len(names)  # half an observation more of each, so that none is at 0
    shares = [
        ((before.get(name, 0) + 0.5) / (total_before + half), (now.get(name, 0) + 0.5) / (total_now + half))
        for name in names
    ]
    parts = [(new - old) * math.log(new / old) for old, new in shares]
    by_chance = float(chi2.ppf(1 - CHANCE, max(1, len(names) - 1))) * (1 / total_before + 1 / total_now)
    index, threshold = sum(parts), max(SHIFT, by_chance)
    most = max(range(len(names)), key=parts.__getitem__)
    old, new = before.get(names[most], 0) / total_before, now.get(names[most], 0) / total_now
    reason = f"{names[most]!r} has gone from {old:.0%} to {new:.0%}".replace("%", " %")
    return ShiftVerdict(
        shifted=index > threshold, index=index, threshold=threshold, reason=reason if index > threshold else None
    )


def _score(interval: Interval, observed: float) -> float:
    """Return how many times as wide about its middle an interval must be to hold an outcome."""
    middle, half = (interval.low + interval.high) / 2, (interval.high - interval.low) / 2
    distance = abs(observed - middle)
    if interval.low <= observed <= interval.high:
        return min(1.0, distance / half) if half > 0 else 0.0
    return max(math.nextafter(1, 2), distance / half) if half > 0 else math.inf
