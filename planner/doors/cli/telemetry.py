"""The command `apportion import`."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion.planner.doors.cli._common import INTERRUPTED, print_json, say
from apportion.planner.doors.cli._files import given_paths
from apportion.planner.doors.cli._stdin import watching_standard_input
from apportion.planner.doors.cli._tables import table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from apportion.models.outcomes import RunForecasts
    from apportion.settings import TelemetrySettings
    from apportion.telemetry.importing import ImportTally
    from apportion.telemetry.store import TelemetryStore

MESSAGES = 5
"""Messages about skipped input that are shown without `--verbose`."""

StoreOption = Annotated[
    Path | None, typer.Option("--store", metavar="FILE", help="The telemetry store; default: telemetry.store_path.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("import", no_args_is_help=True, short_help="Import workflow logs into the telemetry store.")(
        import_command
    )


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
    settings = telemetry_settings(store, capture_content)
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


def telemetry_settings(store: Path | None, capture_content: bool | None = None) -> TelemetrySettings:  # noqa: FBT001
    """Return the settings of telemetry, with what the command line says."""
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
