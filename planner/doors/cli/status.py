"""The command `apportion status`."""

from __future__ import annotations

import shlex
import textwrap
from pathlib import Path  # noqa: TC003  (typer reads the annotations)
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from apportion.planner.doors.cli._common import WIDTH, print_json, say
from apportion.planner.doors.cli._tables import table
from apportion.planner.doors.cli.telemetry import JsonOption, StoreOption, telemetry_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from apportion.models.drift import DriftVerdict
    from apportion.models.outcomes import Variance
    from apportion.planner.ledger import Account
    from apportion.settings import TelemetrySettings
    from apportion.telemetry.importing import ImporterInfo
    from apportion.telemetry.sessions import AgentVariance, LiveSummary, Optimization
    from apportion.telemetry.store import SourceSummary, StoreSummary, TelemetryStore

AGENTS = 15
"""Agent types, accounts and sessions that are shown; JSON has all of them."""

REASONS = 5
"""Reasons that are shown, the most frequent ones; JSON has all of them."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("status", help=_HELP, short_help="Show budgets, variance, caches, losses, and what is stored.")(
        status_command
    )


_HELP = """Show budgets, what agents were allocated and used, what is cached, what was lost, and what is stored.

Budgets are those of the ledger. Sessions tell what they do while they run: what agents were allocated and used, which
decisions were taken and why, what was not as it should be, and how many of these events were lost. --show-optimization
says what optimisation saved each of them. Imported logs follow: a usage that no log mentions is shown as "-", and "~"
marks figures to which an estimate contributes.

\b
Examples:
  apportion status
  apportion status --show-optimization
  apportion status --json

