"""What `compress`, `expand` and `inspect` share: the content, the strategies, and where originals are kept."""

from __future__ import annotations

import difflib
import inspect
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apportion.errors import InputError
from apportion.planner.doors.cli._common import say
from apportion.planner.doors.cli._files import STDIO
from apportion.planner.doors.cli._numbers import whole_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apportion.compression.similarity.gate import Gate
    from apportion.compression.sqlite_store import SqliteHandleStore
    from apportion.compression.store import HandleStore
    from apportion.compression.strategies.types import Outcome, Strategy
    from apportion.planner.report.inspection import Facts

DEFAULT = "lossless"
"""The strategy that is used where none is named: nobody loses anything."""

MAX_ORIGINALS_BYTES = 10**9
"""Bytes that the store of originals takes at most; the oldest go first."""

MAX_ORIGINALS_DAYS = 90
"""Days after which originals go."""

QUICK_S = 0.02
"""Seconds that planning in the live path waits for the store of originals; a busy one leaves contents whole."""

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
    say(f"\nlevels: {', '.join((DEFAULT, *pipeline.LEVELS))}")
    for message in broken:
        typer.echo(f"warning: {plain(message)}", err=True)
    raise typer.Exit


def chosen(names: Sequence[str] | None, level: str | None, store: HandleStore, *, gate: Gate | None = None) -> Strategy:
    """Return the strategy that was asked for; several are applied one after the other.

    Args:
        names: Strategies or levels by name.
        level: A level by name, instead.
        store: Where originals of what is left out go.
        gate: Judges what is cut for good; `None`: each strategy has its own.

    Raises:
        InputError: There is no such strategy or level, or both were given.
    """
    from apportion.compression import pipeline
    from apportion.compression.strategies.gated import GatedStrategy
    from apportion.planner.report.figures import plain

    if names and level is not None:
        raise InputError("--level and --strategy cannot both be given", hint="Name the level with --strategy.")
    known, broken = pipeline.load_strategies(store)
    for message in broken:
        typer.echo(f"warning: {plain(message)}", err=True)
    if level is not None and level not in (levels := [DEFAULT, *pipeline.LEVELS]):
        raise InputError(f"there is no level '{plain(level)}'", hint=f"Choose one of {', '.join(levels)}.")
    found: list[Strategy] = []
    for name in names or [level or DEFAULT]:
        if name in pipeline.LEVELS:
            found.append(pipeline.recoverable(name, store))
        elif name in known:
            strategy = known[name]
            if gate is not None and isinstance(strategy, GatedStrategy):  # it was made anew, with our store
                strategy.gate = gate
            found.append(strategy)
        else:
            raise InputError(f"there is no strategy '{plain(name)}'", hint=_nearest(name, [*known, *pipeline.LEVELS]))
    return found[0] if len(found) == 1 else pipeline.Chain(found, name="+".join(one.name for one in found))


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    names = " or ".join(f"'{each}'" for each in close)
    return f"Did you mean {names}?" if close else f"Installed: {', '.join(known) or 'none'}"


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


def originals_path(store: Path | None) -> Path:
    """Return the file of originals: the one that was named, or the one beside the telemetry store."""
    return beside_database("originals") if store is None else store


def beside_database(kind: str) -> Path:
    """Return a file of ours that lies beside the telemetry store."""
    from apportion.settings import load_settings

    database = load_settings().settings.telemetry.database
    return database.with_name(f"{database.name}.{kind}")


@contextmanager
def opened_originals(path: Path, *, create: bool, wait_s: float | None = None) -> Iterator[SqliteHandleStore]:
    """Open the store of originals.

    Args:
        path: The file.
        create: Whether to make it where there is none.
        wait_s: How long a writer waits for another one; see `SqliteHandleStore`.

    Raises:
        InputError: There is none, and none is to be made.
        StoreError: It cannot be opened.
    """
    from apportion.compression.sqlite_store import SqliteHandleStore

    if not create and not path.exists():
        raise InputError(
            "there is no store of originals", path=path, hint="Name the one that was given to compress with --store."
        )
    max_bytes, max_age_days = (MAX_ORIGINALS_BYTES, MAX_ORIGINALS_DAYS) if create else (None, None)
    with SqliteHandleStore(path, max_bytes=max_bytes, max_age_days=max_age_days, wait_s=wait_s) as store:
        yield store


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
