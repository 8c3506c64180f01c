"""What sessions told of themselves while they ran: how it is written to the telemetry store, and read from it.

Figures are sums over events; what no event states is `None`, never 0. Every row has a checksum: a damaged one is
counted and left out.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from apportion.telemetry._database import Database
from apportion.telemetry._privacy import load_hasher
from apportion.telemetry._rows import bind, unbind
from apportion.telemetry.live_events import LOSSES, LiveEvent

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from apportion.telemetry._privacy import Hasher

MAX_EVENTS = 200_000
"""Events that are kept; the oldest go first. At some 300 bytes each they take 60 MB."""

MAX_AGE_DAYS = 90
"""Days after which events go, as originals do."""

_PRUNED_EVERY = 20
"""Batches after which old events are looked for."""

_PAGE = 2000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class StoreSink:
    """Writes events to a telemetry store.

    Args:
        path: The file; it is created where it does not exist.
        max_events: Events that are kept.

    Raises:
        StoreError: The file is not a telemetry store, too new, damaged, or cannot be opened.
    """

    def __init__(self, path: Path, *, max_events: int = MAX_EVENTS) -> None:
        self._database = Database(path)
        self._max_events = max_events
        self._batches = 0
        try:
            self.hasher: Hasher = load_hasher(self._database)
        except BaseException:
            self._database.close()
            raise

    def write(self, events: Sequence[LiveEvent]) -> None:
        """Store some events in one transaction.

        Raises:
            StoreError: They cannot be stored.
        """
        rows = [_row(event) for event in events]
        with self._database.writing() as connection:
            connection.executemany(
                "INSERT INTO live_events (recorded_us, kind, workflow, agent, agent_run, data, checksum)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(*row, _checksum(row)) for row in rows],
            )
            if self._batches % _PRUNED_EVERY == 0:
                self._prune(connection, rows[-1][0] if rows else 0)
        self._batches += 1

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _prune(self, connection: sqlite3.Connection, now_us: int) -> None:
        oldest = now_us - MAX_AGE_DAYS * 86_400_000_000
        connection.execute(
            "DELETE FROM live_events WHERE key <= (SELECT max(key) FROM live_events) - ?"
            " OR key < (SELECT key FROM live_events WHERE recorded_us >= ? ORDER BY key LIMIT 1)",
            (self._max_events, oldest),
        )


class AgentVariance(NamedTuple):
    """What an agent was allocated, and what it used.

    Attributes:
        agent: Its type name, or `None` where events name none.
        calls: Calls that were carried out.
        tokens: What they used, prompts and outputs.
        compared: Runs in a stage for which both is known.
        allocated_tokens: What those were allocated, or `None` where none was.
        used_tokens: What those used, or `None`.
        within: Share of those that used no more than was allocated, in [0, 1], or `None`.
        median_variance: Used above allocated as a share of allocated, median over those, or `None`.
        cost_usd: What all calls cost, or `None` where a price is unknown.
    """

    agent: str | None
    calls: int
    tokens: int
    compared: int
    allocated_tokens: int | None
    used_tokens: int | None
    within: float | None
    median_variance: float | None
    cost_usd: float | None


class HitRate(NamedTuple):
    """How often a lookup found something.

    Attributes:
        hits: Lookups that did.
        misses: Lookups that did not.
    """

    hits: int
    misses: int

    @property
    def ratio(self) -> float | None:
        """Hits per lookup, in [0, 1], or `None` without any."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None


