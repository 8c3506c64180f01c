"""The commands `apportion config show | get | set | path`."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from apportion.planner.doors.cli._common import WIDTH, print_json

if TYPE_CHECKING:
    from apportion.settings import SettingsFile

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    short_help="Show and change settings.",
    help="""Show and change settings.

An option on the command line wins over an environment variable (APPORTION_REPLAY__JOBS=2; an empty one counts as
unset), that over the project's file (apportion.toml, or the table tool.apportion in pyproject.toml), that over your own
file, and that over the default.

Example: apportion config set token_optimization.enabled=true
""",
)


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(commands, name="config")


def _complete_key(incomplete: str) -> list[str]:
    """Return the settings that begin so, for shells."""
    from apportion.settings import FIELDS

    return [key for key in FIELDS if key.startswith(incomplete)]


@commands.command(short_help="Show all settings, with what they mean.")
def show(
    *,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show all settings, with what they mean.

    Example: apportion config show --origin
    """
    from apportion.settings import FIELDS, load_settings

    loaded = load_settings()
    if as_json:
        print_json({key: _with_origin(loaded.get(key), loaded.origin(key), origin=origin) for key in FIELDS})
        return
    for key, field in FIELDS.items():
        line = f"{key} = {as_text(loaded.get(key))}"
        place = f"({loaded.origin(key)})" if origin else ""
        fits = len(line) + 3 + len(place) <= WIDTH
        typer.echo(f"{line}   {place}".rstrip() if fits else f"{line}\n    {place}".rstrip())
        indent = " " * 4
        typer.secho(
            textwrap.fill(field.description or "", WIDTH, initial_indent=indent, subsequent_indent=indent), dim=True
        )


@commands.command(short_help="Print the value of one setting.")
def get(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="Dotted name of the setting.", autocompletion=_complete_key)
    ],
    *,
    as_json: JsonOption = False,
) -> None:
    """Print the value of one setting.

    Example: apportion config get replay.jobs
    """
    from apportion.settings import load_settings

    loaded = load_settings()
    if as_json:
        print_json({"key": key, **_with_origin(loaded.get(key), loaded.origin(key), origin=True)})
    else:
        typer.echo(as_text(loaded.get(key)))


class _SetCommand(TyperCommand):
    """A command whose values may be negative numbers: `-1` is a value, never an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put values behind `--` where one of them looks like an option and is a number."""
        if "--" not in args and any(map(_NEGATIVE.match, args)):
            options = [each for each in args if each.startswith("-") and not _NEGATIVE.match(each)]
            args = [*options, "--", *(each for each in args if each not in options)]
        return super().parse_args(ctx, args)


_NEGATIVE = re.compile(r"-\.?\d")


@commands.command("set", cls=_SetCommand, short_help="Write one setting to the project's file, or to yours.")
def set_(
    assignment: Annotated[
        str,
        typer.Argument(
            metavar="KEY[=VALUE]", help="The setting, with or without its value.", autocompletion=_complete_key
        ),
    ],
    value: Annotated[
        list[str] | None, typer.Argument(metavar="VALUE", help="The value, if not given after '='.")
    ] = None,
    *,
    user: Annotated[
        bool, typer.Option("--user/--project", help="Write your own file, or the project's (the default).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write one setting to the project's file, or to yours with --user; comments in the file are kept.

    The value `none` removes the setting from that file.

    \b
    Examples:
      apportion config set token_optimization.target_reduction=0.4
      apportion config set --user replay.jobs 2
    """  # noqa: D301  (\b keeps the lines of the examples apart)
    from apportion.errors import SettingsError
    from apportion.settings import load_settings, parse_value, set_setting

    key, text = _split(assignment, value or [])
    parsed = parse_value(key, text)
    change = set_setting(key, parsed, scope="user" if user else "project")
    done = _what_was_done(key, parsed, change.path, changed=change.changed)
    try:
        loaded = load_settings()
    except SettingsError:
        if not as_json:
            typer.echo(done)
        raise
    if as_json:
        in_effect = _with_origin(loaded.get(key), loaded.origin(key), origin=True)
        print_json({"key": key, "path": str(change.path), "changed": change.changed, "in_effect": in_effect})
    elif parsed is not None and str(change.path) in loaded.origin(key):
        typer.echo(done)
    else:
        typer.echo(f"{done}; in effect: {as_text(loaded.get(key))} ({loaded.origin(key)})")


@commands.command(short_help="Show which settings files are read.")
def path(*, as_json: JsonOption = False) -> None:
    """Show which settings files are read, whether they exist, and whether they can be used.

    Example: apportion config path
    """
    from apportion.settings import settings_files

    files = settings_files(Path.cwd())
    if as_json:
        print_json([{**file._asdict(), "path": str(file.path), "exists": file.path.is_file()} for file in files])
        return
    for file in files:
        typer.echo(f"{file.scope}: {file.path}{_state(file)}")


def as_text(value: Any) -> str:
    """A value as it is written on the command line and in the environment."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _state(file: SettingsFile) -> str:
    """Say what is wrong with a settings file, without naming it again."""
    if file.problem is not None:
        place = f"{file.scope} file {file.path}"
        problem = file.problem.removeprefix(f"{file.path} is ").replace(f" ({place})", "").removesuffix(f" in {place}")
        return f"   (broken: {problem})"
    if file.path.is_file():
        return ""
    return "   (not a file)" if file.path.exists() else "   (does not exist)"


def _what_was_done(key: str, value: Any, file: Path, *, changed: bool) -> str:
    if value is not None:
        return f"wrote {key} = {as_text(value)} to {file}"
    return f"removed {key} from {file}" if changed else f"{key} is not in {file}: nothing to remove"


def _with_origin(value: Any, place: str, *, origin: bool) -> Any:
    return {"value": value, "origin": place} if origin else value


def _split(assignment: str, values: list[str]) -> tuple[str, str]:
    """Return key and value of `KEY=VALUE`, `KEY VALUE`, or `KEY = VALUE` with the blanks anywhere."""
    key, equals, text = assignment.partition("=")
    words = [text] if text else []
    for position, word in enumerate(values):
        first = not equals and position == 0
        equals = equals or ("=" if word.startswith("=") else "")
        words += [word.removeprefix("=") if first else word]
    words = [word for word in words if word] or ([""] if equals and not values else [])
    if not words:
        raise typer.BadParameter(f"no value given for {key.strip()}: write KEY=VALUE, or KEY VALUE")
    if len(words) > 1:
        raise typer.BadParameter("give the value once: KEY=VALUE, or KEY VALUE")
    return key.strip(), words[0]
