"""The command `apportion serve`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path  # noqa: TC003  (typer looks it up)
from typing import TYPE_CHECKING, Annotated

import typer

from apportion.planner.doors.cli import _serving as serving  # noqa: TC001  (typer looks it up)
from apportion.planner.doors.cli._common import collecting_no_garbage

if TYPE_CHECKING:
    from collections.abc import Callable

    from apportion.planner.session import Planner

PORT = 8766
"""Port of the resident planner."""

NO_LEDGER = "none"
"""What to give for a planner whose sessions know only their own budgets."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("serve", help=_HELP, short_help="Keep a planner ready for orchestrators and hooks, over HTTP.")(
        serve_command
    )


_HELP = """Keep a planner ready for orchestrators in any language and for hooks, over HTTP at http://127.0.0.1:8766.

Every request needs the bearer token that stands in a file, by default beside the telemetry store, which is made where
it does not exist and then shown once. GET /openapi.json describes what can be asked for. With --ledger none, sessions
know only their own budgets. Stops in order on Ctrl-C: calls that have not come back count as used. Needs the extra
serve (or mcp).

\b
Examples:
  apportion serve
  apportion serve --port 0 --token-file ~/.apportion-token
  apportion serve --host 0.0.0.0 --allow-remote planner.internal

Exit codes: 130 after Ctrl-C, 143 when asked to end; 2 an option cannot be used, or the extra is missing.
"""


def serve_command(
    *,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Address to listen at.")] = "127.0.0.1",
    port: serving.PortOption = PORT,
    allow_remote: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-remote",
            metavar="NAME",
            help="Name by which clients elsewhere call it; repeatable. Needed with --host of other machines.",
        ),
    ] = None,
    token_file: serving.TokenFileOption = None,
    store: serving.OriginalsOption = None,
    ledger: serving.LedgerOption = None,
    embeddings: Annotated[
        bool,
        typer.Option(
            "--embeddings/--no-embeddings",
            help="Keep the model by which meaning is compared warm, where the extra semantic is installed.",
        ),
    ] = True,
) -> None:
    """Keep a planner ready for orchestrators and hooks, over HTTP."""
    _require_extra()
    with collecting_no_garbage():
        from apportion.planner.doors._contents import beside_database
        from apportion.planner.doors._guards import token_of
        from apportion.planner.doors.claude_code.server import operation
        from apportion.planner.doors.cli.claude_code import elsewhere
        from apportion.planner.doors.http.server import serve
        from apportion.planner.doors.http.service import Service

    file = token_file or beside_database("token")
    file.parent.mkdir(parents=True, exist_ok=True)
    known = file.exists()
    token = token_of(file)
    typer.echo(f"bearer token in {file}" if known else f"bearer token (in {file}, shown once): {token}", err=True)

    def ready(url: str) -> None:
        typer.echo(f"serving at {url}", err=True)
        note = elsewhere(file)
        if note is not None:
            typer.echo(f"note: {note}", err=True)

    with ExitStack() as opened:
        service = Service(_maker(opened, store, ledger), embeddings=embeddings)
        serve(
            service,
            token=token,
            host=host,
            port=port,
            names=allow_remote or [],
            more=[operation(opened, originals=store, ledger=ledger)],
            ready=ready,
        )


def _maker(opened: ExitStack, store: Path | None, ledger: str | None) -> Callable[[], Planner]:
    """Open the stores, and return what makes the planner that settings ask for: its imports take longest."""
    from apportion.planner.doors import _contents as contents
    from apportion.settings import load_settings
    from apportion.telemetry.queue import Telemetry

    settings = load_settings().settings
    books = None
    if ledger != NO_LEDGER:
        from apportion.planner.ledger import Ledger

        books = opened.enter_context(Ledger(ledger or settings.telemetry.database.with_name("ledger.db")))
    telemetry = opened.enter_context(Telemetry.to_store(settings.telemetry.database))
    originals = opened.enter_context(
        contents.opened_originals(contents.originals_path(store), create=True, wait_s=contents.QUICK_S)
    )

    def make() -> Planner:
        from apportion.planner.forecasts import is_trained
        from apportion.planner.planner import PlanOptions
        from apportion.planner.session import Planner

        optimization, models = settings.token_optimization, settings.telemetry.models_folder
        options = PlanOptions(
            enabled=optimization.enabled,
            target_reduction=optimization.target_reduction,
            off=optimization.off,
            models=models if is_trained(models) else None,
        )
        return Planner(options, store=originals, ledger=books, telemetry=telemetry)

    return make


def _require_extra() -> None:
    from importlib.util import find_spec

    from apportion.errors import MissingExtraError

    if find_spec("uvicorn") is None or find_spec("starlette") is None:
        raise MissingExtraError("apportion serve", extra="serve")
