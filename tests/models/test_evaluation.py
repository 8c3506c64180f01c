from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.models import evaluation
from apportion.models.evaluation import calibration_error, calibration_noise, hit_rate_above, reliability

forecasts = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


def test_the_examples_run() -> None:
    results = doctest.testmod(evaluation)
    assert results.attempted > 0
    assert results.failed == 0


@given(pairs=forecasts)
def test_bins_hold_every_forecast_once_and_keep_the_means(pairs: list[tuple[float, bool]]) -> None:
    confidences, hits = [each for each, _ in pairs], [each for _, each in pairs]
    found = reliability(confidences, hits)
    assert sum(each.forecasts for each in found) == len(pairs)
    assert sum(each.forecasts * each.confidence for each in found) == pytest.approx(sum(confidences))
    assert sum(each.forecasts * each.hit_rate for each in found) == pytest.approx(sum(hits))
    assert 0 <= calibration_error(confidences, hits) <= 1


def test_certain_forecasts_that_come_true_have_no_error_and_wrong_ones_all_of_it() -> None:
    assert calibration_error([1.0] * 5, [True] * 5) == 0
    assert calibration_error([1.0] * 5, [False] * 5) == 1
    assert math.isnan(calibration_error([], []))
    assert math.isnan(calibration_noise([]))


def test_the_noise_is_what_perfectly_calibrated_forecasts_show() -> None:
    random = np.random.default_rng(5)
    confidences = random.random(400)
    errors = [calibration_error(confidences, random.random(400) < confidences) for _ in range(100)]
    assert calibration_noise(confidences) == pytest.approx(float(np.mean(errors)), rel=0.1)
    assert calibration_noise(confidences) < calibration_noise(confidences[:40])


def test_no_forecast_above_the_limit_has_no_hit_rate() -> None:
    assert hit_rate_above([0.7, 0.2], [True, True], 0.7) == (None, 0.0)
    assert hit_rate_above([], [], 0.7) == (None, 0.0)
