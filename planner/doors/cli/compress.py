"""The command `apportion compress`."""

from __future__ import annotations

import json
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion.planner.doors import _contents as contents
from apportion.planner.doors.cli import _compression as shared
from apportion.planner.doors.cli._common import print_json
from apportion.planner.doors.cli._files import STDIO, check_outputs, output, write_output

if TYPE_CHECKING:
    from apportion.compression.cache import Cache
    from apportion.compression.store import HandleStore
    from apportion.compression.strategies.types import Outcome, Strategy

SCHEMA = "apportion.compression/1"
"""Name and version of the JSON that is written."""

MAX_REASONS = 5
"""Reasons that are shown without `--json`."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    summary = "Make a content shorter, with proof that nothing is lost."
    app.command("compress", help=_HELP, short_help=summary, no_args_is_help=True)(compress_command)


_HELP = """Make a content shorter, with proof that nothing is lost.

Writes the shorter form to standard output, and what was saved to standard error. By default nothing is left out: the
original is restored from the form and compared before the form is used; where that fails, or saves nothing, the
original is written.

With --can-expand, strategies may leave parts out that the reader can have back: markers name a handle, and originals
are kept in a file (--store; mode 0600, not encrypted, for 90 days and 1 GB at most). `apportion expand` gives them
back.

\b
Examples:
  apportion compress response.json > shorter.txt
  kubectl logs web | apportion compress - --query "why do logins fail?"
  apportion compress big.log --can-expand --strategy literals
  apportion compress --list

Exit codes: 0 written, shorter or not; 2 the content or an option cannot be used.
"""


def compress_command(
    file: shared.FileArgument,
    *,
    query: shared.QueryOption = "",
    target_tokens: shared.TargetOption = None,
    strategies: shared.StrategyOption = None,
    level: shared.LevelOption = None,
    can_expand: shared.CanExpandOption = False,
    store: Annotated[
        Path | None,
        typer.Option("--store", metavar="FILE", help="Where originals are kept; implies --can-expand."),
    ] = None,
    cache: Annotated[
        bool, typer.Option("--cache", help="Keep results in a file beside the telemetry store, and use them again.")
    ] = False,
    output_file: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Write the shorter form there; - is standard output.")
    ] = STDIO,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was done as JSON, with the form unless --output has it.")
    ] = False,
    list_strategies: shared.ListOption = False,  # noqa: ARG001  (its callback does the work)
) -> None:
    """Make a content shorter."""
    target = output("--output", output_file)
    check_outputs([target], [file], [Path(file)])
    can_expand = can_expand or store is not None
    path = contents.originals_path(store) if can_expand else None
    content = shared.read_content(file)
    with ExitStack() as opened:
        originals: HandleStore
        if path is None:
            from apportion.compression.store import HandleStore

            originals = HandleStore()
        else:
            originals = opened.enter_context(contents.opened_originals(path, create=True))
        strategy = shared.chosen(strategies, level, originals)
        if cache:
            kept = _cache()
            opened.callback(kept.close)
            strategy = _cached(strategy, kept)
        outcome = shared.run(strategy, content, file, query, target_tokens, can_expand=can_expand)
    if as_json:
        print_json(_as_json(outcome, path, with_content=target.to_stdout))
    if not (as_json and target.to_stdout):
        write_output(target, outcome.content)
    if not as_json:
        if target.to_stdout and sys.stdout.isatty() and not outcome.content.endswith(b"\n"):
            typer.echo(err=True)  # so that the summary begins a line
        _summarise(outcome, path, target_tokens)


def _cache() -> Cache:
    from apportion.compression.cache import Cache
    from apportion.compression.cache.sqlite_level import SqliteLevel

    return Cache(second=SqliteLevel(contents.beside_database("cache")))


def _cached(strategy: Strategy, cache: Cache) -> Strategy:
    """Return a strategy that uses the cache, where it can be told what its results depend on."""
    from apportion.compression.cache import CachedStrategy
    from apportion.errors import InputError
    from apportion.planner.report.figures import plain

    try:
        return CachedStrategy(strategy, cache, tenant_salt=b"")  # the file is its owner's alone
    except InputError as error:
        typer.echo(f"note: not cached: {plain(error.message)}", err=True)
        return strategy


def _as_json(outcome: Outcome, path: Path | None, *, with_content: bool) -> dict[str, Any]:
    from base64 import b64encode

    from apportion.planner.report.inspection import inspect_outcome

    found = inspect_outcome(outcome, name="").to_json() | {"schema": SCHEMA}
    del found["name"]
    found["store"] = str(path) if path is not None and outcome.handles else None
    found["handles"] = [str(handle) for handle in outcome.handles]
    if with_content:
        try:
            text = outcome.content.decode()
            json.dumps(text)
            found["content"] = text
        except UnicodeDecodeError:
            found["content_base64"] = b64encode(outcome.content).decode()
    return found


def _summarise(outcome: Outcome, path: Path | None, target_tokens: int | None) -> None:
    from apportion.planner.report.figures import count, percent, plain
    from apportion.planner.report.inspection import facts_of, grouped_reasons

    saved = percent(outcome.saved_share)
    lines = [
        f"tokens: {outcome.original_tokens:,} before, {outcome.tokens:,} after, {saved} saved",
        f"steps:  {', '.join(outcome.steps) or 'none: the original was written'}",
        f"facts:  {shared.facts_sentence(facts_of(outcome))}",
    ]
    if outcome.gaps:
        lines.append(f"out:    {count(len(outcome.gaps), 'part')} left out")
    if outcome.handles:
        lines.append(f"back:   apportion expand {outcome.handles[0]} --store {shlex.quote(str(path))}")
    if target_tokens is not None and outcome.tokens > target_tokens:
        lines.append(f"note:   above the target of {target_tokens:,} tokens")
    reasons = grouped_reasons(outcome.reasons, outcome.steps)
    lines += [f"note:   {reason}" for reason in reasons[:MAX_REASONS]]
    if len(reasons) > MAX_REASONS:
        lines.append(f"note:   and {len(reasons) - MAX_REASONS:,} more; --json has them")
    for line in lines:
        typer.echo(plain(line), err=True)
