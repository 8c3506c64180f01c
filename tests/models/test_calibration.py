from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.models import calibration
from apportion.models.calibration import (
    FINEST,
    LEVELS,
    Conformal,
    conformal_level,
    coverage,
    effective_size,
    even_offsets,
    pinball,
)

SCORES = np.array([-1.645, -1.282, -0.674, 0.0, 0.674, 1.282, 1.645])
"""Quantiles of the standard normal distribution at `LEVELS`."""


def test_the_examples_run() -> None:
    results = doctest.testmod(calibration)
    assert results.attempted > 0
    assert results.failed == 0


def drawn(seed: int, workflows: int, *, each: int = 1, common: float = 0.0) -> tuple[np.ndarray, list[int]]:
    """Standard normal values, of which a share is common to each workflow."""
    rng = np.random.default_rng(seed)
    shared = np.repeat(rng.standard_normal(workflows), each)
    own = rng.standard_normal(workflows * each)
    names = np.repeat(np.arange(workflows), each).tolist()
    return np.sqrt(common) * shared + np.sqrt(1 - common) * own, names


def mean_coverage(scale: float, *, calibrated: bool, each: int = 1, common: float = 0.0, workflows: int = 60) -> float:
    """Coverage of new workflows by quantiles that are off by a factor, over many repetitions."""
    found = []
    for seed in range(120):
        known, names = drawn(2 * seed, workflows, each=each, common=common)
        new, _ = drawn(2 * seed + 1, workflows, each=each, common=common)
        raw = np.tile(SCORES * scale, (len(known), 1))
        moved = Conformal().fit([("all",)] * len(known), known[:, None] - raw, names).offsets(("all",))
        found.append(coverage(new, raw + moved * calibrated))
    return float(np.mean(found))


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
@pytest.mark.parametrize(("each", "common"), [(1, 0.0), (10, 0.0), (10, 0.6)])
def test_intervals_cover_what_they_claim_on_new_workflows_however_wrong_the_forecast(
    scale: float, each: int, common: float
) -> None:
    assert 0.89 <= mean_coverage(scale, calibrated=True, each=each, common=common) <= 0.93


def test_without_calibration_narrow_forecasts_do_not_cover() -> None:
    assert mean_coverage(0.3, calibrated=False) < 0.5


@given(level=st.sampled_from(LEVELS), size=st.floats(1, 1e6))
def test_a_small_sample_moves_levels_outward_and_a_large_one_leaves_them(level: float, size: float) -> None:
    found = conformal_level(level, size)
    assert 0.0 <= found <= 1.0
    assert abs(found - 0.5) >= abs(level - 0.5) - 1e-12
    assert abs(found - level) <= 1 / size + 1e-12


def test_values_alike_within_workflows_count_as_few_and_independent_ones_as_many() -> None:
    names = np.repeat(np.arange(50), 20).tolist()
    alike, _ = drawn(1, 50, each=20, common=1.0)
    free, _ = drawn(1, 50, each=20, common=0.0)
    assert effective_size(alike, names) == pytest.approx(50, rel=0.02)
    assert effective_size(free, names) > 700
    assert effective_size(free, list(range(1000))) == 1000


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6), workflows=st.integers(1, 30), each=st.integers(1, 8))
def test_the_effective_size_lies_between_one_and_all(seed: int, workflows: int, each: int) -> None:
    values, names = drawn(seed, workflows, each=each, common=0.5)
    assert 1.0 <= effective_size(values, names) <= len(values) + 1e-9


def test_a_group_with_few_workflows_takes_the_offsets_of_the_one_above() -> None:
    values, names = drawn(3, 100)
    chains = [("all", "many" if row < 90 else "few") for row in range(100)]
    model = Conformal().fit(chains, values[:, None] - SCORES, names)
    assert model.group(("all", "many")) == "many"
    assert model.group(("all", "few")) == model.group(("all", "unknown")) == "all"
    assert np.array_equal(model.offsets(("all", "few")), model.offsets(("all",)))


def test_groups_below_the_agent_type_are_not_calibrated_by_themselves() -> None:
    values, names = drawn(3, 100)
    groups = tuple(str(depth) for depth in range(FINEST + 2))
    assert Conformal().fit([groups] * 100, values[:, None] - SCORES, names).group(groups) == str(FINEST - 1)


def test_the_loss_is_least_for_the_true_quantiles() -> None:
    values, _ = drawn(5, 4000)
    losses = [pinball(values, np.tile(SCORES * scale + shift, (4000, 1))).mean() for scale, shift in _FORECASTS]
    assert min(losses) == losses[0]


_FORECASTS = [(1.0, 0.0), (0.5, 0.0), (2.0, 0.0), (1.0, 0.5), (1.0, -0.5)]


def test_a_loss_weighs_what_is_too_low_by_the_level_and_what_is_too_high_by_the_rest() -> None:
    low, high = (float(pinball(np.array([0.0]), np.full((1, len(LEVELS)), by))[0]) for by in (-1.0, 1.0))
    assert low == pytest.approx(np.mean(LEVELS))
    assert high == pytest.approx(1 - np.mean(LEVELS))


def test_even_offsets_do_not_depend_on_how_often_a_group_occurs() -> None:
    residuals = np.random.default_rng(0).normal(size=(30, len(LEVELS)))
    residuals[10:] += 5.0
    once = even_offsets(residuals, np.repeat([0, 1], [10, 20]))
    often = even_offsets(np.concatenate([residuals[:10], *[residuals[10:]] * 7]), np.repeat([0, 1], [10, 140]))
    assert np.allclose(once, often)
    lower, upper = residuals[:10, 2].max(), residuals[10:, 4].min()
    assert once[2] <= lower < upper <= once[4]  # half of each quantile comes from either group
