"""What a call costs: a prompt cache as providers run it, and prices per token.

The cache keeps a run's last prompt as a prefix for a time to live. A call reads the leading tokens that are unchanged
and writes the rest; a call after a longer pause finds nothing and writes everything. Prompts shorter than a minimum are
not cached: they cost what input costs. System prompt and tool schemas come first in every prompt and are shared by all
runs of one agent type and model; each model has a cache of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from apportion.planner.masking import TokenPrices

if TYPE_CHECKING:
    from datetime import datetime

    from apportion.prices import ModelProfile, Prices

RELATIVE_PRICES = TokenPrices(read=0.1e-6, write=1.25e-6, output=5e-6)
"""Prices by which plans are weighed where the model's are unknown; no bill is ever stated in them."""

RELATIVE_INPUT = 1e-6
"""Price of an uncached token beside `RELATIVE_PRICES`."""

DEFAULT_TTL_S = 300.0
"""Time to live of a cached prompt where the provider does not say: five minutes."""

LONG_TTL_S = 3600.0
"""Time to live of one-hour cache writes."""


class Rates(NamedTuple):
    """Prices per token that hold for one call.

    Attributes:
        prices: Of tokens read from the cache, written to it, and put out.
        input: Of tokens sent past the cache.
    """

    prices: TokenPrices
    input: float


class Tariff(NamedTuple):
    """How one model is billed.

    Attributes:
        rates: US dollars per token, or relative ones.
        priced: Whether the rates are the model's own.
        ttl_s: How long a cached prompt lives.
        min_cached_tokens: Shorter prompts are not cached.
        context_window: Most tokens of a prompt, or `None` where unknown.
        tiers: `(threshold, rates)` of prompts longer than the threshold, rising.
    """

    rates: Rates
    priced: bool
    ttl_s: float
    min_cached_tokens: int
    context_window: int | None
    tiers: tuple[tuple[int, Rates], ...] = ()

    def at(self, prompt_tokens: float) -> Rates:
        """Return the rates of a call with a prompt of that length."""
        rates = self.rates
        for threshold, higher in self.tiers:
            if prompt_tokens > threshold:
                rates = higher
        return rates

    def cost(self, split: CacheSplit, output_tokens: float) -> float:
        """Return the price of a call."""
        rates = self.at(split.total)
        prices = rates.prices
        return (
            split.read * prices.read
            + split.written * prices.write
            + split.uncached * rates.input
            + output_tokens * prices.output
        )


def tariff(profile: ModelProfile | None, *, one_hour: bool = False, cached: bool = True) -> Tariff:
    """Return how a model is billed.

    Args:
        profile: Prices and window of the model; `None` where it is unknown.
        one_hour: Whether the run writes its cache for one hour instead of five minutes.
        cached: Whether the run uses a cache; without one, every prompt token costs what input costs.
    """
    one_hour = one_hour and (profile is None or profile.cache_write_1h is not None)
    if profile is None or profile.input is None or profile.output is None:
        return Tariff(
            _with_cache(Rates(RELATIVE_PRICES, RELATIVE_INPUT), cached=cached),
            priced=False,
            ttl_s=LONG_TTL_S if one_hour else DEFAULT_TTL_S,
            min_cached_tokens=0,
            context_window=None if profile is None else profile.context_window,
        )
    return Tariff(
        _with_cache(_per_token(profile, one_hour=one_hour), cached=cached),
        priced=True,
        ttl_s=LONG_TTL_S if one_hour else profile.cache_ttl_s or DEFAULT_TTL_S,
        min_cached_tokens=profile.min_cached_tokens,
        context_window=profile.context_window,
        tiers=tuple(
            (tier.above_tokens, _with_cache(_per_token(tier, one_hour=one_hour), cached=cached))
            for tier in profile.tiers
            if tier.input is not None and tier.output is not None
        ),
    )


def _per_token(prices: Prices, *, one_hour: bool) -> Rates:
    """Return known prices per token; without a price of its own, a read or write costs what input costs."""
    write = prices.cache_write_1h if one_hour else prices.cache_write_5m
    read, written = (prices.input if price is None else price for price in (prices.cache_read, write))
    return Rates(
        TokenPrices(*((price or 0.0) / 1e6 for price in (read, written, prices.output))), (prices.input or 0.0) / 1e6
    )


def _with_cache(rates: Rates, *, cached: bool) -> Rates:
    """Return the rates of a run that uses a cache or not: without one, a change to the prompt rewrites nothing."""
    return rates if cached else Rates(TokenPrices(rates.input, rates.input, rates.prices.output), rates.input)


class CacheClock:
    """Tells whether a cached prompt is still alive, by the time of the calls that touched it.

    Logs without times are taken as dense: the cache is always warm.
    """

    def __init__(self) -> None:
        self._touched: dict[object, datetime | None] = {}

    def warm(self, key: object, now: datetime | None, ttl_s: float) -> bool:
        """Say whether the entry was touched within its time to live."""
        if key not in self._touched:
            return False
        last = self._touched[key]
        return last is None or now is None or (now - last).total_seconds() <= ttl_s

    def touch(self, key: object, now: datetime | None) -> None:
        """Note that a call has read or written the entry."""
        self._touched[key] = now


class CacheSplit(NamedTuple):
    """The tokens of one prompt: read from the cache, written to it, and sent past it."""

    read: float
    written: float
    uncached: float = 0.0

    @property
    def total(self) -> float:
        """All tokens of the prompt."""
        return self.read + self.written + self.uncached


def split_prompt(total: float, cached: float, minimum: int) -> CacheSplit:
    """Split a prompt whose leading `cached` tokens are in a cache that holds prompts of `minimum` tokens or more."""
    if total < minimum:
        return CacheSplit(0.0, 0.0, total)
    read = min(cached, total) if cached >= minimum else 0.0
    return CacheSplit(read, total - read)
