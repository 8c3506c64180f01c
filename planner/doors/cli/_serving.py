"""What `serve` and `mcp` share: the options of a server, and its stores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apportion.planner.doors.cli._numbers import whole_number

PortOption = Annotated[
    int,
    typer.Option(parser=whole_number("--port", least=0, most=65_535), metavar="NUMBER", help="0 takes a free one."),
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", help="Holds the bearer token, and is made where it does not exist."),
]
OriginalsOption = Annotated[
    Path | None,
    typer.Option("--store", metavar="FILE", help="The store of originals; default: beside the telemetry store."),
]
LedgerOption = Annotated[
    str | None,
    typer.Option("--ledger", metavar="FILE|ADDRESS", help="The ledger; default: beside the telemetry store."),
]
