from __future__ import annotations

import json
from datetime import UTC, date, datetime

import pytest

from apportion import prices
from apportion._flatten_prices import TABLE, flatten, to_text
from apportion.prices import ModelProfile, PriceTier, lookup, prices_as_of
from apportion.records import Usage

SHIPPED = json.loads(TABLE.read_text(encoding="utf-8"))


def profile(model: str, **options: str) -> ModelProfile:
    found = lookup(model, **options)
    assert found is not None, model
    return found


def test_the_shipped_table_is_what_the_pinned_source_says() -> None:
    as_of = date.fromisoformat(SHIPPED["as_of"])
    assert TABLE.read_text(encoding="utf-8") == to_text(flatten(as_of))
    assert prices_as_of() == as_of.isoformat()


def test_look_ups_agree_with_the_source_on_every_model_of_the_first_parties() -> None:
    from genai_prices.data_snapshot import get_snapshot

    snapshot = get_snapshot()
    noon = datetime.fromisoformat(SHIPPED["as_of"]).replace(hour=12, tzinfo=UTC)
    compared = 0
    for provider in snapshot.providers:
        if provider.id not in {"anthropic", "openai", "google", "mistral"}:
            continue
        for model in provider.models:
            try:
                seller, row = snapshot.find_provider_model(model.id, None, None, None)
            except LookupError:
                continue  # such a name does not tell its maker
            found = profile(model.id)
            expected = row.get_prices(noon)
            assert (found.provider, found.name) == (seller.id, row.id)
            for ours, theirs in (("input", "input_mtok"), ("output", "output_mtok"), ("cache_read", "cache_read_mtok")):
                listed = getattr(expected, theirs)
                base = getattr(listed, "base", listed)
                assert getattr(found, ours) == (None if base is None else float(base))
            compared += 1
    assert compared > 200


@pytest.mark.parametrize(
    ("model", "provider", "name", "listed"),
    [
        ("claude-opus-4-6", "anthropic", "claude-opus-4-6", (5.0, 25.0, 0.5, 6.25, 10.0)),
        ("claude-opus-4-5-20251101", "anthropic", "claude-opus-4-5", (5.0, 25.0, 0.5, 6.25, 10.0)),
        ("claude-haiku-4-5-20251001", "anthropic", "claude-haiku-4-5", (1.0, 5.0, 0.1, 1.25, 2.0)),
        ("gpt-4o", "openai", "gpt-4o", (2.5, 10.0, 1.25, 2.5, None)),
        ("gpt-4o-mini", "openai", "gpt-4o-mini", (0.15, 0.6, 0.075, 0.15, None)),
        ("gpt-5.5", "openai", "gpt-5.5", (5.0, 30.0, 0.5, 5.0, None)),
        ("gpt-5.3-codex", "openai", "gpt-5.3-codex", (1.75, 14.0, 0.175, 1.75, None)),
        ("gemini-2.0-flash", "google", "gemini-2.0-flash", (0.1, 0.4, 0.025, 0.1, None)),
    ],
)
def test_common_models_have_their_list_prices(
    model: str, provider: str, name: str, listed: tuple[float | None, ...]
) -> None:
    found = profile(model)
    assert (found.provider, found.name) == (provider, name)
    assert (found.input, found.output, found.cache_read, found.cache_write_5m, found.cache_write_1h) == listed


