"""The commands `apportion import` and `apportion status`."""

from __future__ import annotations

import shlex
import textwrap
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from apportion.planner.doors.cli._common import INTERRUPTED, WIDTH, print_json, say
from apportion.planner.doors.cli._files import given_paths
from apportion.planner.doors.cli._stdin import watching_standard_input
from apportion.planner.doors.cli._tables import table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from apportion.models.drift import DriftVerdict
    from apportion.models.outcomes import RunForecasts, Variance
    from apportion.settings import TelemetrySettings
    from apportion.telemetry.importing import ImporterInfo, ImportTally
    from apportion.telemetry.store import SourceSummary, StoreSummary, TelemetryStore

MESSAGES = 5
"""Messages about skipped input that are shown without `--verbose`."""

AGENTS = 15
"""Agent types that are shown of those that were forecast; JSON has all of them."""

StoreOption = Annotated[
    Path | None, typer.Option("--store", metavar="FILE", help="The telemetry store; default: telemetry.store_path.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("import", no_args_is_help=True, short_help="Import workflow logs into the telemetry store.")(
        import_command
    )
    app.command("status", short_help="Show what the telemetry store holds.")(status_command)


def import_command(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="Log files, directories or glob patterns; - reads one log from standard input.",
        ),
    ],
    *,
    store: StoreOption = None,
    capture_content: Annotated[
        bool | None,
        typer.Option(
            "--capture-content/--no-capture-content",
            help="Keep the text of the logs, secrets taken out, not only hashes and counts; "
            "default: telemetry.capture_content.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be imported.")] = False,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no summary.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every skipped file and line.")] = False,
) -> None:
    """Import workflow logs into the telemetry store, from which `train` learns and of which `status` tells.

    It holds sizes, token counts, times, names and keyed hashes, and texts only if contents are captured. The key of the
    hashes is in FILE.key beside the store; without it nobody can guess a short text from its hash. What is stored
    already is not written again, so the command can be repeated, and interrupted, at any time.

    Where models were trained, the agent runs of new workflows are forecast as they were before each began, and what
    came of that is stored too: `status` shows it, and forecasts that no longer fit are widened.

    \b
    Examples:
      apportion import ~/.claude/projects
      apportion import 'logs/**/*.jsonl.gz' --dry-run
    """  # noqa: D301  (\b keeps the lines of the examples apart)
    from apportion.telemetry.importing import ImportTally, import_logs

    given_paths(paths)  # warns of those that are missing
    settings = _settings(store, capture_content)
    tally = ImportTally()
    shown = _progress(tally, show=not quiet)
    forecast = None if dry_run else _forecast(settings.models_folder)
    with watching_standard_input(paths), _opened(settings, forecast, dry_run=dry_run) as opened, shown as progress:
        try:
            import_logs(paths, opened, tally, dry_run=dry_run, progress=progress)
        except KeyboardInterrupt:
            tally.complete = False
    nothing = tally.complete and not tally.workflows.total()
    if as_json:
        print_json(_import_json(tally, settings.database, forecast, dry_run=dry_run))
    elif not (quiet or nothing):
        _show_import(tally, settings, dry_run=dry_run, verbose=verbose)
    _say_what_was_not_forecast(forecast)
    if not tally.complete:
        _say_how_far(tally, dry_run=dry_run)
        raise typer.Exit(INTERRUPTED)
    if nothing:
        raise _nothing_importable(tally)


def status_command(
    *,
    store: StoreOption = None,
    as_json: JsonOption = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="List the importers too.")] = False,
) -> None:
    """Show what the telemetry store holds, what came of forecasts, what is cached, and which importers are installed.

    A usage that no log mentions is shown as "-". "~" marks figures to which an estimate contributes.

    Example: apportion status --json
    """
    from apportion.telemetry.importing import installed_importers
    from apportion.telemetry.store import TelemetryStore

    settings = _settings(store, None)
    summary = planned = None
    if settings.database.exists():
        with TelemetryStore(settings.database, capture_content=settings.capture_content) as opened:
            summary = opened.summary()
            planned = _planned_against_used(opened, settings.models_folder)
    importers = installed_importers()
    kept = _kept(settings.database)
    if as_json:
        print_json(_status_json(settings, summary, planned, importers) | kept)
    else:
        _show_status(settings, summary, store)
        if planned is not None:
            _show_planned(planned)
        _show_kept(kept)
        _show_importers(importers, verbose=verbose)


def _settings(store: Path | None, capture_content: bool | None) -> TelemetrySettings:  # noqa: FBT001  (as parsed)
    from apportion.settings import load_settings

    overrides = {"telemetry.store_path": store, "telemetry.capture_content": capture_content}
    return load_settings(overrides=overrides).settings.telemetry


def _forecast(folder: Path) -> RunForecasts | None:
    """Return what forecasts the runs of new workflows, or `None` where no models were ever trained."""
    from apportion.planner.forecasts import is_trained

    if not is_trained(folder):
        return None
    from apportion.models.outcomes import RunForecasts

    return RunForecasts(folder)


