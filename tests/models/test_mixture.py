from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.models.evaluation import calibration_error
from apportion.models.experts import EXPERTS, OTHER, Opinions
from apportion.models.mixture import Calibration, Held, Mixture
from apportion.models.trails import END

NAMES = [END, OTHER, "a", "b"]
RIGHT, VAGUE = [0.05, 0.05, 0.85, 0.05], [0.25] * 4


def held(good: int, name: str, *, source: str = "s", heard: tuple[bool, ...] = (True,) * 6) -> Held:
    """A step of which one expert was sure, and the others had no idea."""
    rows = np.array([RIGHT if nth == good else VAGUE for nth in range(len(EXPERTS))])
    return Held(source, Opinions(NAMES, rows, np.array(heard)), name, 5)


def test_the_expert_that_was_right_gets_the_weight() -> None:
    mixture = Mixture().fit([held(2, "a")] * 200 + [held(4, "a", source="t")] * 200)
    assert mixture.weights_["s"].argmax() == 2
    assert mixture.weights_["t"].argmax() == 4
    assert mixture.weights_["s"][2] > 0.8


def test_an_expert_that_misleads_gets_next_to_none() -> None:
    weights = Mixture().fit([held(3, "b")] * 200).weights_[None]
    assert weights[3] < 0.03 < 1 / len(EXPERTS)
    assert weights.sum() == pytest.approx(1)


def test_a_source_with_few_steps_keeps_near_the_weights_of_all() -> None:
    mixture = Mixture().fit([held(2, "a")] * 300 + [held(4, "a", source="small")] * 2)
    assert np.abs(mixture.weights_["small"] - mixture.weights_[None]).sum() < 0.2


def test_nothing_held_out_leaves_all_alike_and_probabilities_as_they_are() -> None:
    mixture = Mixture().fit([])
    assert (mixture.weights_[None] == 1 / len(EXPERTS)).all()
    assert mixture.calibration_.confidence(0.37, "s") == pytest.approx(0.37)


MIXTURES = [Mixture().fit([held(1, "a" if nth < hits else "b") for nth in range(12)]) for hits in (0, 3, 9, 12)]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_confidence_is_learned_from_how_often_the_likeliest_came(share: float) -> None:
    came = [held(0, "a" if nth < 300 * share else "b") for nth in range(300)]
    mixture = Mixture().fit(came)
    found = mixture.probabilities(came[0].opinions, "s")
    assert found[2] == pytest.approx(share, abs=0.06)


def test_calibration_mends_boasting() -> None:
    random = np.random.default_rng(2)
    claimed = random.uniform(0.4, 0.99, 3000)
    hits = random.random(3000) < 0.5 + (claimed - 0.4) * 0.5
    sources = ["s"] * 3000
    fitted = Calibration.fit(list(claimed[:1500]), list(hits[:1500]), sources[:1500])
    mended = [fitted.confidence(each, "s") for each in claimed[1500:]]
    assert calibration_error(mended, hits[1500:]) < 0.05 < calibration_error(claimed[1500:], hits[1500:])


def test_a_source_that_keeps_less_than_it_claims_is_corrected_and_others_are_not() -> None:
    claims = [0.8] * 400
    fitted = Calibration.fit(
        claims * 2,
        [nth % 5 > 0 for nth in range(400)] + [nth % 2 > 0 for nth in range(400)],
        ["good"] * 400 + ["bad"] * 400,
    )
    assert fitted.confidence(0.8, "good") > 0.7
    assert fitted.confidence(0.8, "bad") < 0.6
    assert fitted.confidence(0.8, "bad") < fitted.confidence(0.8, None) < fitted.confidence(0.8, "good")
    assert fitted.confidence(0.8, "unheard of") == fitted.confidence(0.8, None)


@settings(max_examples=25)
@given(
    hits=st.lists(st.booleans(), min_size=1, max_size=40),
    low=st.floats(0, 1),
    high=st.floats(0, 1),
    source=st.sampled_from(["s", "t", None]),
)
def test_more_probability_never_means_less_confidence(
    hits: list[bool], low: float, high: float, source: str | None
) -> None:
    fitted = Calibration.fit([nth / len(hits) for nth in range(len(hits))], hits, ["s"] * len(hits))
    assert fitted.confidence(min(low, high), source) <= fitted.confidence(max(low, high), source)


@given(
    rows=st.lists(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), min_size=6, max_size=6),
    mixture=st.sampled_from(MIXTURES),
    heard=st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_probabilities_sum_to_one_and_the_likeliest_stays_the_likeliest(
    rows: list[list[float]], mixture: Mixture, heard: list[bool]
) -> None:
    probabilities = np.array(rows) / np.array(rows).sum(axis=1, keepdims=True)
    said = Opinions(NAMES, probabilities, np.array([True, *heard]))
    found = mixture.probabilities(said, "s")
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()
    assert found[mixture._mixed(said, "s").argmax()] == pytest.approx(found.max())


def test_a_mixture_comes_back_from_its_state_exactly() -> None:
    mixture = Mixture().fit([held(2, "a"), held(3, "b", source="t")] * 30)
    again = Mixture.from_state(mixture.to_state())
    said = held(2, "a").opinions
    for source in ("s", "t", None, "new"):
        assert (again.probabilities(said, source) == mixture.probabilities(said, source)).all()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"weights": np.zeros((2, 6))}, "weights"),
        ({"weights": np.ones((1, 6))}, "weights"),
        ({"weights": np.full((2, 6), np.nan)}, "weights"),
        ({"calibration": {"slope": float("inf"), "intercept": 0.0, "corrections": {}}}, "not finite"),
        ({"calibration": {"slope": 1.0, "intercept": 0.0, "corrections": {"s": [float("nan"), 0.0]}}}, "not finite"),
    ],
)
def test_a_state_that_is_not_usable_is_refused(damage: dict[str, Any], message: str) -> None:
    state = Mixture().fit([held(2, "a")] * 5).to_state()
    with pytest.raises(ValueError, match=message):
        Mixture.from_state(state | damage)