class Optimization(NamedTuple):
    """What optimisation saved a workflow.

    Attributes:
        workflow: Its name, or `None` where events name none.
        steps: Calls that were carried out.
        input_tokens: What their prompts had.
        saved_tokens: What their prompts would have had besides.
        cost_usd: What the calls cost, or `None` where a price is unknown.
        saved_usd: What they would have cost besides, or `None`; below 0 it was a loss.
        actions: How many pieces each action changed.
        diff_saved_tokens: What was not sent because a delta was.
        preloads: Agents that were prepared and then used, and prepared only.
        expansions: What readers had back.
        expanded_tokens: Its tokens.
        first_at: Time of the first event.
        last_at: Time of the last one.
    """

    workflow: str | None
    steps: int
    input_tokens: int
    saved_tokens: int
    cost_usd: float | None
    saved_usd: float | None
    actions: dict[str, int]
    diff_saved_tokens: int
    preloads: HitRate
    expansions: int
    expanded_tokens: int
    first_at: datetime
    last_at: datetime

    @property
    def saved_share(self) -> float | None:
        """Share of prompt tokens that were not sent, in [0, 1], or `None` without any."""
        whole = self.input_tokens + self.saved_tokens
        return self.saved_tokens / whole if whole else None


class Losses(NamedTuple):
    """Events that are missing.

    Attributes:
        dropped: Found no room in the queue.
        malformed: Were no events.
        failed: Could not be written, by any of the sinks.
        damaged: Were written and are damaged now.
    """

    dropped: int
    malformed: int
    failed: int
    damaged: int


class DiffUse(NamedTuple):
    """What was handed on between agents.

    Attributes:
        handed: Contexts.
        deltas: Those that were handed on as deltas.
        whole_tokens: Tokens of the messages, had all held whole contexts.
        sent_tokens: Tokens of the messages.
        model_tokens_saved: Of what is saved, where the receiving model itself held the base; the rest is transport.
        reasons: Why whole contexts were handed on, the most frequent first.
    """

    handed: int = 0
    deltas: int = 0
    whole_tokens: int = 0
    sent_tokens: int = 0
    model_tokens_saved: int = 0
    reasons: dict[str, int] = {}  # noqa: RUF012  (never changed)

    @property
    def saved_tokens(self) -> int:
        """Tokens that were not transported."""
        return self.whole_tokens - self.sent_tokens


class PreloadUse(NamedTuple):
    """What came of loading agents ahead.

    Attributes:
        hits: Agents that came and had been loaded ahead.
        misses: Agents that came and had not.
        wasted: Agents that were loaded ahead and did not come.
        peak_bytes: Most bytes in memory, or `None` where no event says so.
    """

    hits: int = 0
    misses: int = 0
    wasted: int = 0
    peak_bytes: int | None = None

    @property
    def hit_rate(self) -> float | None:
        """Hits per agent that came, in [0, 1], or `None` without any."""
        return self.hits / (self.hits + self.misses) if self.hits + self.misses else None


class LoadingUse(NamedTuple):
    """What was loaded of the tools, skills and agent files on offer.

    Attributes:
        runs: Agent runs that were offered some.
        calls: Their calls.
        saved_tokens: Tokens that the prompts of these calls did not have.
        misses: How often a run needed a tool that was not loaded.
        loaded: How often it loaded something else: a skill, a section, the whole of a brief definition, the list.
        loaded_tokens: Tokens of all that was loaded later.
    """

    runs: int = 0
    calls: int = 0
    saved_tokens: int = 0
    misses: int = 0
    loaded: int = 0
    loaded_tokens: int = 0


class LiveSummary(NamedTuple):
    """What sessions told of themselves.

    Attributes:
        events: Events that were read.
        agents: What each agent was allocated and used, those with most calls first.
        decisions: How often each decision was taken.
        reasons: Why steps were not run, or not as they should be, the most frequent first.
        degraded: What was not as it should be, the most frequent first.
        caches: How often each cache had what was asked for.
        workflows: What optimisation saved each workflow, the latest last.
        losses: Events that are missing.
        diff: What was handed on between agents.
        preload: What came of loading agents ahead.
        loading: What was loaded of the tools, skills and agent files on offer.
    """

    events: int
    agents: tuple[AgentVariance, ...]
    decisions: dict[str, int]
    reasons: dict[str, int]
    degraded: dict[str, int]
    caches: dict[str, HitRate]
    workflows: tuple[Optimization, ...]
    losses: Losses
    diff: DiffUse = DiffUse()
    preload: PreloadUse = PreloadUse()
    loading: LoadingUse = LoadingUse()


