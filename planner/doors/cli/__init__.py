"""The command line: `apportion`.

Each module registers its commands; what they need is imported only when they run, so that `apportion --help` is quick.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from apportion.errors import ApportionError
from apportion.planner.doors.cli import (
    claude_code,
    compress,
    config,
    demo,
    diff,
    doctor,
    expand,
    handoff,
    inspect,
    ledger,
    mcp,
    models,
    optimization,
    plan,
    registry,
    replay,
    serve,
    status,
    telemetry,
    validate,
    whatif,
)
from apportion.planner.doors.cli._common import (
    BROKEN_PIPE,
    INTERRUPTED,
    USER_ERROR,
    complain,
    complain_of,
    ending_in_order_when_asked,
    forget_output,
)

__all__ = ["app", "main"]

app = typer.Typer(
    name="apportion",
    help="Plan token budgets for multi-agent LLM workflows.",
    epilog="Start with: apportion replay ~/.claude/projects",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # boxes leave too little room for words at 80 columns
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001  (typer calls it so)
    if wanted:
        from importlib.metadata import version

        typer.echo(f"apportion {version('apportion')}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Take the options that stand before a command; each does its work in a callback."""


for module in (
    config,
    plan,
    whatif,
    replay,
    compress,
    validate,
    inspect,
    expand,
    diff,
    handoff,
    registry,
    telemetry,
    status,
    optimization,
    doctor,
    models,
    ledger,
    mcp,
    demo,
    serve,
    claude_code,
):
    module.register(app)


def main() -> None:
    """Run the command line and exit.

    0 done, 1 when nobody reads on, 2 for a mistake of the user, 3 where no plan fits, 130 after Ctrl-C, 143 when asked
    to end. A mistake is told in one message on standard error, without a traceback.
    """
    # None where whoever started us has closed them, as `>&-` does; also, a file that we open must not get their number
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123  (it stays open)
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    try:
        with ending_in_order_when_asked():
            _run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        forget_output()
        sys.exit(BROKEN_PIPE)
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error))
        if not error.filename:  # standard output itself may be what cannot be written
            forget_output()
        sys.exit(USER_ERROR)


def _run() -> None:
    code: str | int | None = 0
    try:
        app(prog_name="apportion")
    except ApportionError as error:
        complain_of(error)
        code = USER_ERROR
    except SystemExit as ended:
        code = ended.code
    sys.stdout.flush()
    sys.exit(code)
