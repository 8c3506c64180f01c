"""The command `apportion inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apportion.planner.doors.cli import _compression as shared
from apportion.planner.doors.cli._common import print_json
from apportion.planner.doors.cli._files import Output, check_outputs, output
from apportion.planner.doors.cli._numbers import whole_number


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    summary = "Show a content before and after compression, side by side."
    app.command("inspect", help=_HELP, short_help=summary, no_args_is_help=True)(inspect_command)


_HELP = """Show a content before and after compression, side by side, and what was left out and why.

Takes the options of compress, and keeps nothing. Facts are numbers, identifiers, paths, URLs, hashes, dates, versions,
quoted strings and error lines: those that do not show word for word are listed, with how they can be had back.

\b
Examples:
  apportion inspect response.json
  apportion inspect big.log --can-expand --strategy literals --html big.html

Exit codes: 0 shown; 2 the content or an option cannot be used.
"""


def inspect_command(
    file: shared.FileArgument,
    *,
    query: shared.QueryOption = "",
    target_tokens: shared.TargetOption = None,
    strategies: shared.StrategyOption = None,
    level: shared.LevelOption = None,
    can_expand: shared.CanExpandOption = False,
    html_file: Annotated[
        str | None,
        typer.Option("--html", metavar="FILE", help="Write all lines as one HTML file that needs no network."),
    ] = None,
    lines: Annotated[
        int,
        typer.Option(
            parser=whole_number("--lines", least=0, most=10**9),
            metavar="NUMBER",
            help="Rows that the terminal shows at most.",
        ),
    ] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON, without the lines.")] = False,
    list_strategies: shared.ListOption = False,  # noqa: ARG001  (its callback does the work)
) -> None:
    """Show a content before and after compression, side by side."""
    from apportion.compression.store import HandleStore
    from apportion.planner.report.inspection import inspect_outcome

    html = None if html_file is None else _html_output(html_file, file)
    strategy = shared.chosen(strategies, level, HandleStore())
    outcome = shared.run(strategy, shared.read_content(file), file, query, target_tokens, can_expand=can_expand)
    inspection = inspect_outcome(outcome, name=shared.shown_name(file))
    if html is not None:
        from apportion.planner.report.inspection_html import write_inspection

        write_inspection(inspection, html.path)
        typer.echo(f"wrote {html.name}", err=True)
    if as_json:
        print_json(inspection.to_json())
    elif html is None:
        from rich.console import Console

        from apportion.planner.report.inspection_terminal import render_inspection

        render_inspection(inspection, Console(highlight=False), lines=lines)


def _html_output(html_file: str, file: str) -> Output:
    from apportion.errors import InputError, MissingExtraError
    from apportion.planner.report.html import available

    html = output("--html", html_file)
    if html.to_stdout:
        raise InputError("--html needs a file", hint="Name one, for example --html report.html")
    if not available():
        raise MissingExtraError("the HTML report", extra="report")
    check_outputs([html], [file], [Path(file)])
    return html