def read_events(database: Database, *, workflow: str | None = None) -> Iterator[LiveEvent | None]:
    """Yield the events of a store, or of one workflow in it, in their order; `None` in place of a damaged one.

    Raises:
        StoreError: They cannot be read.
    """
    after = 0
    while True:
        with database.reading() as connection:
            rows = connection.execute(
                "SELECT key, recorded_us, kind, workflow, agent, agent_run, data, checksum FROM live_events"
                " WHERE key > :after AND (:workflow IS NULL OR workflow = :workflow) ORDER BY key LIMIT :page",
                {"after": after, "workflow": bind(workflow), "page": _PAGE},
            ).fetchall()
        if not rows:
            return
        yield from map(_event, rows)
        after = rows[-1]["key"]


def session_names(path: Path) -> list[str]:
    """Return the names of the sessions that told something, those that began first at the beginning.

    Raises:
        StoreError: The store cannot be read.
    """
    database = Database(path)
    try:
        with database.reading() as connection:
            rows = connection.execute(
                "SELECT workflow FROM live_events WHERE workflow IS NOT NULL GROUP BY workflow ORDER BY min(key)"
            ).fetchall()
    finally:
        database.close()
    return [str(unbind(row["workflow"])) for row in rows]


def damaged_events(connection: sqlite3.Connection) -> int:
    """Return how many events are not as they were written."""
    rows = connection.execute("SELECT recorded_us, kind, workflow, agent, agent_run, data, checksum FROM live_events")
    return sum(_checksum(written) != checksum for *written, checksum in rows)


def summarise_events(events: Iterable[LiveEvent | None]) -> LiveSummary:
    """Add up what sessions told of themselves."""
    sums = _Sums()
    for event in events:
        sums.add(event)
    return sums.summary()


def read_summary(path: Path, *, workflow: str | None = None) -> LiveSummary:
    """Return what sessions told of themselves, from the file of a telemetry store.

    Raises:
        StoreError: It cannot be read.
    """
    database = Database(path)
    try:
        return summarise_events(read_events(database, workflow=workflow))
    finally:
        database.close()


@dataclass(slots=True)
class _Agent:
    calls: int = 0
    tokens: int = 0
    usd: float | None = 0.0


@dataclass(slots=True)
class _Workflow:
    first: int
    last: int = 0
    steps: int = 0
    input: int = 0
    saved: int = 0
    usd: float | None = 0.0
    saved_usd: float | None = 0.0
    actions: Counter[str] = field(default_factory=Counter)
    diff_saved: int = 0
    preloads: list[int] = field(default_factory=lambda: [0, 0])
    expansions: int = 0
    expanded: int = 0


@dataclass(slots=True)
class _Run:
    """An agent run in a stage: what it was allocated last, and what it used."""

    agent: str | None
    allocated: int | None = None
    used: int = 0


