from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.models.calibration import LEVELS, coverage
from apportion.models.pooling import COLUMNS, Pooling, sum_bounds

SCORES = np.array([-1.645, -1.282, -0.674, 0.0, 0.674, 1.282, 1.645])
ALL = ("all",)


def sums(seed: int, *, count: int = 300, common: float = 0.0) -> tuple[list[np.ndarray], np.ndarray]:
    """Right forecasts of two to nine runs each, and the logarithms of what they used together."""
    rng = np.random.default_rng(seed)
    members, totals = [], []
    for _ in range(count):
        runs = int(rng.integers(2, 10))
        centre, width = rng.normal(10, 1, runs), rng.uniform(0.3, 1.0, runs)
        luck = np.sqrt(common) * rng.standard_normal() + np.sqrt(1 - common) * rng.standard_normal(runs)
        members.append(centre[:, None] + width[:, None] * SCORES)
        totals.append(np.log(np.exp(centre + width * luck).sum()))
    return members, np.array(totals)


def fitted(seed: int, *, common: float = 0.0) -> Pooling:
    members, totals = sums(seed, common=common)
    return Pooling().fit(members, totals, [ALL] * len(members), [str(row) for row in range(len(members))])


def judged(model: Pooling, seed: int, *, common: float = 0.0) -> tuple[float, float, float]:
    """Coverage pooled and added up, and the median share by which pooled intervals are narrower."""
    members, totals = sums(seed, common=common)
    pooled = np.array([model.predict(each, ALL) for each in members])
    added = np.array([sum_bounds(each) for each in members])
    widths = [np.exp(each[:, -1]) - np.exp(each[:, 0]) for each in (pooled, added)]
    return coverage(totals, pooled), coverage(totals, added), float(1 - np.median(widths[0] / widths[1]))


@pytest.mark.parametrize("common", [0.0, 0.3, 0.7])
def test_pooled_intervals_cover_what_they_claim(common: float) -> None:
    covered = [judged(fitted(seed, common=common), 100 + seed, common=common)[0] for seed in range(4)]
    assert 0.87 <= np.mean(covered) <= 0.94


def test_independent_runs_share_their_slack() -> None:
    _, added, narrower = judged(fitted(1), 2)
    assert added > 0.97
    assert narrower > 0.3


def test_the_less_independent_runs_are_the_less_there_is_to_share() -> None:
    narrower = [judged(fitted(1, common=common), 2, common=common)[2] for common in (0.0, 0.35, 0.7)]
    assert narrower == sorted(narrower, reverse=True)


def test_what_runs_have_in_common_is_found() -> None:
    assert fitted(1, common=0.0).common_ <= 0.1
    assert fitted(1, common=0.7).common_ >= 0.5


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), runs=st.integers(1, 3 * COLUMNS))
def test_pooled_quantiles_never_cross_and_hold_between_the_sums_of_wide_bounds(seed: int, runs: int) -> None:
    rng = np.random.default_rng(seed)
    members = np.sort(rng.normal(10, 2, (runs, len(LEVELS))), axis=1)
    found = _MODEL.predict(members, ALL)
    assert list(found) == sorted(found)
    assert np.all(np.isfinite(found))


def test_one_run_alone_is_its_own_forecast() -> None:
    assert np.array_equal(_MODEL.predict(SCORES[None] + 3, ALL), SCORES + 3)


def test_it_is_learned_from_several_runs_at_once_where_there_are_enough_of_them() -> None:
    members, totals = sums(5)
    single, far = [SCORES[None] + row for row in range(300)], np.arange(300.0) + 50
    names = [str(row) for row in range(600)]
    model = Pooling().fit([*members, *single], np.concatenate((totals, far)), [ALL] * 600, names)
    alone = Pooling().fit(members, totals, [ALL] * 300, names[:300])
    assert np.array_equal(model.predict(members[0], ALL), alone.predict(members[0], ALL))
    few = Pooling().fit([*members[:3], *single], np.concatenate((totals[:3], far)), [ALL] * 303, names[:303])
    assert np.isfinite(few.predict(members[0], ALL)).all()


_MODEL = fitted(0)