Exit codes: 0 shown; 2 the store cannot be read.
"""


def status_command(
    *,
    store: StoreOption = None,
    as_json: JsonOption = False,
    show_optimization: Annotated[
        bool, typer.Option("--show-optimization", help="Show what optimisation saved each session.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="List the importers too.")] = False,
) -> None:
    """Show budgets, what agents were allocated and used, what is cached, what was lost, and what is stored."""
    from apportion.telemetry.importing import installed_importers
    from apportion.telemetry.sessions import read_summary
    from apportion.telemetry.store import TelemetryStore

    settings = telemetry_settings(store)
    summary = planned = live = None
    if settings.database.exists():
        with TelemetryStore(settings.database, capture_content=settings.capture_content) as opened:
            summary = opened.summary()
            planned = _planned_against_used(opened, settings.models_folder)
        live = read_summary(settings.database)
    budgets = _budgets(settings)
    importers = installed_importers()
    kept = _kept(settings.database)
    if as_json:
        data = _status_json(settings, summary, planned, importers) | kept
        print_json(data | {"ledger": budgets.to_json(), "sessions": None if live is None else _live_json(live)})
    else:
        _show_budgets(budgets)
        if live is not None:
            _show_live(live, optimization=show_optimization)
        _show_status(settings, summary, store)
        if planned is not None:
            _show_planned(planned)
        _show_kept(kept)
        _show_importers(importers, verbose=verbose)


class _Budgets(NamedTuple):
    """How the accounts of the ledger beside the telemetry store stand.

    Attributes:
        path: Its file.
        accounts: The accounts, or `None` where there is no ledger, or none that can be read.
        problem: Why it cannot be read, or `None`.
    """

    path: Path
    accounts: Sequence[Account] | None
    problem: str | None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        from apportion.planner.doors.cli.ledger import account_json

        accounts = None if self.accounts is None else [account_json(one) for one in self.accounts]
        return {"path": str(self.path), "accounts": accounts, "problem": self.problem}


def _budgets(settings: TelemetrySettings) -> _Budgets:
    from apportion.errors import StoreError
    from apportion.planner.ledger import Ledger

    path = settings.database.with_name("ledger.db")
    if not path.exists():
        return _Budgets(path, None, None)
    try:
        with Ledger(path, create=False) as ledger:
            return _Budgets(path, ledger.accounts(), None)
    except StoreError as error:
        return _Budgets(path, None, str(error))


def _show_budgets(budgets: _Budgets) -> None:
    from apportion.planner.doors.cli.ledger import account_rows
    from apportion.planner.report.figures import plain

    if budgets.problem is not None:
        say(plain(f"budgets: {budgets.problem}"))
    if budgets.accounts:
        say(f"budgets: {plain(str(budgets.path))}")
        shown = list(account_rows(budgets.accounts[:AGENTS]))
        for line in table(["Account", "Unit", "Total", "Spent", "Held", "Free"], shown):
            say(line)
        if len(budgets.accounts) > AGENTS:
            say(f"and {len(budgets.accounts) - AGENTS:,} more: apportion ledger show")
    if budgets.problem is not None or budgets.accounts:
        say()


def _live_json(live: LiveSummary) -> dict[str, Any]:
    return {
        "events": live.events,
        "agents": [agent._asdict() for agent in live.agents],
        "decisions": live.decisions,
        "reasons": live.reasons,
        "degraded": live.degraded,
        "caches": {name: {**rate._asdict(), "hit_ratio": rate.ratio} for name, rate in live.caches.items()},
        "optimization": [_optimization_json(one) for one in live.workflows],
        "losses": live.losses._asdict(),
        "diff": {**live.diff._asdict(), "saved_tokens": live.diff.saved_tokens},
        "preload": {**live.preload._asdict(), "hit_rate": live.preload.hit_rate},
        "loading": live.loading._asdict(),
    }


def _optimization_json(one: Optimization) -> dict[str, Any]:
    times = {"first_at": one.first_at.isoformat(), "last_at": one.last_at.isoformat()}
    preloads = {"used": one.preloads.hits, "unused": one.preloads.misses}
    return {**one._asdict(), "preloads": preloads, "saved_share": one.saved_share, **times}


def _show_live(live: LiveSummary, *, optimization: bool) -> None:
    """Show what sessions told of themselves."""
    from apportion.planner.report.figures import breakable, count, percent, plain

    if not (live.events or live.losses.damaged):
        if optimization:
            say("optimisation: no session has told anything yet\n")
        return
    say(f"sessions: {count(live.events, 'event')}")
    if live.agents:
        for line in table(_AGENT_HEADERS, [_agent_row(agent) for agent in live.agents[:AGENTS]]):
            say(line)
        if len(live.agents) > AGENTS:
            say(f"and {len(live.agents) - AGENTS:,} more agent types; --json lists them")
        say("Within: runs that used no more than they were allocated. Variance: use above")
        say("what was allocated, median.")
    if live.decisions:
        say(plain("decisions: " + ", ".join(f"{number:,} {name}" for name, number in live.decisions.items())))
    _show_counted("reasons", live.reasons)
    _show_counted("degraded", live.degraded)
    for name, rate in live.caches.items():
        asked = f"{rate.hits + rate.misses:,}"
        say(breakable(plain(f"cache {name}: hit rate {percent(rate.ratio)} of {asked}")))
    _show_handed(live)
    lost = live.losses
    say(
        f"losses: {lost.dropped:,} dropped, {lost.malformed:,} malformed, {lost.failed:,} not written, "
        f"{lost.damaged:,} damaged"
    )
    if optimization:
        _show_optimization(live.workflows)
    say()


def _show_handed(live: LiveSummary) -> None:
    """Show what was loaded, loaded ahead and handed on, where there was anything."""
    from apportion.planner.report.figures import breakable, count, percent, plain

    loading, preload, diff = live.loading, live.preload, live.diff
    if loading.runs:
        say(
            breakable(
                f"loading: {loading.saved_tokens:,} tokens of tools, skills and agent files not sent in "
                f"{count(loading.calls, 'call')} of {count(loading.runs, 'run')}; "
                f"{count(loading.misses, 'tool')} missed, {loading.loaded:,} other texts loaded"
            )
        )
    if preload.hits + preload.misses + preload.wasted:
        peak = "" if preload.peak_bytes is None else f"; at most {preload.peak_bytes:,} bytes in memory"
        say(
            breakable(
                f"preload: {percent(preload.hit_rate)} of {count(preload.hits + preload.misses, 'agent')} had been "
                f"loaded ahead; {preload.wasted:,} loaded in vain{peak}"
            )
        )
    if diff.handed:
        say(
            breakable(
                f"diff: {diff.deltas:,} of {count(diff.handed, 'context')} handed on as deltas; "
                f"{diff.saved_tokens:,} of {diff.whole_tokens:,} tokens not sent, "
                f"{diff.model_tokens_saved:,} of them where the receiving model held the rest"
            )
        )
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in diff.reasons.items())
        if reasons:
            say(plain(f"  whole: {reasons}"))


_AGENT_HEADERS = ["Agent", "Calls", "Allocated", "Used", "Within", "Variance", "USD"]


def _agent_row(agent: AgentVariance) -> list[str]:
    from apportion.planner.report import figures

    return [
        agent.agent or "(no name)",
        f"{agent.calls:,}",
        figures.tokens(agent.allocated_tokens),
        figures.tokens(agent.tokens),
        figures.percent(agent.within),
        _signed(agent.median_variance),
        _usd(agent.cost_usd),
    ]


def _show_counted(title: str, counted: Mapping[str, int]) -> None:
    from apportion.planner.report.figures import plain

    if not counted:
        return
    say(f"{title}:")
    for text, number in list(counted.items())[:REASONS]:
        say(textwrap.fill(plain(f"{number:,} x {text}"), WIDTH, initial_indent="  ", subsequent_indent="    "))
    if len(counted) > REASONS:
        say(f"  and {len(counted) - REASONS:,} more; --json lists them")


def _show_optimization(workflows: Sequence[Optimization]) -> None:
    from apportion.planner.report.figures import percent, plain, tokens

    say("\noptimisation:")
    rows = [
        [
            one.workflow or "(no name)",
            f"{one.steps:,}",
            tokens(one.input_tokens),
            tokens(one.saved_tokens),
            percent(one.saved_share),
            _usd(one.cost_usd),
            _usd(one.saved_usd),
        ]
        for one in workflows[-AGENTS:]
    ]
    headers = ["Session", "Calls", "Input\ntokens", "Not\nsent", "Share", "Cost\nUSD", "Saved\nUSD"]
    for line in table(headers, rows):
        say(line)
    if len(workflows) > AGENTS:
        say(f"and {len(workflows) - AGENTS:,} earlier ones; --json lists them")
    actions: dict[str, int] = {}
    for one in workflows:
        for name, number in one.actions.items():
            actions[name] = actions.get(name, 0) + number
    if actions:
        say(plain("actions: " + ", ".join(f"{number:,} {name}" for name, number in actions.items())))
    used, unused = (sum(one.preloads[position] for one in workflows) for position in (0, 1))
    expanded = sum(one.expanded_tokens for one in workflows)
    say(f"deltas: {sum(one.diff_saved_tokens for one in workflows):,} tokens not sent")
    say(f"preloads: {used:,} of {used + unused:,} used")
    say(f"expansions: {sum(one.expansions for one in workflows):,}, of {expanded:,} tokens")


def _signed(share: float | None) -> str:
    from apportion.planner.report.figures import UNKNOWN

    return UNKNOWN if share is None else f"{share:+.0%}".replace("%", " %")


def _usd(amount: float | None) -> str:
    from apportion.planner.report.figures import UNKNOWN

    return UNKNOWN if amount is None else f"{amount:,.4f}"


class _Planned(NamedTuple):
    """What came of forecasts of agent runs.

    Attributes:
        version: The version in use, whose forecasts these are; `None` where there is none: then those of all versions.
        problem: Why it cannot be told which version is in use, or `None`.
        total: How good the forecasts were.
        by_agent: The same by framework and agent type, the most frequent first.
        drift: Whether they still fit; `None` without a version in use.
    """

    version: str | None
    problem: str | None
    total: Variance
    by_agent: dict[tuple[str, str], Variance]
    drift: DriftVerdict | None


def _planned_against_used(store: TelemetryStore, folder: Path) -> _Planned:
    from apportion.errors import InputError
    from apportion.models.outcomes import LATEST, drift_of, variance_by_agent, variance_of
    from apportion.models.persistence import current_version

    version = problem = None
    try:
        version = current_version(folder)
    except InputError as error:
        problem = str(error)
    outcomes = store.outcomes(version=version)
    drift = None if version is None else drift_of(outcomes[-LATEST:])
    return _Planned(version, problem, variance_of(outcomes), variance_by_agent(outcomes), drift)


def _planned_json(planned: _Planned) -> dict[str, Any]:
    return {
        "version": planned.version,
        "problem": planned.problem,
        **planned.total.model_dump(),
        "by_agent": [
            {"framework": framework, "agent": agent, **figures.model_dump()}
            for (framework, agent), figures in planned.by_agent.items()
        ],
        "drift": None if planned.drift is None else planned.drift.model_dump(),
    }


def _status_json(
    settings: TelemetrySettings,
    summary: StoreSummary | None,
    planned: _Planned | None,
    importers: Sequence[ImporterInfo],
) -> dict[str, Any]:
    store: dict[str, Any] = {"path": str(settings.database), "exists": summary is not None}
    if summary is None:
        store["capture_content"] = settings.capture_content
    else:
        times = {"first_at": summary.first_at, "last_at": summary.last_at}
        store |= summary.model_dump(exclude={"path", *times})
        store |= {name: None if time is None else time.isoformat() for name, time in times.items()}
    return {
        "schema": "apportion.status/1",
        "store": store,
        "forecasts": None if planned is None else _planned_json(planned),
        "importers": [info._asdict() for info in importers],
    }


def _show_status(settings: TelemetrySettings, summary: StoreSummary | None, store: Path | None) -> None:
    from apportion.planner.report.figures import count, plain

    say(f"store: {plain(str(settings.database))}")
    if summary is None:
        option = "" if store is None else f" --store {shlex.quote(str(store))}"
        say(f"  does not exist yet; create it with: apportion import PATH{plain(option)}")
        return
    say(f"  {summary.size_bytes:,} bytes, schema version {summary.schema_version}, journal {summary.journal_mode}")
    say(f"  new contents are {'captured' if summary.capture_content else 'not captured'}")
    kept = f"{count(summary.captured_workflows, 'workflow')} with contents"
    say(f"  {kept}, {count(summary.redactions, 'secret')} taken out")
    say(
        f"  {count(summary.workflows, 'workflow')}, {count(summary.calls, 'call')}, "
        f"{count(summary.agents, 'agent run')}{_period(summary)}"
    )
    _show_sources(summary.sources)


def _show_sources(sources: Sequence[SourceSummary]) -> None:
    if not sources:
        return
    say()
    headers = ["Source (framework)", "Workflows", "Calls", "Agents", "Text tokens"]
    for line in table(headers, [_source_row(source) for source in sources]):
        say(line)
    say()
    for line in table(_USAGE_HEADERS, [row for source in sources for row in _usage_rows(source)]):
        say(line)
    say('Usage as logged: "-" unknown, "~" partly estimated.')
    say("Text tokens: what the events hold, each counted once.")


def _show_planned(planned: _Planned) -> None:
    """Show what came of forecasts, where there were any."""
    from apportion.planner.report.figures import plain

    if planned.problem is not None:
        say(plain(f"\nforecasts: {planned.problem}"))
    if planned.total.count:
        say()
        say(f"Planned against used, {f'models {planned.version}' if planned.version else 'models of all versions'}:")
        rows = [_planned_row(f"{agent} ({framework})", one) for (framework, agent), one in planned.by_agent.items()]
        hidden = len(rows) - AGENTS
        rows = [*rows[:AGENTS], _planned_row("all", planned.total)]
        for line in table(["Agent (framework)", "Runs", "Within", "Width", "Bias"], rows):
            say(line)
        if hidden > 0:
            say(f"and {hidden:,} more agent types; --json lists them")
        say("Within: runs that used no more than the 90 % quantile of their forecast. Width:")
        say("that quantile by the use, median. Bias: median forecast above the use, median.")
    elif planned.version is not None:
        say(f"\nno workflow has been imported since models {planned.version} were trained")
    if planned.drift is not None and planned.total.count:
        said = f"drift: {planned.drift.reason}" if planned.drift.reason else "no drift"
        for line in textwrap.wrap(plain(said), WIDTH):
            say(line)


def _planned_row(name: str, figures: Variance) -> list[str]:
    from apportion.planner.report.figures import percent, times

    return [name, f"{figures.count:,}", percent(figures.coverage), times(figures.width), _signed(figures.bias)]


def _kept(database: Path) -> dict[str, Any]:
    """Return what the cache and the store of originals beside a telemetry store hold; `None` where there is none."""
    from apportion.compression.cache.memory import CacheCounts
    from apportion.compression.cache.sqlite_level import SqliteLevel
    from apportion.compression.sqlite_store import SqliteHandleStore
    from apportion.errors import StoreError

    kept: dict[str, Any] = {"cache": None, "originals": None}
    cache, originals = (database.with_name(f"{database.name}.{name}") for name in kept)
    if cache.exists():
        kept["cache"] = {"path": str(cache), "problem": None}
        try:
            level = SqliteLevel(cache)
            held = level.summary()
            level.close(CacheCounts())
            kept["cache"] |= {
                "entries": held.entries,
                "bytes": held.bytes,
                "runs": held.runs,
                "hit_ratio": held.total.hit_ratio,
                "last_hit_ratio": held.last.hit_ratio,
                **{name: getattr(held.total, name) for name in ("asked", "damaged", "failures")},
            }
        except StoreError as error:
            kept["cache"]["problem"] = str(error)
    if originals.exists():
        kept["originals"] = {"path": str(originals), "problem": None}
        try:
            with SqliteHandleStore(originals) as store:
                kept["originals"] |= store.totals()._asdict()
        except StoreError as error:
            kept["originals"]["problem"] = str(error)
    return kept


def _show_kept(kept: dict[str, Any]) -> None:
    """Show the cache and the store of originals, where there are any."""
    from apportion.planner.report.figures import breakable, count, percent, plain

    for name, held in kept.items():
        if held is None:
            continue
        say(f"\n{name}: {plain(held['path'])}")
        if held["problem"] is not None:
            say(plain(f"  {held['problem']}"))
        elif name == "cache":
            say(f"  {count(held['entries'], 'result')}, {held['bytes']:,} bytes")
            runs = f"in the last {count(held['runs'], 'run')}, {percent(held['last_hit_ratio'])} in the last one"
            say(breakable(f"  hit rate {percent(held['hit_ratio'])} of {held['asked']:,} {runs}"))
            if held["damaged"] or held["failures"]:
                say(f"  {held['damaged']:,} damaged, {count(held['failures'], 'failure')}: each was a miss")
        else:
            say(f"  {count(held['contents'], 'original')}, {held['bytes']:,} bytes in {held['stored_bytes']:,}")
            say(f"  {held['evictions']:,} evicted so far")


def _source_row(source: SourceSummary) -> list[str]:
    from apportion.planner.report.figures import tokens

    numbers = (source.workflows, source.usage.calls, source.agents)
    return [_name(source), *(f"{number:,}" for number in numbers), tokens(source.content_tokens)]


_USAGE_HEADERS = [
    "Source (framework)\n  model",
    "Input,\nuncached",
    "Cache\nread",
    "Write\n5 min",
    "Write\n1 h",
    "Output",
    "Reason-\ning",
]


def _usage_rows(source: SourceSummary) -> Iterator[list[str]]:
    yield [_name(source), *_usage_cells(source.usage)]
    for model in source.models:
        yield [f"  {model.model or '(model unknown)'}", *_usage_cells(model)]


def _name(source: SourceSummary) -> str:
    return f"{source.source} ({source.framework})"


def _usage_cells(usage: Any) -> list[str]:
    from apportion.planner.report import figures
    from apportion.records import USAGE_COLUMNS

    return [
        ("~" if column in usage.estimated else "") + figures.tokens(getattr(usage, column)) for column in USAGE_COLUMNS
    ]


def _period(summary: StoreSummary) -> str:
    if summary.first_at is None or summary.last_at is None:
        return ""
    return f",\n  from {summary.first_at:%Y-%m-%d} to {summary.last_at:%Y-%m-%d}"


def _show_importers(importers: Sequence[ImporterInfo], *, verbose: bool) -> None:
    """Say how many importers there are, and name those that do not load, or all."""
    from apportion.planner.report.figures import count, plain

    working = sum(info.error is None for info in importers)
    more = "" if verbose else "; --verbose lists them"
    say(f"\n{count(working, 'importer')} installed{more}")
    for info in importers:
        place = f"{info.distribution} {info.version or ''}".rstrip()
        if info.error is not None:
            say(plain(f"  {info.name} of {place} does not load: {info.error}"))
        elif verbose:
            say(plain(f"  {info.name:<16}  {info.title}  ({place})"))