@pytest.mark.parametrize(
    ("spelling", "provider", "name"),
    [
        ("anthropic/claude-opus-4-6", "anthropic", "claude-opus-4-6"),
        ("anthropic/claude-opus-4.6", "anthropic", "claude-opus-4-6"),
        ("Claude-Opus-4-6", "anthropic", "claude-opus-4-6"),
        ("claude-opus-4-6[1m]", "anthropic", "claude-opus-4-6"),
        ("claude-opus-4.6:thinking", "anthropic", "claude-opus-4-6"),
        ("claude-opus-4@20250514", "anthropic", "claude-opus-4-0"),
        ("us.anthropic.claude-opus-4-6-v1:0", "aws", "regional.anthropic.claude-opus-4-6-v1:0"),
        ("bedrock/us.anthropic.claude-opus-4-6-v1:0", "aws", "regional.anthropic.claude-opus-4-6-v1:0"),
        ("openrouter/anthropic/claude-opus-4.6", "openrouter", "anthropic/claude-opus-4.6"),
        ("openai/gpt-5.5", "openai", "gpt-5.5"),
        ("gpt-4o-2024-08-06", "openai", "gpt-4o"),
        ("gpt-5.5-20260423", "openai", "gpt-5.5"),
        ("gpt-5.5-2027-01-01", "openai", "gpt-5.5"),
        ("azure/gpt-4o", "openai", "gpt-4o"),
        ("models/gemini-2.5-pro", "google", "gemini-2.5-pro"),
        ("gemini/gemini-2.5-pro", "google", "gemini-2.5-pro"),
        ("my-gateway/gpt-4o", "openai", "gpt-4o"),
    ],
)
def test_a_model_is_found_under_its_many_spellings(spelling: str, provider: str, name: str) -> None:
    found = profile(spelling)
    assert (found.provider, found.name) == (provider, name)


def test_the_provider_that_was_asked_decides_the_price() -> None:
    assert profile("anthropic/claude-opus-4.6", provider="openrouter").provider == "openrouter"
    assert profile("us.anthropic.claude-opus-4-6-v1:0", provider="aws.bedrock").input == 5.5
    assert profile("claude-opus-4-6", provider="anthropic").provider == "anthropic"
    assert profile("claude-opus-4-6", provider="somebody-unknown").provider == "anthropic"


SEEN_IN_LOGS = [
    "claude-3-5-haiku-20241022",
    "claude-3-sonnet-20240229",
    "claude-haiku-4-5-20251001",
    "claude-opus-4-5-20251101",
    "claude-opus-4-6",
    "claude-sonnet-4",
    "claude-sonnet-4-0",
    "claude-sonnet-4-20250514",
    "claude-sonnet-4-5",
    "claude-sonnet-4-5-20250929",
    "claude-sonnet-4-6",
    "gemini-2.0-flash",
    "gpt-3.5-turbo",
    "gpt-4-0125-preview",
    "gpt-4.1",
    "gpt-4.1-2025-04-14",
    "gpt-4.1-mini",
    "gpt-4o",
    "gpt-4o-2024-05-13",
    "gpt-4o-2024-08-06",
    "gpt-4o-mini",
    "gpt-4o-mini-2024-07-18",
    "gpt-5-nano",
    "gpt-5.1-codex",
    "gpt-5.3-codex",
    "gpt-5.4",
    "gpt-5.5",
    "o3-mini",
    "o4-mini",
]
"""Models of real logs of a dozen tools."""


@pytest.mark.parametrize("model", SEEN_IN_LOGS)
def test_models_of_real_logs_have_a_price(model: str) -> None:
    found = profile(model)
    assert found.input is not None
    assert found.output is not None
    assert found.cost_usd(Usage(input_uncached=1_000_000, output=0)) == pytest.approx(
        found.prices_at(1_000_000).input or 0
    )


@pytest.mark.parametrize("model", ["<synthetic>", "unknown", "", "llama3:8b", "gpt-5.3-codex-spark", None])
def test_an_unknown_model_has_no_profile(model: str | None) -> None:
    assert lookup(model) is None


def test_prices_step_up_for_long_prompts() -> None:
    found = profile("gpt-5.5")
    assert [tier.above_tokens for tier in found.tiers] == [272_000]
    assert found.prices_at(272_000).input == 5.0
    assert found.prices_at(272_001).input == 10.0
    short = found.cost_usd(Usage(input_uncached=272_000, output=0))
    long = found.cost_usd(Usage(input_uncached=272_001, output=0))
    assert short == pytest.approx(272_000 * 5e-6)
    assert long == pytest.approx(272_001 * 10e-6)