def _opened(
    settings: TelemetrySettings, forecast: RunForecasts | None, *, dry_run: bool
) -> AbstractContextManager[TelemetryStore | None]:
    """Open the store; a dry run does not create one."""
    from apportion.telemetry.store import TelemetryStore

    if dry_run and not settings.database.exists():
        return nullcontext()
    return TelemetryStore(settings.database, capture_content=settings.capture_content, forecast=forecast)


@contextmanager
def _progress(tally: ImportTally, *, show: bool) -> Iterator[Callable[[], None] | None]:
    """Show a progress bar on standard error, where that is a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not (show and console.is_terminal):
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("looking for logs", total=None)

        def update() -> None:
            done = f"{tally.workflows.total():,} workflows, {tally.calls.total():,} calls; files"
            bar.update(task, description=done, completed=tally.files, total=tally.total_files)

        yield update


def _import_json(tally: ImportTally, store: Path, forecast: RunForecasts | None, *, dry_run: bool) -> dict[str, Any]:
    from apportion.telemetry.store import Added

    return {
        "schema": "apportion.import/1",
        "store": str(store),
        "dry_run": dry_run,
        "complete": tally.complete,
        "workflows": {added.value: tally.workflows[added] for added in Added},
        "calls": {added.value: tally.calls[added] for added in Added},
        "repeated": tally.repeated,
        "files": {
            "found": tally.total_files,
            "done": tally.files,
            "unchanged": tally.unchanged_files,
            "read_again": tally.read_again_files,
        },
        "skipped": {
            "files": tally.skipped.files,
            "lines": tally.skipped.lines,
            "messages": [str(message) for message in tally.skipped.messages],
        },
        "forecasts": None if forecast is None else {"runs": forecast.outcomes, "problem": forecast.problem},
    }


def _show_import(tally: ImportTally, settings: TelemetrySettings, *, dry_run: bool, verbose: bool) -> None:
    from apportion.planner.report.figures import count, plain
    from apportion.telemetry.store import Added

    for line in table(
        ["", "Workflows", "Calls"],
        [[added.value, f"{tally.workflows[added]:,}", f"{tally.calls[added]:,}"] for added in Added],
    ):
        say(line)
    say()
    say(f"{'nothing was written to' if dry_run else 'stored in'} {plain(str(settings.database))}")
    say(f"contents {'captured' if settings.capture_content else 'not captured'}")
    say(f"{count(tally.files, 'file')} done{_known_files(tally)}")
    if tally.repeated:
        say(f"{count(tally.repeated, 'workflow')} found more than once: counted once, and no fuller copy replaced")
    _show_skipped(tally, verbose=verbose)


def _known_files(tally: ImportTally) -> str:
    unread = f", {tally.unchanged_files:,} of them known and not read again" if tally.unchanged_files else ""
    if not tally.read_again_files:
        return unread
    return f"{unread},\n  {tally.read_again_files:,} known and read again to show what is skipped"


def _show_skipped(tally: ImportTally, *, verbose: bool) -> None:
    from apportion.planner.report.figures import count, plain

    skipped = tally.skipped
    if not (skipped.files or skipped.lines):
        return
    say(f"skipped: {count(skipped.files, 'file')}, {count(skipped.lines, 'line')}")
    shown = skipped.messages if verbose else skipped.messages[:MESSAGES]
    for message in shown:
        say(f"  {plain(str(message))}")
    hidden = skipped.files + skipped.lines - len(shown)
    if hidden:
        say(f"  and {hidden:,} more" + ("" if verbose else "; --verbose shows them"))


def _say_what_was_not_forecast(forecast: RunForecasts | None) -> None:
    from apportion.planner.report.figures import plain

    if forecast is not None and forecast.problem is not None:
        typer.echo(f"note: workflows were stored without forecasts: {plain(forecast.problem)}", err=True)


def _say_how_far(tally: ImportTally, *, dry_run: bool) -> None:
    stored = "" if dry_run else " What is stored is complete; run the same command again to go on."
    typer.echo(
        f"interrupted after {tally.files:,} of {tally.total_files:,} files and {tally.workflows.total():,} workflows."
        + stored,
        err=True,
    )


def _nothing_importable(tally: ImportTally) -> Exception:
    from apportion.errors import InputError
    from apportion.planner.report.figures import plain
    from apportion.telemetry.advice import advice
    from apportion.telemetry.importing import installed_importers

    reasons = "; ".join(plain(str(message)) for message in tally.skipped.messages[:3])
    titles = (info.title for info in installed_importers() if info.title)
    hint = advice(tally.skipped, titles)
    return InputError("there is nothing to import" + (f" ({reasons})" if reasons else ""), hint=hint)


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
    from apportion.planner.report.figures import UNKNOWN, percent, times

    bias = UNKNOWN if figures.bias is None else f"{figures.bias:+.0%}".replace("%", " %")
    return [name, f"{figures.count:,}", percent(figures.coverage), times(figures.width), bias]


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
