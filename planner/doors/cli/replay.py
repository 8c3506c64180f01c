"""The command `apportion replay`."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from apportion.planner.doors._contents import originals_path
from apportion.planner.doors.cli._common import BROKEN_PIPE, INTERRUPTED, complain_of, forget_output, interrupts
from apportion.planner.doors.cli._files import STDIO, Output, check_outputs, given_paths, output, write_output
from apportion.planner.doors.cli._json import JsonFileCommand
from apportion.planner.doors.cli._numbers import amount, share, whole_number
from apportion.planner.doors.cli._stdin import watching_standard_input

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from apportion.planner.doors.cli._common import Interrupts
    from apportion.planner.replay.engine import Progress
    from apportion.planner.report.schema import ReplayReport
    from apportion.records import Budget
    from apportion.settings import LoadedSettings

MOST_TOKENS = 2**53
"""Largest token budget: what a double holds exactly."""

MOST_USD = 1_000_000.0
"""Largest budget in US dollars."""

MOST_JOBS = 1024
"""Most parallel processes, as for the setting replay.jobs."""

HEAD_CHARS = 1_500
"""Characters of a piece that was left out which `--show-content` shows."""

MOST_WORKFLOWS = 10**9
"""Largest limit of workflows."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    summary = "Replay workflow logs: what would planning have saved?"
    app.command("replay", cls=JsonFileCommand, help=_HELP, short_help=summary, no_args_is_help=True)(replay_command)


_HELP = """Replay workflow logs with planning: what would it have saved, and what would it have cost?

Rebuilds the prompt of every model call, plans before each as a live orchestrator would, and sets five ledgers side by
side: visible tokens, real prompt tokens, transmitted tokens, the bill (cache-priced), and prefix stability.

\b
Examples:
  apportion replay ~/.claude/projects
  apportion replay session.jsonl.gz --json report.json --html report.html
  apportion replay logs/ --budget-tokens 2000000 --target-reduction 0.5
  apportion replay logs/ --against rule-a --against clear-10
  apportion replay logs/ --html report.html --show-content

\b
Baselines for --against, each replayed on the same logs and billed alike:
  nothing       send every prompt as it is
  clear-10      mask tool results older than 10 calls, at every call
  keep-last-20  drop all tool results but the last 20, for good
  rule-a        mask what was seen once when the cache is cold,
                else every 20 calls what is older than 10
  equal-split   our plan, with the budget in equal parts
"""


