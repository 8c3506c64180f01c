from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from apportion.errors import InputError
from apportion.models import priors
from apportion.models.priors import PRIOR_WEIGHT, PRIORS, PROBABILITIES, Mixture, PriorDemand, StageUse

roles = st.sampled_from(sorted(PRIORS))
prompts = st.integers(0, 10**6)
tokens = st.none() | st.integers(0, 10**5)
uses = st.lists(st.builds(StageUse, calls=st.integers(1, 300), growth_tokens=tokens, output_tokens=tokens), max_size=12)


def test_the_examples_run() -> None:
    results = doctest.testmod(priors)
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize("role", sorted(PRIORS))
def test_without_history_the_documented_quantiles_follow_the_formula(role: str) -> None:
    pattern = PRIORS[role]
    growth, output = pattern.growth_tokens.quantiles[2], pattern.output_tokens.quantiles[2]
    forecast = PriorDemand().forecast(role, prompt_tokens=30_000)
    assert forecast.tokens == tuple(
        sum(30_000 + call * growth + output for call in range(calls)) for calls in pattern.calls.quantiles
    )
    assert forecast.probabilities == PROBABILITIES
    assert forecast.sample_size == 0


@given(role=roles, prompt_tokens=prompts, history=uses)
def test_a_longer_prompt_never_needs_less_and_quantiles_never_fall(
    role: str, prompt_tokens: int, history: list[StageUse]
) -> None:
    model = PriorDemand()
    forecast = model.forecast(role, prompt_tokens=prompt_tokens, history=history)
    longer = model.forecast(role, prompt_tokens=prompt_tokens + 1000, history=history)
    assert all(more >= less for more, less in zip(longer.tokens, forecast.tokens, strict=True))
    assert list(forecast.tokens) == sorted(forecast.tokens)
    assert forecast.sample_size == len(history)


@given(role=roles, prompt_tokens=prompts, history=uses)
def test_the_order_of_the_history_does_not_matter(role: str, prompt_tokens: int, history: list[StageUse]) -> None:
    model = PriorDemand()
    forward = model.forecast(role, prompt_tokens=prompt_tokens, history=history)
    assert model.forecast(role, prompt_tokens=prompt_tokens, history=history[::-1]) == forward


@given(role=roles, calls=st.integers(1, 300))
def test_a_long_history_outweighs_the_prior(role: str, calls: int) -> None:
    prior = PRIORS[role].calls
    assert Mixture(prior, (calls,) * 2000).quantile(0.5) == calls
    assert Mixture(prior, ()).quantile(0.5) == prior.quantiles[2]


@given(role=roles, calls=st.integers(1, 300), times=st.integers(0, 20))
def test_more_of_the_same_history_draws_the_median_nearer(role: str, calls: int, times: int) -> None:
    prior = PRIORS[role].calls
    nearer = abs(Mixture(prior, (calls,) * (times + 1)).quantile(0.5) - calls)
    assert nearer <= abs(Mixture(prior, (calls,) * times).quantile(0.5) - calls)


def test_the_prior_weighs_as_much_as_five_observations() -> None:
    prior = PRIORS["main"].calls
    beyond = prior.quantiles[-1] + 1000
    mixture = Mixture(prior, (beyond,) * PRIOR_WEIGHT)
    assert mixture.share_up_to(prior.quantiles[-1]) == pytest.approx(0.95 / 2)
    assert mixture.quantile(0.5) == beyond


@given(observations=st.lists(st.integers(1, 300), max_size=20), probability=st.sampled_from(PROBABILITIES))
def test_a_quantile_is_the_smallest_number_that_reaches_its_probability(
    observations: list[int], probability: float
) -> None:
    mixture = Mixture(PRIORS["main"].calls, tuple(observations))
    quantile = mixture.quantile(probability)
    assert mixture.share_up_to(quantile) >= probability - 1e-9
    assert mixture.share_up_to(quantile - 1) < probability


def test_what_a_history_does_not_know_comes_from_the_prior() -> None:
    model = PriorDemand()
    silent = [StageUse(calls=1)] * 500
    pattern = PRIORS["main"]
    expected = 1000 + pattern.output_tokens.quantiles[2]
    assert model.forecast("main", prompt_tokens=1000, history=silent).tokens == (expected,) * 6


@given(first=st.integers(0, 10**6), growth=st.integers(0, 10**5), calls=st.integers(2, 100))
def test_even_growth_is_found_again(first: int, growth: int, calls: int) -> None:
    use = StageUse.of_calls([first + growth * call for call in range(calls)])
    assert (use.calls, use.growth_tokens, use.output_tokens) == (calls, growth, None)


@given(sizes=st.lists(st.integers(0, 10**6), min_size=2, max_size=30))
def test_the_growth_gives_the_prompts_total_back(sizes: list[int]) -> None:
    use = StageUse.of_calls(sizes)
    n, growth = use.calls, use.growth_tokens
    assert growth is not None
    formula = n * sizes[0] + growth * n * (n - 1) / 2
    assert formula == pytest.approx(max(sum(sizes), n * sizes[0]), abs=n * (n - 1) / 4 + 1e-6)


def test_one_call_says_nothing_about_growth_and_unknown_output_stays_unknown() -> None:
    assert StageUse.of_calls([500]) == StageUse(calls=1, growth_tokens=None, output_tokens=None)
    assert StageUse.of_calls([500, 100]).growth_tokens == 0
    assert StageUse.of_calls([500], [7, 8]).output_tokens == 8


def test_a_stage_has_at_least_one_call() -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        StageUse(calls=0)


def test_a_forecast_beyond_all_numbers_is_capped() -> None:
    assert PriorDemand().forecast("main", prompt_tokens=2**53).tokens == (2**53,) * 6


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(InputError, match=r"no prior for the role 'boss'\. Known roles: main, sub"):
        PriorDemand().forecast("boss", prompt_tokens=1)
