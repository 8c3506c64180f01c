"""The command `apportion mcp`."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from apportion.planner.doors.cli import _serving as serving  # noqa: TC001  (typer looks it up)
from apportion.planner.doors.cli._common import INTERRUPTED, TERMINATED, collecting_no_garbage, print_json, say

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT = 8765
"""Port of the server over HTTP."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("mcp", help=_HELP, short_help="Serve the planner to models over MCP.")(mcp_command)


_HELP = """Serve the planner to models over MCP, the Model Context Protocol.

Speaks over standard input and output, as hosts start it; with --http over streamable HTTP at http://127.0.0.1:8765/mcp.
Over HTTP every request needs a bearer token: the one of --token-file, which is made where it does not exist, or one
that is shown at the start. Needs the extra mcp.

\b
Examples:
  claude mcp add apportion -- apportion mcp
  apportion mcp --http --token-file ~/.apportion-token
  apportion mcp --list

Exit codes: 0 the client has closed the connection; 2 an option cannot be used, or the extra is missing.
"""


def mcp_command(
    *,
    http: Annotated[bool, typer.Option("--http", help="Serve over streamable HTTP.")] = False,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address to listen at, with --http.")
    ] = "127.0.0.1",
    port: serving.PortOption = PORT,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Name by which clients elsewhere call it; repeatable."),
    ] = None,
    token_file: serving.TokenFileOption = None,
    store: serving.OriginalsOption = None,
    ledger: serving.LedgerOption = None,
    list_tools: Annotated[bool, typer.Option("--list", help="List the tools and what their schemas take.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --list: print JSON.")] = False,
) -> None:
    """Serve the planner to models over MCP."""
    if list_tools:
        _list(as_json=as_json)
        return
    _require_extra()
    with collecting_no_garbage():
        import anyio

        from apportion.planner.doors.mcp.server import serve_stdio
        from apportion.planner.doors.mcp.service import Service

    with Service(originals=store, ledger=ledger) as service:
        if not http:
            with _ending_at_once():
                anyio.run(serve_stdio, service)
            return
        from apportion.planner.doors._guards import token_of
        from apportion.planner.doors.mcp.http import serve_http

        token = token_of(token_file)
        if token_file is None:
            typer.echo(f"bearer token of this run: {token}", err=True)
        serve_http(
            service,
            token=token,
            host=host,
            port=port,
            names=allow_host or [],
            ready=lambda url: typer.echo(f"serving at {url}", err=True),
        )


@contextmanager
def _ending_at_once() -> Iterator[None]:
    """End the process on Ctrl-C and SIGTERM without waiting for a thread that reads standard input.

    Nothing can be stopped halfway: each booking, and each original that is kept, is one transaction.
    """
    codes = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}
    if threading.current_thread() is not threading.main_thread():  # which alone may listen to signals
        yield
        return
    before = {
        number: signal.signal(number, lambda found, _frame: os._exit(codes[signal.Signals(found)])) for number in codes
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _require_extra() -> None:
    from importlib.util import find_spec

    from apportion.errors import MissingExtraError

    if find_spec("mcp") is None:
        raise MissingExtraError("apportion mcp", extra="mcp")


def _list(*, as_json: bool) -> None:
    from apportion.planner.doors.mcp.catalogue import TOOLS, schema_tokens

    tokens = schema_tokens()
    if as_json:
        tools = [
            {
                "name": tool.name,
                "description": tool.description,
                "tokens": tokens[tool.name],
                "read_only": tool.read_only,
            }
            for tool in TOOLS.values()
        ]
        print_json({"schema": "apportion.mcp_tools/1", "tokens": sum(tokens.values()), "tools": tools})
        return
    for tool in TOOLS.values():
        say(f"{tool.name:22}{tokens[tool.name]:5} tokens{'  read-only' if tool.read_only else ''}")
    say(f"{'all':22}{sum(tokens.values()):5} tokens of names, descriptions and input schemas")
