from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from apportion.planner.masking import TokenPrices
from apportion.planner.replay.billing import (
    DEFAULT_TTL_S,
    LONG_TTL_S,
    RELATIVE_PRICES,
    CacheClock,
    Rates,
    split_prompt,
    tariff,
)
from apportion.prices import ModelProfile, PriceTier, lookup

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_prices_are_per_token() -> None:
    opus = tariff(lookup("claude-opus-4-6"))
    assert opus.priced
    assert opus.rates.prices == pytest.approx(TokenPrices(read=0.5e-6, write=6.25e-6, output=25e-6))
    assert opus.rates.input == pytest.approx(5e-6)


def test_one_hour_caches_cost_and_live_longer() -> None:
    short, long = (tariff(lookup("claude-opus-4-6"), one_hour=one_hour) for one_hour in (False, True))
    assert long.rates.prices.write == pytest.approx(10e-6)
    assert short.rates.prices.write == pytest.approx(6.25e-6)
    assert (short.ttl_s, long.ttl_s) == (300, LONG_TTL_S)


def test_an_unknown_model_is_weighed_but_not_priced() -> None:
    unknown = tariff(None)
    assert not unknown.priced
    assert unknown.rates.prices == RELATIVE_PRICES
    assert unknown.ttl_s == DEFAULT_TTL_S


def test_without_a_cache_price_a_cached_token_costs_what_input_costs() -> None:
    profile = ModelProfile(name="m", provider="p", context_window=None, input=2.0, output=8.0)
    assert tariff(profile).rates.prices == pytest.approx(TokenPrices(read=2e-6, write=2e-6, output=8e-6))


def test_long_prompts_cost_the_prices_of_their_tier() -> None:
    tiers = (PriceTier(above_tokens=100, input=2.0, output=20.0, cache_read=0.2, cache_write_5m=2.5),)
    profile = ModelProfile(
        name="m", provider="p", context_window=None, input=1.0, output=10.0, cache_read=0.1, tiers=tiers
    )
    billed = tariff(profile)
    assert billed.at(100) == billed.rates
    assert billed.at(101).prices == pytest.approx(TokenPrices(read=0.2e-6, write=2.5e-6, output=20e-6))
    assert billed.at(101).input == pytest.approx(2e-6)


def test_a_cache_lives_until_its_time_and_each_touch_renews_it() -> None:
    clock = CacheClock()
    assert not clock.warm("run", NOON, 300)
    clock.touch("run", NOON)
    assert clock.warm("run", NOON + timedelta(seconds=300), 300)
    assert not clock.warm("run", NOON + timedelta(seconds=301), 300)
    assert not clock.warm("another run", NOON, 300)
    clock.touch("run", NOON + timedelta(seconds=300))
    assert clock.warm("run", NOON + timedelta(seconds=600), 300)


def test_without_times_the_cache_is_taken_as_warm() -> None:
    clock = CacheClock()
    clock.touch("run", None)
    assert clock.warm("run", NOON, 300)
    assert clock.warm("run", None, 300)


@pytest.mark.parametrize(
    ("total", "cached", "minimum", "split"),
    [
        (100, 60, 0, (60, 40, 0)),
        (100, 60, 61, (0, 100, 0)),
        (100, 200, 0, (100, 0, 0)),
        (100, 60, 101, (0, 0, 100)),
        (0, 0, 0, (0, 0, 0)),
    ],
)
def test_a_prompt_is_read_up_to_its_cached_prefix_and_not_cached_below_the_minimum(
    total: float, cached: float, minimum: int, split: tuple[float, float, float]
) -> None:
    assert split_prompt(total, cached, minimum) == split
    assert split_prompt(total, cached, minimum).total == total


def test_a_call_costs_what_it_reads_writes_sends_uncached_and_puts_out() -> None:
    priced = tariff(None)._replace(rates=Rates(TokenPrices(read=1, write=10, output=100), input=7))
    assert priced.cost(split_prompt(100, 60, 0), 2) == 60 + 400 + 200
    assert priced.cost(split_prompt(100, 60, 101), 2) == 700 + 200


def test_without_a_cache_every_token_costs_what_input_costs() -> None:
    rates = tariff(lookup("claude-opus-4-6"), cached=False).rates
    assert rates.prices == pytest.approx(TokenPrices(read=5e-6, write=5e-6, output=25e-6))


def test_an_hour_is_only_for_models_whose_provider_sells_it() -> None:
    assert tariff(lookup("gpt-4o"), one_hour=True) == tariff(lookup("gpt-4o"))
