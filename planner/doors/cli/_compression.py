"""What `compress`, `expand` and `inspect` share on the command line: their options, the content, and how it is run."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apportion.errors import InputError
from apportion.planner.doors import _contents as contents
from apportion.planner.doors.cli._common import say
from apportion.planner.doors.cli._files import STDIO
from apportion.planner.doors.cli._numbers import whole_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apportion.compression.store import HandleStore
    from apportion.compression.strategies.types import Outcome, Strategy
    from apportion.planner.report.inspection import Facts

MAX_TOKENS = 10**12

FileArgument = Annotated[str, typer.Argument(metavar="FILE", help="The content; - reads standard input.")]
QueryOption = Annotated[
    str,
    typer.Option("--query", "-q", metavar="TEXT", help="What the content is for: the reader's task in its own words."),
]
TargetOption = Annotated[
    int | None,
    typer.Option(
        "--target-tokens",
        parser=whole_number("--target-tokens", least=0, most=MAX_TOKENS),
        metavar="TOKENS",
        help="Size that suffices: strategies that leave something out stop there.",
    ),
]
StrategyOption = Annotated[
    list[str] | None,
    typer.Option("--strategy", metavar="NAME", help="One after the other; repeatable. --list shows them."),
]
LevelOption = Annotated[
    str | None,
    typer.Option("--level", metavar="NAME", help="Instead of --strategy: lossless, or how much must stay visible."),
]
CanExpandOption = Annotated[
    bool,
    typer.Option("--can-expand", help="The reader can expand handles: parts may be left out behind them."),
]
ListOption = Annotated[
    bool,
    typer.Option(
        "--list",
        help="List the installed strategies and exit.",
        is_eager=True,
        callback=lambda wanted: _print_strategies() if wanted else None,
    ),
]


def _print_strategies() -> None:
    from apportion.compression import pipeline
    from apportion.planner.report.figures import plain

    known, broken = pipeline.load_strategies()
    width = max(map(len, known), default=0) + 2
    for name, strategy in known.items():
        first = (inspect.getdoc(type(strategy)) or "").partition("\n")[0]
        say(plain(f"{name:{width}}{first}"))
    say(f"\nlevels: {', '.join((contents.DEFAULT, *pipeline.LEVELS))}")
    for message in broken:
        typer.echo(f"warning: {plain(message)}", err=True)
    raise typer.Exit


def chosen(names: Sequence[str] | None, level: str | None, store: HandleStore) -> Strategy:
    """Return the strategy that was asked for, and warn of those that cannot be used; see `_contents.chosen`.

    Raises:
        InputError: There is no such strategy or level, or both were given.
    """
    return contents.chosen(names, level, store, warn=lambda message: typer.echo(f"warning: {message}", err=True))


def read_content(file: str) -> bytes:
    """Return the bytes of a file, or of standard input.

    Raises:
        InputError: The file cannot be read.
    """
    if file == STDIO:
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except IsADirectoryError as error:
        raise InputError("is a directory", path=file, hint="Name one file") from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", path=file) from error


def shown_name(file: str) -> str:
    """Return what a content is called where it is shown."""
    return "standard input" if file == STDIO else file


def facts_sentence(facts: Facts) -> str:
    """Say what became of the facts of a content."""
    from apportion.planner.report.inspection_terminal import BACK

    hidden = f", {len(facts.missing):,} {BACK[facts.back]}" if facts.missing else ""
    return f"{facts.visible:,} of {facts.total:,} visible word for word{hidden}"


def run(strategy: Strategy, content: bytes, file: str, query: str, target: int | None, *, can_expand: bool) -> Outcome:
    """Apply a strategy to a content."""
    from apportion.compression.pipeline import apply
    from apportion.compression.strategies.types import Item, Query

    item = Item(content, name=None if file == STDIO else Path(file).name)
    return apply(strategy, item, Query(task=query, can_expand=can_expand), target_tokens=target)