def test_a_call_costs_the_sum_of_its_columns() -> None:
    usage = Usage(
        input_uncached=1000, cache_read=50_000, cache_write_5m=2000, cache_write_1h=300, output=400, reasoning=100
    )
    expected = (1000 * 5 + 50_000 * 0.5 + 2000 * 6.25 + 300 * 10 + 400 * 25) / 1e6
    assert profile("claude-opus-4-6").cost_usd(usage) == pytest.approx(expected)


def test_an_unknown_price_or_count_makes_the_cost_unknown_and_never_0() -> None:
    found = profile("gpt-4-0125-preview")
    assert found.cache_read is None
    assert found.cost_usd(Usage(input_uncached=10, output=10)) is not None
    assert found.cost_usd(Usage(input_uncached=10, cache_read=10, output=10)) is None
    assert found.cost_usd(Usage(input_uncached=10, cache_read=0, output=10)) is not None
    assert found.cost_usd(Usage(input_uncached=10)) is None
    assert found.cost_usd(Usage(output=10)) is None
    assert profile("gpt-4o").cost_usd(Usage(input_uncached=1, cache_write_1h=5, output=1)) is None


def test_derived_prices_follow_the_documented_rules_and_are_named() -> None:
    openrouter = profile("openrouter/anthropic/claude-opus-4.6")
    assert openrouter.derived == {"cache_write_1h"}
    assert openrouter.cache_write_1h == 2 * (openrouter.input or 0)
    assert profile("gpt-4o").derived == {"cache_write_5m"}
    assert profile("gpt-4o").cache_write_5m == profile("gpt-4o").input
    assert profile("claude-opus-4-6").derived == frozenset()
    assert profile("gpt-5.6").derived == frozenset()
    assert profile("gpt-5.6").cache_write_5m == 1.25 * (profile("gpt-5.6").input or 0)


@pytest.mark.parametrize(
    ("model", "ttl_s", "minimum"),
    [
        ("claude-opus-4-6", 300, 4096),
        ("claude-opus-4-8", 300, 1024),
        ("claude-sonnet-4-20250514", 300, 1024),
        ("claude-sonnet-5", 300, 1024),
        ("claude-haiku-4-5-20251001", 300, 4096),
        ("claude-3-5-haiku-20241022", 300, 2048),
        ("claude-opus-5", 300, 512),
        ("claude-opus-5-5", 300, 0),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", 300, 4096),
        ("gpt-4o", 300, 1024),
        ("gpt-5.5", 300, 1024),
        ("gpt-5.6", 1800, 1024),
        ("gemini-2.5-pro", 300, 4096),
        ("gemini-2.5-flash", 300, 1024),
        ("gpt-4-0125-preview", None, 0),
        ("grok-4", None, 0),
    ],
)
def test_cache_rules_are_those_the_providers_document(model: str, ttl_s: int | None, minimum: int) -> None:
    found = profile(model)
    assert (found.cache_ttl_s, found.min_cached_tokens) == (ttl_s, minimum)
    assert (found.cache_source is None) == (ttl_s is None)


def test_the_dearest_hour_counts_where_the_price_depends_on_the_hour() -> None:
    assert profile("deepseek-chat").input == 0.27


def test_every_row_of_the_table_becomes_a_valid_profile() -> None:
    rows = [(provider["id"], row) for provider in SHIPPED["providers"] for row in provider["models"]]
    assert len(rows) > 2000
    for provider, row in rows:
        made = prices._profile(provider, row)
        assert list(made.tiers) == sorted(made.tiers, key=lambda tier: tier.above_tokens)
        assert all(isinstance(tier, PriceTier) for tier in made.tiers)


def test_a_repeated_look_up_searches_nothing_and_the_table_loads_without_profiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = profile("claude-opus-4-6")

    def refuse(*_: object) -> None:
        raise AssertionError("made anew")

    monkeypatch.setattr(prices, "_profile", refuse)
    prices._table.__wrapped__()
    monkeypatch.setattr(prices, "_table", refuse)
    assert profile("claude-opus-4-6") is first
