"""How the logged workflow used the provider's prompt cache: not at all, for five minutes, or for one hour.

This is what whoever makes the calls knows, because it configures the cache; most logs do not say it. So it is inferred
once from the whole log, holds for the baseline and the plan alike, and is told to the planner. It says nothing about
what later calls hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from apportion.planner.replay.billing import DEFAULT_TTL_S, LONG_TTL_S
from apportion.prices import lookup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apportion.planner.replay.context import LoggedCall
    from apportion.records import Usage
    from apportion.telemetry.events import Event, WorkflowLog

LIFETIME_INFERRED = "cache lifetime not in the log: one hour, inferred from cache reads after longer pauses"
LIFETIME_ASSUMED = "cache lifetime not in the log: five minutes assumed"
NOT_CACHED = "the log states that a run neither read nor wrote a cache: none simulated for it"
"""Reasons why the bill rests on an assumption about the cache."""

WARM_SHARE = 0.5
"""Share of the previous prompt that a call has to read from the cache to show that the cache was alive."""


@dataclass(frozen=True, slots=True)
class CacheRegime:
    """How each run of a workflow uses the prompt cache.

    Attributes:
        one_hour: Runs whose cache lives one hour.
        uncached: Runs that use no cache.
        reasons: What was assumed or inferred where the log does not say it.
    """

    one_hour: frozenset[str] = frozenset()
    uncached: frozenset[str] = frozenset()
    reasons: frozenset[str] = field(default=frozenset())


def cache_regime(calls: Sequence[LoggedCall]) -> CacheRegime:
    """Return how the runs of a workflow use the cache, from all of its calls.

    A run whose log states a lifetime follows it. Where it does not, one hour is inferred for all such runs of the
    workflow if any run states one hour, or if a call read half of its predecessor's prompt or more after a pause of
    five minutes to one hour, of a model whose provider sells one-hour writes; otherwise five minutes are assumed.
    """
    runs: dict[str, list[LoggedCall]] = {}
    for call in calls:
        runs.setdefault(call.first.agent_run, []).append(call)
    stated_hour = {run for run, of_run in runs.items() if any(_writes(call, "cache_write_1h") for call in of_run)}
    unstated = {run for run, of_run in runs.items() if any(_unstated(call.first.usage) for call in of_run)}
    unstated -= stated_hour
    uncached = frozenset(run for run, of_run in runs.items() if _without_cache(of_run))
    hour = bool(stated_hour) or any(_read_after_a_pause(of_run) for of_run in runs.values())
    reasons = {LIFETIME_INFERRED if hour else LIFETIME_ASSUMED} if unstated else set()
    if uncached:
        reasons.add(NOT_CACHED)
    silent = {run for run, of_run in runs.items() if not any(_writes(call, "cache_write_5m") for call in of_run)}
    return CacheRegime(
        one_hour=frozenset(stated_hour | (unstated | silent if hour else set())) - uncached,
        uncached=uncached,
        reasons=frozenset(reasons),
    )


def with_lifetimes(log: WorkflowLog, regime: CacheRegime) -> WorkflowLog:
    """Return the log with the cache writes of unstated lifetime in the column that the regime gives them."""
    if not regime.one_hour:
        return log
    return log.model_copy(update={"events": tuple(_with_lifetime(event, regime) for event in log.events)})


def _with_lifetime(event: Event, regime: CacheRegime) -> Event:
    usage = event.usage
    if usage is None or event.agent_run not in regime.one_hour or not _unstated(usage):
        return event
    moved = {
        "cache_write_5m": None,
        "cache_write_1h": (usage.cache_write_5m or 0) + (usage.cache_write_1h or 0),
        "estimated": usage.estimated - {"cache_write_5m"} | {"cache_write_1h"},
    }
    return event.model_copy(update={"usage": usage.model_copy(update=moved)})


def _writes(call: LoggedCall, column: str) -> bool:
    usage = call.first.usage
    return usage is not None and bool(getattr(usage, column)) and column not in usage.estimated


def _unstated(usage: Usage | None) -> bool:
    return usage is not None and bool(usage.cache_write_5m) and "cache_write_5m" in usage.estimated


def _without_cache(calls: Sequence[LoggedCall]) -> bool:
    """Say whether every call whose usage is logged states that it neither read nor wrote a cache."""
    usages = [call.first.usage for call in calls if call.first.usage is not None and call.first.usage.prompt_tokens]
    return bool(usages) and all(
        usage.cache_read == 0 and not usage.cache_write_5m and not usage.cache_write_1h for usage in usages
    )


def _read_after_a_pause(calls: Sequence[LoggedCall]) -> bool:
    """Say whether a call of a run found its cache alive later than five minutes after the call before it."""
    before: LoggedCall | None = None
    for call in calls:
        usage = call.first.usage
        if usage is None or not usage.prompt_tokens:
            continue
        if before is not None and not call.fresh and _sells_an_hour(call.first.model, before.first.model):
            previous = before.first.usage.prompt_tokens if before.first.usage is not None else None
            paused = DEFAULT_TTL_S < (_seconds(before, call) or 0.0) <= LONG_TTL_S
            if previous and paused and (usage.cache_read or 0) >= WARM_SHARE * previous:
                return True
        before = call
    return False


def _sells_an_hour(model: str | None, previous: str | None) -> bool:
    profile = lookup(model) if model is not None and model == previous else None
    return profile is not None and profile.cache_write_1h is not None


def _seconds(before: LoggedCall, call: LoggedCall) -> float | None:
    start, end = before.first.started_at, call.first.started_at
    return None if start is None or end is None else (end - start).total_seconds()