def replay_command(  # noqa: PLR0917  (typer gives options by name)
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="Log files, directories or glob patterns; - reads one log from standard input.",
            show_default=False,
        ),
    ],
    budget_tokens: Annotated[
        int | None,
        typer.Option(
            parser=whole_number("--budget-tokens", most=MOST_TOKENS),
            metavar="TOKENS",
            help="Limit of each workflow in total tokens: prompts and outputs of all calls.",
        ),
    ] = None,
    budget_usd: Annotated[
        float | None,
        typer.Option(
            parser=amount("--budget-usd", most=MOST_USD),
            metavar="AMOUNT",
            help="Limit of each workflow in US dollars.",
        ),
    ] = None,
    target_reduction: Annotated[
        float | None,
        typer.Option(
            parser=share("--target-reduction"),
            metavar="SHARE",
            help="Share of visible tokens to save, from 0 to 1, where that does not raise the bill.",
        ),
    ] = None,
    select: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL",
            help="Leave parts of new results out behind handles where that pays: recoverable (all facts stay in view) "
            "or recoverable_98, _95, _90, _85 (that share of the facts of a result stays).",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            parser=whole_number("--jobs", most=MOST_JOBS),
            metavar="NUMBER",
            help="Parallel processes; default: one per processor within 1 GB of memory, one for small logs.",
        ),
    ] = None,
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json", metavar="FILE", help="Write the report as JSON; - prints it instead of the usual result."
        ),
    ] = None,
    html_file: Annotated[
        str | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Write the report as one self-contained HTML file; needs the extra 'report'.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            parser=whole_number("--limit", most=MOST_WORKFLOWS),
            metavar="NUMBER",
            help="Replay at most this many workflows.",
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="NAME",
            help="Replay a baseline as well, and compare: nothing, clear-10, keep-last-20, rule-a or equal-split. "
            "Repeatable; each costs one more pass.",
            show_default=False,
        ),
    ] = None,
    learned: Annotated[  # noqa: FBT002
        bool,
        typer.Option(
            "--learned",
            help="Forecast demand with the models that `apportion train` has saved, instead of documented priors. "
            "On logs from which they have learned the figures flatter.",
        ),
    ] = False,
    show_content: Annotated[  # noqa: FBT002
        bool,
        typer.Option(
            "--show-content",
            help="Show in the report how the largest pieces that were left out begin. Off by default: a report holds "
            "figures and names, and no content.",
        ),
    ] = False,
    keep_originals: Annotated[  # noqa: FBT002
        bool,
        typer.Option(
            "--keep-originals",
            help="Keep the originals of these pieces in the store of originals, and name their handles in the report "
            "for `apportion expand`.",
        ),
    ] = False,
    quiet: Annotated[  # noqa: FBT002
        bool, typer.Option("--quiet", "-q", help="No progress bar, and no word about the files written.")
    ] = False,
    verbose: Annotated[  # noqa: FBT002
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="Show more: kinds of content, agents, workflows, logged usage, forecasts, settings, and every "
            "skipped file and line.",
        ),
    ] = False,
) -> None:
    """Replay workflow logs."""
    from apportion.records import Budget

    with interrupts() as pressed:
        with _told_when_interrupted(pressed):
            outputs = _outputs(json_file, html_file)
            check_outputs(outputs, paths, given_paths(paths))
            rivals = _rivals(against)
            loaded = _settings(target_reduction, jobs)
            _say_when_off(loaded)
            budget = Budget(max_tokens=budget_tokens, max_usd=budget_usd)
            with watching_standard_input(paths), _progress(show=not quiet) as progress:
                models = loaded.settings.telemetry.models_folder if learned else None
                report = _replay(
                    paths,
                    loaded,
                    budget,
                    limit,
                    rivals,
                    models,
                    select,
                    _noting_what_is_done(pressed, progress),
                    head_chars=HEAD_CHARS if show_content else 0,
                    originals=originals_path(None) if keep_originals else None,
                )
            if not (report.complete or report.workflows):
                raise KeyboardInterrupt
        pressed.reportable = False  # what is interrupted from now on is the writing
        _deliver(report, outputs, verbose=verbose, quiet=quiet)
    if not report.complete:
        raise typer.Exit(INTERRUPTED)


