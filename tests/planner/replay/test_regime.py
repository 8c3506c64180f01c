"""How a workflow used the prompt cache, from what its log says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from apportion.planner.planner import PlanOptions
from apportion.planner.replay.context import logged_calls
from apportion.planner.replay.regime import (
    LIFETIME_ASSUMED,
    LIFETIME_INFERRED,
    NOT_CACHED,
    CacheRegime,
    cache_regime,
    with_lifetimes,
)
from apportion.planner.replay.workflow import replay_workflow
from apportion.records import Kind, Usage
from apportion.telemetry.events import LogBuilder, WorkflowLog
from apportion.telemetry.importers import read_logs
from apportion.telemetry.reading import SkipLog

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
OPUS = "claude-opus-4-6"
SESSIONS = Path(__file__).parents[3] / "fixtures" / "logs" / "sessions"


def usage(read: int, written: int, column: str = "cache_write_5m", *, stated: bool = False) -> Usage:
    estimated = frozenset() if stated or not written else frozenset({column})
    return Usage(**{"input_uncached": 0, "cache_read": read, column: written, "output": 5}, estimated=estimated)


def log_of(*calls: tuple[str, float, Usage | None], model: str = OPUS) -> WorkflowLog:
    """Make a log of `(agent run, minute, usage)` per call."""
    builder = LogBuilder("w", source="test", framework="test")
    for run in dict.fromkeys(run for run, _, _ in calls):
        builder.add(Kind.USER, "task " * 8000, agent=run, agent_run=run)
    for number, (run, minute, used) in enumerate(calls):
        builder.add(
            Kind.ASSISTANT, "done", agent=run, agent_run=run, call=number, model=model, usage=used,
            started_at=NOON + timedelta(minutes=minute),
        )  # fmt: skip
    log = builder.build()
    assert log is not None
    return log


def regime_of(*calls: tuple[str, float, Usage | None], model: str = OPUS) -> CacheRegime:
    return cache_regime(list(logged_calls(log_of(*calls, model=model))))


FIRST = ("main", 0.0, usage(0, 10_000))


@pytest.mark.parametrize(
    ("minute", "read", "hour"),
    [
        (5, 10_000, False),
        (6, 10_000, True),
        (6, 5_000, True),
        (6, 4_999, False),
        (60, 10_000, True),
        (61, 10_000, False),
    ],
)
def test_a_cache_that_was_read_after_five_minutes_lives_one_hour(minute: float, read: int, *, hour: bool) -> None:
    regime = regime_of(FIRST, ("main", minute, usage(read, 100)))
    assert regime.one_hour == ({"main"} if hour else set())
    assert regime.reasons == {LIFETIME_INFERRED if hour else LIFETIME_ASSUMED}


def test_only_models_whose_provider_sells_one_hour_tell_it() -> None:
    assert not regime_of(FIRST, ("main", 30, usage(10_000, 100)), model="gpt-4o").one_hour


def test_the_evidence_of_one_run_holds_for_all_runs_whose_log_states_no_lifetime() -> None:
    evidence = (FIRST, ("main", 30, usage(10_000, 100)))
    unstated, stated = ("sub", 0.0, usage(0, 500)), ("other", 0.0, usage(0, 500, stated=True))
    assert regime_of(*evidence, unstated, stated).one_hour == {"main", "sub"}


def test_a_stated_lifetime_is_no_assumption() -> None:
    for column, runs in (("cache_write_5m", set[str]()), ("cache_write_1h", {"main"})):
        regime = regime_of(("main", 0, usage(0, 10_000, column, stated=True)))
        assert regime == CacheRegime(one_hour=frozenset(runs))


def test_the_assumed_column_follows_the_regime_and_stays_marked() -> None:
    log = log_of(FIRST, ("main", 30, usage(10_000, 100)))
    found = with_lifetimes(log, cache_regime(list(logged_calls(log)))).usage
    assert (found.cache_write_5m, found.cache_write_1h) == (None, 10_100)
    assert found.estimated == {"cache_write_1h"}
    assert found.prompt_tokens == log.usage.prompt_tokens


def test_the_bill_is_that_of_the_lifetime_and_the_report_says_so() -> None:
    result = replay_workflow(log_of(FIRST, ("main", 30, usage(10_000, 100))), PlanOptions(enabled=False))
    bills = [call.bill[0] for call in result.calls if call.bill is not None]
    assert bills == pytest.approx([10_000 * 10e-6 + 5 * 25e-6, 10_000 * 0.5e-6 + 100 * 10e-6 + 5 * 25e-6], rel=0.2)
    assert LIFETIME_INFERRED in result.degraded
    assert result.totals.usage.cache_write_1h == 10_100


def test_a_run_whose_log_states_no_cache_use_is_billed_without_a_cache() -> None:
    uncached = Usage(input_uncached=90_000, cache_read=0, cache_write_5m=0, output=5)
    result = replay_workflow(log_of(*(("main", number, uncached) for number in range(3))), PlanOptions(enabled=False))
    assert [call.bill[0] for call in result.calls if call.bill] == pytest.approx([90_000 * 5e-6 + 5 * 25e-6] * 3)
    assert result.totals.read_simulated[0] == 0
    assert NOT_CACHED in result.degraded


def test_a_single_use_of_the_cache_makes_a_run_cached() -> None:
    nothing = Usage(input_uncached=10_000, cache_read=0, cache_write_5m=0)
    assert regime_of(("main", 0, nothing), ("main", 1, None)).uncached == {"main"}
    assert not regime_of(("main", 0, nothing), ("main", 1, usage(0, 10))).uncached
    assert not regime_of(("main", 0, Usage(input_uncached=10_000))).uncached


def test_the_regime_of_a_native_log_that_states_it_is_that_log() -> None:
    """Real: this session writes for one hour, and its reads after long pauses show it."""
    (log,) = read_logs([SESSIONS / "claude-code-cipherbox.jsonl.zst"], SkipLog())
    regime = cache_regime(list(logged_calls(log)))
    assert "main" in regime.one_hour
    assert log.usage.cache_write_1h