class _Sums:
    """Figures while events are gone through."""

    def __init__(self) -> None:
        self._events = 0
        self._agents: defaultdict[str | None, _Agent] = defaultdict(_Agent)
        self._runs: dict[tuple[Any, ...], _Run] = {}
        self._workflows: dict[str | None, _Workflow] = {}
        self._decisions: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._degraded: Counter[str] = Counter()
        self._caches: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
        self._dropped = self._malformed = self._failed = self._damaged = 0
        self._diff: Counter[str] = Counter()
        self._diff_reasons: Counter[str] = Counter()
        self._preload: Counter[str] = Counter()
        self._preload_peak: int | None = None
        self._loading: Counter[str] = Counter()
        self._loaded: dict[tuple[str | None, str | None], int] = {}

    def add(self, event: LiveEvent | None) -> None:
        """Take one event into account."""
        if event is None:
            self._damaged += 1
            return
        self._events += 1
        if event.kind == LOSSES:
            self._dropped += _number(event, "dropped")
            self._malformed += _number(event, "malformed")
            self._failed += _number(event, "failed")
            if isinstance(event.data.get("reason"), str):
                self._degraded[f"telemetry: {event.data['reason']}"] += 1
            return
        workflow = self._workflows.setdefault(event.workflow, _Workflow(event.at_ns))
        workflow.last = event.at_ns
        take = _TAKEN.get(event.kind)
        if take is not None:
            take(self, event, workflow)

    def summary(self) -> LiveSummary:
        """Return the figures."""
        agents = sorted((self._variance(name, sums) for name, sums in self._agents.items()), key=lambda one: -one.calls)
        return LiveSummary(
            events=self._events,
            agents=tuple(agents),
            decisions=dict(self._decisions.most_common()),
            reasons=dict(self._reasons.most_common()),
            degraded=dict(self._degraded.most_common()),
            caches={name: HitRate(*counts) for name, counts in self._caches.items()},
            workflows=tuple(_optimization(name, sums) for name, sums in self._workflows.items()),
            losses=Losses(self._dropped, self._malformed, self._failed, self._damaged),
            diff=DiffUse(**self._diff, reasons=dict(self._diff_reasons.most_common())),
            preload=PreloadUse(**self._preload, peak_bytes=self._preload_peak),
            loading=LoadingUse(runs=len(self._loaded), **self._loading),
        )

    def add_step(self, event: LiveEvent, _workflow: _Workflow) -> None:
        decision = event.data.get("decision")
        if isinstance(decision, str):
            self._decisions[decision] += 1
        self._reasons.update(each for each in event.data.get("reasons") or () if isinstance(each, str))

    def add_usage(self, event: LiveEvent, workflow: _Workflow) -> None:
        prompt, output = _number(event, "input_tokens"), _number(event, "output_tokens")
        usd, saved_usd = event.data.get("cost_usd"), event.data.get("saved_usd")
        agent = self._agents[event.agent]
        agent.calls += 1
        agent.tokens += prompt + output
        agent.usd = _plus(agent.usd, usd)
        workflow.steps += 1
        if (saved := self._loaded.get((event.workflow, event.run_id))) is not None:
            self._loading["calls"] += 1
            self._loading["saved_tokens"] += saved
        workflow.input += prompt
        workflow.saved += _number(event, "saved_tokens")
        workflow.usd = _plus(workflow.usd, usd)
        workflow.saved_usd = _plus(workflow.saved_usd, saved_usd)
        key = (event.workflow, event.agent, event.run_id, event.data.get("stage"))
        run = self._runs.setdefault(key, _Run(event.agent))
        run.used += prompt + output
        if isinstance(event.data.get("allocated_tokens"), int):
            run.allocated = event.data["allocated_tokens"]

    def add_action(self, event: LiveEvent, workflow: _Workflow) -> None:
        workflow.actions[str(event.data.get("action"))] += 1

    def add_cache(self, event: LiveEvent, _workflow: _Workflow) -> None:
        counts = self._caches[str(event.data.get("cache"))]
        counts[0] += _number(event, "hits")
        counts[1] += _number(event, "misses")

    def add_expansion(self, event: LiveEvent, workflow: _Workflow) -> None:
        workflow.expansions += 1
        workflow.expanded += _number(event, "tokens")

    def add_diff(self, event: LiveEvent, workflow: _Workflow) -> None:
        delta, whole, sent = event.data.get("mode") == "delta", *map(partial(_number, event), _DIFF_TOKENS)
        saved = whole - sent if delta else 0
        workflow.diff_saved += saved
        self._diff["handed"] += 1
        self._diff["deltas"] += delta
        self._diff["whole_tokens"] += whole
        self._diff["sent_tokens"] += sent
        self._diff["model_tokens_saved"] += saved if event.data.get("in_prompt") is True else 0
        if isinstance(event.data.get("reason"), str):
            self._diff_reasons[event.data["reason"]] += 1

    def add_preload(self, event: LiveEvent, workflow: _Workflow) -> None:
        if isinstance(event.data.get("used"), bool):
            workflow.preloads[0 if event.data["used"] else 1] += 1
        used = event.data.get("used")
        status = event.data.get("status") or ("hit" if used is True else "wasted" if used is False else None)
        name = _PRELOADS.get(str(status))
        if name is not None:
            self._preload[name] += 1
        if isinstance(event.data.get("peak_bytes"), int):
            self._preload_peak = max(self._preload_peak or 0, event.data["peak_bytes"])

    def add_loading(self, event: LiveEvent, _workflow: _Workflow) -> None:
        status = event.data.get("status")
        if status == "settled":
            saved = _number(event, "whole_tokens") - _number(event, "tokens")
            self._loaded[event.workflow, event.run_id] = saved
        elif status in _LOADED:
            self._loading[_LOADED[status]] += 1
            self._loading["loaded_tokens"] += _number(event, "tokens")

    def add_degraded(self, event: LiveEvent, _workflow: _Workflow) -> None:
        self._degraded[
            ": ".join(str(event.data[name]) for name in ("component", "reason") if event.data.get(name))
        ] += 1

    def _variance(self, name: str | None, sums: _Agent) -> AgentVariance:
        runs = [run for run in self._runs.values() if run.agent == name and run.allocated]
        pairs = [(run.allocated or 0, run.used) for run in runs]
        return AgentVariance(
            agent=name,
            calls=sums.calls,
            tokens=sums.tokens,
            compared=len(pairs),
            allocated_tokens=sum(one for one, _ in pairs) if pairs else None,
            used_tokens=sum(used for _, used in pairs) if pairs else None,
            within=sum(used <= one for one, used in pairs) / len(pairs) if pairs else None,
            median_variance=statistics.median(used / one - 1 for one, used in pairs) if pairs else None,
            cost_usd=sums.usd,
        )


