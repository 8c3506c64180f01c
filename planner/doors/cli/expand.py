"""The command `apportion expand`."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  (typer reads the annotations)
from typing import Annotated

import typer

from apportion.planner.doors import _contents as contents
from apportion.planner.doors.cli._files import STDIO, check_outputs, output, write_output


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    summary = "Give back what was left out behind a handle."
    app.command("expand", help=_HELP, short_help=summary, no_args_is_help=True)(expand_command)


_HELP = """Give back what was left out behind a handle, byte for byte.

HANDLE and RANGE are as markers name them: 40-97 are lines, counted from 1, both included; 40 is one line, 40- all from
there on; b0-4000 are bytes, counted from 0, the last one not included. Without a range all comes back.

Originals are checked against their digest when they are read. Those that were evicted are refused, with the time.

\b
Examples:
  apportion expand h:3fa9c2d1 40-97
  apportion expand h:3fa9c2d1 --output original.log

Exit codes: 0 written; 2 there is no such original, or nothing in that range.
"""


def expand_command(
    handle: Annotated[str, typer.Argument(metavar="HANDLE", help="As in a marker, with or without its h:.")],
    text_range: Annotated[
        str | None, typer.Argument(metavar="[RANGE]", help="Lines 40-97 or bytes b0-4000.", show_default=False)
    ] = None,
    *,
    store: Annotated[
        Path | None,
        typer.Option("--store", metavar="FILE", help="The store of originals; default: beside the telemetry store."),
    ] = None,
    output_file: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Write it there; - is standard output.")
    ] = STDIO,
) -> None:
    """Give back what was left out behind a handle."""
    from apportion.compression.expand_tool import expand

    target = output("--output", output_file)
    path = contents.originals_path(store)
    check_outputs([target], [], [path])
    with contents.opened_originals(path, create=False) as originals:
        content = expand(originals, handle, text_range)
    write_output(target, content)
