from __future__ import annotations

import doctest
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.errors import InputError
from apportion.models import drift
from apportion.models.demand import PriorDemand
from apportion.models.drift import (
    MAX_FACTOR,
    SHIFT,
    CoverageMonitor,
    Interval,
    WidenedDemand,
    category_shift,
    widened,
)
from apportion.models.priors import MAX_TOKENS
from apportion.records import Demand

intervals = st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)).map(lambda ends: Interval(min(ends), max(ends)))
amounts = st.floats(0, 1e7)


def test_the_examples_run() -> None:
    results = doctest.testmod(drift)
    assert results.attempted > 0
    assert results.failed == 0


@given(interval=intervals, factor=st.floats(1, 4), value=amounts)
def test_a_widened_interval_holds_the_old_one(interval: Interval, factor: float, value: float) -> None:
    wide = interval.widened(factor)
    assert wide.low <= interval.low + 1e-6
    assert wide.high >= interval.high - 1e-6
    assert wide.low >= 0


demands = st.dictionaries(
    st.floats(0.01, 0.99), st.integers(0, MAX_TOKENS) | st.integers(0, 1000), min_size=1, max_size=9
).map(lambda found: Demand(probabilities=tuple(sorted(found)), tokens=tuple(sorted(found.values())), sample_size=3))


@given(demand=demands, factor=st.floats(1, MAX_FACTOR), more=st.floats(0, 2))
def test_widened_quantiles_never_get_nearer_to_the_median_and_never_cross(
    demand: Demand, factor: float, more: float
) -> None:
    wide = widened(demand, factor)  # a Demand refuses quantiles that cross
    assert (wide.probabilities, wide.sample_size) == (demand.probabilities, demand.sample_size)
    for probability, before, after in zip(demand.probabilities, demand.tokens, wide.tokens, strict=True):
        assert after == before if probability <= 0.5 else before <= after <= MAX_TOKENS
    further = widened(demand, factor + more).tokens
    assert all(one <= other for one, other in zip(wide.tokens, further, strict=True))
    assert widened(demand, 1.0) == demand


def test_a_widened_forecaster_leaves_the_median_and_single_calls_as_they_are() -> None:
    plain = PriorDemand()
    wide = WidenedDemand(plain, 2.0)
    before, after = (one.forecast("main", prompt_tokens=9000) for one in (plain, wide))
    assert after == widened(before, 2.0) != before
    assert wide.per_call("sub") == plain.per_call("sub")


@given(pairs=st.lists(st.tuples(intervals, amounts), max_size=60))
def test_a_factor_is_stated_exactly_where_intervals_are_widened(pairs: list[tuple[Interval, float]]) -> None:
    verdict = CoverageMonitor(0.9).observe_all(pairs)
    assert 1 <= verdict.factor <= MAX_FACTOR
    assert (verdict.reason is None) == (verdict.factor == 1)
    assert verdict.factor == 1 or verdict.drifted
    inside = [interval.low <= observed <= interval.high for interval, observed in pairs]
    assert verdict.outcomes == len(pairs)
    assert verdict.coverage is None or verdict.coverage == pytest.approx(sum(inside) / len(pairs), abs=0.02)


@pytest.mark.parametrize("seed", range(20))
def test_intervals_that_keep_their_level_are_left_alone(seed: int) -> None:
    random = np.random.default_rng(seed)
    monitor = CoverageMonitor(0.9)
    verdict = monitor.observe_all((Interval(0, 90), value) for value in random.uniform(0, 100, 300))
    assert (verdict.drifted, verdict.factor, verdict.reason) == (False, 1.0, None)


@pytest.mark.parametrize("seed", range(20))
def test_a_loss_of_coverage_is_found_soon_and_the_factor_restores_it(seed: int) -> None:
    random = np.random.default_rng(seed)
    monitor = CoverageMonitor(0.9)
    monitor.observe_all((Interval(0, 90), value) for value in random.uniform(0, 100, 200))
    outcomes = random.uniform(0, 180, 150)  # half of them outside now
    verdict = monitor.observe_all((Interval(0, 90), value) for value in outcomes)
    assert verdict.drifted
    assert verdict.reason is not None
    wide = Interval(0, 90).widened(verdict.factor)
    assert np.mean([wide.low <= value <= wide.high for value in outcomes[-100:]]) >= 0.9


def test_false_alarms_are_as_rare_as_stated() -> None:
    random = np.random.default_rng(1)
    lengths = []
    for _ in range(60):
        monitor = CoverageMonitor(0.9, false_alarm_every=200)
        length = 1
        while not monitor.observe(Interval(0, 90), float(random.uniform(0, 100))).drifted:
            length += 1
        lengths.append(length)
    assert np.mean(lengths) > 200


def test_a_drift_stays_until_the_monitor_is_reset() -> None:
    monitor = CoverageMonitor(0.9)
    assert monitor.observe_all([(Interval(0, 1), 5.0)] * 50).factor == MAX_FACTOR
    assert monitor.observe_all([(Interval(0, 1), 0.5)] * 20).drifted
    fresh = monitor.reset().verdict()
    assert (fresh.drifted, fresh.factor, fresh.coverage, fresh.outcomes) == (False, 1.0, None, 0)


def test_an_interval_without_width_holds_its_own_value_only() -> None:
    monitor = CoverageMonitor(0.5, tolerance=0.1)
    assert monitor.observe(Interval(7, 7), 7).coverage == 1
    assert monitor.observe(Interval(7, 7), 8).coverage == 0.5


@pytest.mark.parametrize("options", [{"level": 1.0}, {"level": 0.9, "tolerance": 0.9}, {"level": 0.9, "window": 0}])
def test_a_monitor_that_cannot_work_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="a monitor cannot watch a level"):
        CoverageMonitor(**options)  # type: ignore[arg-type]


counts = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 500), min_size=1)


@given(before=counts, now=counts)
def test_the_index_is_never_negative_and_the_same_both_ways(before: dict[str, int], now: dict[str, int]) -> None:
    there, back = category_shift(before, now), category_shift(now, before)
    assert there.index == pytest.approx(back.index)
    assert there.index >= 0
    assert there.shifted == (there.reason is not None) == (there.index > there.threshold)
    assert there.threshold >= SHIFT
    assert category_shift(before, before).index == pytest.approx(0)


def test_chance_alone_looks_like_a_shift_less_often_than_stated() -> None:
    random = np.random.default_rng(3)
    names = "abcdefgh"
    draws = [
        {name: int(n) for name, n in zip(names, random.multinomial(60, [1 / 8] * 8), strict=True)} for _ in range(401)
    ]
    shifted = [category_shift(one, other).shifted for one, other in pairwise(draws)]
    assert sum(shifted) <= 3


def test_shares_of_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="need counts on both sides"):
        category_shift({}, {"a": 1})
    assert math.isfinite(category_shift({"a": 1}, {"b": 1}).index)