_DIFF_TOKENS = ("whole_tokens", "sent_tokens")
_PRELOADS = {"hit": "hits", "miss": "misses", "wasted": "wasted"}
_LOADED = {"miss": "misses", "loaded": "loaded"}

_TAKEN: dict[str, Callable[[_Sums, LiveEvent, _Workflow], None]] = {
    "step": _Sums.add_step,
    "usage": _Sums.add_usage,
    "action": _Sums.add_action,
    "cache": _Sums.add_cache,
    "expansion": _Sums.add_expansion,
    "diff": _Sums.add_diff,
    "preload": _Sums.add_preload,
    "loading": _Sums.add_loading,
    "degraded": _Sums.add_degraded,
}


def _optimization(name: str | None, sums: _Workflow) -> Optimization:
    return Optimization(
        workflow=name,
        steps=sums.steps,
        input_tokens=sums.input,
        saved_tokens=sums.saved,
        cost_usd=sums.usd if sums.steps else None,
        saved_usd=sums.saved_usd if sums.steps else None,
        actions=dict(sums.actions.most_common()),
        diff_saved_tokens=sums.diff_saved,
        preloads=HitRate(*sums.preloads),
        expansions=sums.expansions,
        expanded_tokens=sums.expanded,
        first_at=_moment(sums.first),
        last_at=_moment(sums.last),
    )


def _number(event: LiveEvent, name: str) -> int:
    value = event.data.get(name)
    return int(value) if isinstance(value, int | float) else 0


def _plus(total: float | None, more: object) -> float | None:
    """Add a price; with one that is unknown the sum is unknown."""
    return total + more if total is not None and isinstance(more, int | float) else None


def _moment(at_ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at_ns // 1000)


def _row(event: LiveEvent) -> tuple[Any, ...]:
    names = (bind(name) for name in (event.workflow, event.agent, event.run_id))
    return (event.at_ns // 1000, event.kind, *names, json.dumps(event.data, separators=(",", ":")))


def _checksum(row: Sequence[Any]) -> bytes:
    return hashlib.sha256(repr(tuple(row)).encode("utf-8", "surrogatepass")).digest()[:16]


def _event(row: sqlite3.Row) -> LiveEvent | None:
    """Return the event of a row, or `None` where it is not as it was written."""
    _, *written, checksum = row
    if _checksum(written) != checksum:
        return None
    recorded_us, kind, *names, data = written
    workflow, agent, run_id = map(unbind, names)
    return LiveEvent(recorded_us * 1000, kind, workflow, agent, run_id, json.loads(data))
