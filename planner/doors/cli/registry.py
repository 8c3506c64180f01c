"""The command `apportion registry`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion.planner.doors.cli._common import print_json, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apportion.compression.loading import Entry, EntryKind, Registry

registry_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    short_help="Show agents, skills and tools that can be loaded.",
    help="Agents, skills and tools that can be loaded: what there is, and what it takes.",
)

Paths = Annotated[
    list[str],
    typer.Argument(metavar="PATH...", help="Folders such as ~/.claude, or files of tools.", show_default=False),
]
Kind = Annotated[str | None, typer.Option("--kind", metavar="KIND", help="Only agents, skills or tools.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(registry_app, name="registry")


@registry_app.command("list", short_help="List what can be loaded, with its tokens.")
def list_command(paths: Paths, *, kind: Kind = None, as_json: AsJson = False) -> None:
    """List what can be loaded, with its tokens: whole, brief where it is a tool, and as one line.

    \b
    Examples:
      apportion registry list ~/.claude
      apportion registry list tools.json --kind tool --json
    """  # noqa: D301  (\b keeps the lines of the examples apart)
    registry = _read(paths)
    entries = registry.entries(_kind(kind))
    _print(registry, entries, as_json=as_json)
    _complain(registry)


@registry_app.command("search", short_help="Find what holds some words.")
def search_command(
    text: Annotated[str, typer.Argument(metavar="WORDS", help="What to look for, in quotes.", show_default=False)],
    paths: Paths,
    *,
    as_json: AsJson = False,
) -> None:
    """Find what holds some words, the best first.

    \b
    Example:
      apportion registry search "security review" ~/.claude
    """  # noqa: D301  (\b keeps the lines of the examples apart)
    registry = _read(paths)
    _print(registry, registry.search(text), as_json=as_json)
    _complain(registry)


@registry_app.command("show", short_help="Print the content of one.")
def show_command(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Its name, or 8 digits or more of its hash.", show_default=False)
    ],
    paths: Paths,
    *,
    as_json: AsJson = False,
) -> None:
    """Print the content of one agent, skill or tool, compared with its hash.

    \b
    Example:
      apportion registry show security-expert ~/.claude
    """  # noqa: D301  (\b keeps the lines of the examples apart)
    from apportion.errors import InputError
    from apportion.planner.report.figures import plain

    registry = _read(paths)
    entry = registry.find(name)
    if entry is None:
        raise InputError(f"nothing is called {name!r}", hint="See what there is: apportion registry list PATH")
    content = registry.load(entry)
    if as_json:
        print_json(_described(registry, entry) | {"content": content.decode("utf-8", "replace")})
        return
    for line in content.decode("utf-8", "replace").splitlines():
        say(plain(line))


def _read(paths: Sequence[str]) -> Registry:
    from apportion.compression.loading import Registry

    registry = Registry()
    for path in paths:
        registry.add(path)
    return registry


def _kind(name: str | None) -> EntryKind | None:
    from apportion.compression.loading import EntryKind
    from apportion.errors import InputError

    if name is None:
        return None
    try:
        return EntryKind(name.lower().removesuffix("s"))
    except ValueError:
        raise InputError(f"there is no kind {name!r}", hint="Kinds: agent, skill, tool") from None


def _print(registry: Registry, entries: Sequence[Entry], *, as_json: bool) -> None:
    from apportion.planner.doors.cli._tables import table

    rows = [_described(registry, entry) for entry in entries]
    if as_json:
        print_json(rows)
        return
    if not rows:
        say("nothing was found")
        return
    cells = [
        [
            row["name"],
            row["kind"],
            f"{row['tokens']:,}",
            _figure(row["brief_tokens"]),
            f"{row['line_tokens']:,}",
            row["hash"][:8],
        ]
        for row in rows
    ]
    for line in table(["name", "kind", "tokens", "brief", "line", "hash"], cells):
        say(line)
    whole, lines = (sum(row[name] for row in rows) for name in ("tokens", "line_tokens"))
    say(f"{len(rows):,} in all: {whole:,} tokens whole, {lines:,} as lines")


def _described(registry: Registry, entry: Entry) -> dict[str, Any]:
    from apportion.planner.loading import option_of

    option = option_of(entry, registry.load(entry), 0.0)
    return {
        "name": entry.name,
        "kind": entry.kind.value,
        "description": entry.description,
        "hash": entry.digest,
        "bytes": entry.size,
        "tokens": option.whole_tokens,
        "brief_tokens": option.brief_tokens,
        "line_tokens": option.line_tokens,
        "path": str(entry.path),
    }


def _figure(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _complain(registry: Registry) -> None:
    """Say on standard error what was skipped."""
    from apportion.planner.report.figures import plain

    for path, reason in registry.skipped[:5]:
        typer.echo(plain(f"skipped {path}: {reason}"), err=True)
    if registry.skips > 5:
        typer.echo(f"... {registry.skips - 5:,} more", err=True)