@contextmanager
def _told_when_interrupted(pressed: Interrupts) -> Iterator[None]:
    """Say that nothing came of it when Ctrl-C comes before there is anything to report, or once more before it is."""
    try:
        yield
    except KeyboardInterrupt:
        when = "again" if pressed.reportable else "before the first workflow was done"
        typer.echo(f"interrupted {when}; no report was written", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _noting_what_is_done(
    pressed: Interrupts, progress: Callable[[Progress], None] | None
) -> Callable[[Progress], None]:
    """Let Ctrl-C know that there is something to report."""

    def note(done: Progress) -> None:
        pressed.reportable = True
        if progress is not None:
            progress(done)

    return note


def _outputs(json_file: str | None, html_file: str | None) -> list[Output]:
    """Return what is to be written.

    Raises:
        InputError: The name of a file is empty, or the HTML report is to go to standard output.
        MissingExtraError: The HTML report needs what is not installed.
    """
    from apportion.errors import InputError, MissingExtraError
    from apportion.planner.report import html

    if html_file == STDIO:
        raise InputError("--html cannot print to standard output", hint="Name a file: --html report.html")
    if html_file is not None and not html.available():
        raise MissingExtraError("the HTML report", extra="report")
    named = (("--json", json_file), ("--html", html_file))
    return [output(option, name) for option, name in named if name is not None]


def _rivals(names: list[str] | None) -> tuple[str, ...]:
    """Return the baselines to compare with.

    Raises:
        InputError: A name is unknown.
    """
    if not names:
        return ()
    from apportion.planner.replay.baselines import find_baselines

    return find_baselines(names)


def _settings(target_reduction: float | None, jobs: int | None) -> LoadedSettings:
    from apportion.settings import load_settings

    return load_settings(overrides={"token_optimization.target_reduction": target_reduction, "replay.jobs": jobs})


def _say_when_off(loaded: LoadedSettings) -> None:
    """Say before the report that planning is switched off, and by what."""
    if loaded.settings.token_optimization.enabled:
        return
    place = loaded.origin("token_optimization.enabled")
    note = f"planning is switched off by {place}; every prompt is counted as it was"
    if loaded.settings.token_optimization.target_reduction is not None:
        given = loaded.origin("token_optimization.target_reduction") == "argument"
        note += f"; {'--target-reduction' if given else 'token_optimization.target_reduction'} is ignored"
    typer.echo(f"note: {note}", err=True)


def _replay(
    paths: list[str],
    loaded: LoadedSettings,
    budget: Budget,
    limit: int | None,
    against: tuple[str, ...],
    models: Path | None,
    select: str | None,
    progress: Callable[[Progress], None] | None,
    *,
    head_chars: int,
    originals: Path | None,
) -> ReplayReport:
    from apportion.planner.replay.engine import replay

    optimization = loaded.settings.token_optimization
    return replay(
        paths,
        budget=budget,
        target_reduction=optimization.target_reduction,
        enabled=optimization.enabled,
        select=select,
        off=optimization.off,
        jobs=loaded.settings.replay.jobs,
        limit=limit,
        against=against,
        models=models,
        outcomes=loaded.settings.telemetry.database,
        head_chars=head_chars,
        originals=originals,
        progress=progress,
    )


def _progress(*, show: bool) -> AbstractContextManager[Callable[[Progress], None] | None]:
    """Show a progress bar on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    @contextmanager
    def bar() -> Iterator[Callable[[Progress], None] | None]:
        console = Console(stderr=True)
        if not (show and console.is_terminal):
            yield None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Bar(*columns, console=console, transient=True) as shown:
            task = shown.add_task("reading logs", total=None)

            def update(progress: Progress) -> None:
                shown.update(
                    task,
                    description=f"{progress.workflows} workflows, {progress.calls:,} calls; files",
                    completed=progress.files,
                    total=progress.total_files,
                )

            yield update

    return bar()


def _deliver(report: ReplayReport, outputs: Sequence[Output], *, verbose: bool, quiet: bool) -> None:
    """Print and write a report; what one output suffers does not keep the others from being written.

    Raises:
        ApportionError: Something could not be written; it was said of every other such thing.
        typer.Exit: Nobody reads standard output any more, or Ctrl-C came; what is missing then was said.
    """
    from apportion.errors import ApportionError

    pending = sorted(outputs, key=lambda each: not each.to_stdout)
    written: list[str] = []
    failures: list[ApportionError] = []
    read_on = True
    try:
        if not any(each.to_stdout for each in outputs):
            try:
                read_on = _print(report, verbose=verbose)
            except ApportionError as error:
                failures.append(error)
        while pending:
            try:
                write_output(pending[0], _text(report, pending[0]))
                written += [] if pending[0].to_stdout else [pending[0].name]
            except BrokenPipeError:
                read_on = False
            except ApportionError as error:
                failures.append(error)
            del pending[0]
    except KeyboardInterrupt:
        missing = "; not written: " + ", ".join(each.name for each in pending) if pending else ""
        typer.echo(f"interrupted{_what_was(written)}{missing}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if written and not quiet:
        typer.echo(f"wrote {', '.join(written)}", err=True)
    for failure in failures[:-1]:
        complain_of(failure)
    if failures:
        raise failures[-1]
    if not read_on:
        raise typer.Exit(BROKEN_PIPE)


def _what_was(written: Sequence[str]) -> str:
    return f"; wrote {', '.join(written)}" if written else ""


def _print(report: ReplayReport, *, verbose: bool) -> bool:
    """Show a report in the terminal, and say whether somebody reads on."""
    from rich.console import Console

    from apportion.errors import InputError
    from apportion.planner.report import terminal

    try:
        terminal.render(report, Console(), verbose=verbose)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # rich exits where the reader has gone
        forget_output()
        return False
    except OSError as error:
        forget_output()
        raise InputError(f"cannot write to standard output: {error.strerror or error}") from error
    return True


def _text(report: ReplayReport, target: Output) -> str:
    from apportion.planner.report import html

    return html.to_html(report) if target.option == "--html" else report.to_json() + "\n"
