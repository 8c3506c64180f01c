"""The commands `apportion claude-code path | install | status | budget | on | off`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion.errors import InputError
from apportion.planner.doors.cli._common import print_json, say

if TYPE_CHECKING:
    from types import ModuleType

SESSION = "CLAUDE_CODE_SESSION_ID"
"""Environment variable by which Claude Code tells its commands which session they are of."""

PLUGIN = Path(__file__).resolve().parent.parent / "claude_code" / "plugin"
"""The plugin, as it is installed with the package."""

MOST_TOKENS = 2**53
"""Largest budget."""

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    short_help="Use the planner in Claude Code.",
    help="""Use the planner in Claude Code: budgets for sub-agents, shorter results of tools.

The plugin asks the resident planner (apportion serve). Where that does not answer, Claude Code goes on as it would
without the plugin.

\b
Examples:
  claude --plugin-dir "$(apportion claude-code path)"
  apportion claude-code install ~/apportion-plugin --http
  apportion claude-code budget 200000
  apportion claude-code off

Exit codes: 0 done; 2 a mistake, or the planner does not answer.
""",
)

SessionOption = Annotated[
    str | None,
    typer.Option("--session-id", metavar="ID", help="The session of Claude Code; within Claude Code: the present one."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(commands, name="claude-code")


@commands.command(short_help="Print the folder of the plugin.")
def path() -> None:
    """Print the folder of the plugin, for claude --plugin-dir.

    \b
    Example:
      claude --plugin-dir "$(apportion claude-code path)"
    """  # noqa: D301  (\b keeps the lines of the examples apart)
    typer.echo(str(PLUGIN))


@commands.command(short_help="Write the plugin into a folder of its own.")
def install(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder; made anew, or one of ours.")],
    *,
    http: Annotated[
        bool, typer.Option("--http", help="Let Claude Code ask the planner itself, instead of starting the shim.")
    ] = False,
    url: Annotated[str | None, typer.Option("--url", metavar="URL", help="Where the planner is, with --http.")] = None,
) -> None:
    """Write the plugin into a folder, which is also a marketplace that has it.

    With --http Claude Code asks the planner directly, which saves the start of a process each time; the token is then
    read from the environment variable CC_APPORTION_TOKEN.

    \b
    Examples:
      apportion claude-code install ~/apportion-plugin
      claude plugin marketplace add ~/apportion-plugin
      claude plugin install apportion@apportion
    """  # noqa: D301  (\b keeps the lines of the examples apart)
    manifest = folder / ".claude-plugin" / "plugin.json"
    if folder.exists() and any(folder.iterdir()) and not manifest.is_file():
        raise InputError("the folder holds something else", path=folder, hint="Name one that does not exist.")
    shutil.copytree(PLUGIN, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    entry = json.loads(manifest.read_text("utf-8"))
    marketplace = {
        "name": "apportion",
        "owner": entry["author"],
        "plugins": [{"name": "apportion", "source": "./", "description": entry["description"]}],
    }
    _write(folder / ".claude-plugin" / "marketplace.json", marketplace)
    if http:
        hooks = folder / "hooks" / "hooks.json"
        _write(hooks, with_http(json.loads(hooks.read_text("utf-8")), url or _shim().place_url()))
    say(f"written to {folder}; next: claude plugin marketplace add {folder}")
    say("then: claude plugin install apportion@apportion")
    if http:
        say("Claude Code needs CC_APPORTION_TOKEN in its environment: the token of apportion serve")


def with_http(hooks: dict[str, Any], url: str) -> dict[str, Any]:
    """Return hooks that ask the planner over HTTP; `SessionStart`, which cannot, still runs the shim.

    Args:
        hooks: The content of `hooks.json`.
        url: Where the planner is, without the path.
    """
    from apportion.planner.doors.claude_code.server import PATH

    ask = {
        "type": "http",
        "url": url.rstrip("/") + PATH,
        "timeout": 6,
        "headers": {"Authorization": "Bearer $CC_APPORTION_TOKEN"},
        "allowedEnvVars": ["CC_APPORTION_TOKEN"],
    }
    changed = {
        event: entries if event == "SessionStart" else [{**entry, "hooks": [ask]} for entry in entries]
        for event, entries in hooks["hooks"].items()
    }
    return {**hooks, "hooks": changed}


@commands.command(short_help="Show what was done in a session.")
def status(*, session_id: SessionOption = None, as_json: JsonOption = False) -> None:
    """Show what was planned, shortened and used in a session of Claude Code.

    \b
    Example:
      apportion claude-code status --session-id 11111111-1111-4111-8111-111111111111
    """  # noqa: D301  (\b keeps the lines of the examples apart)
    found = _asked("ApportionStatus", session_id)
    if as_json:
        print_json({"schema": "apportion.claude_code/1", **found})
        return
    _show(found)


@commands.command(short_help="Give the sub-agents of a session a budget.")
def budget(
    tokens: Annotated[str, typer.Argument(metavar="TOKENS|none", help="What they may use together.")],
    *,
    session_id: SessionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give the sub-agents of a session of Claude Code a budget in tokens, or none.

    \b
    Example:
      apportion claude-code budget 200000
    """  # noqa: D301  (\b keeps the lines of the examples apart)
    number = tokens.replace(",", "").replace("_", "")
    limit = None if tokens == "none" else int(number) if number.isascii() and number.isdigit() else 0
    if limit is not None and not 0 < limit <= MOST_TOKENS:
        raise InputError(f"{tokens[:40]!r} is no budget", hint="Give a whole number of tokens, or none.")
    found = _asked("ApportionBudget", session_id, max_tokens=limit)
    if as_json:
        print_json({"schema": "apportion.claude_code/1", **found})
        return
    _show(found)


@commands.command(short_help="Switch the plugin off.")
def off() -> None:
    """Switch the plugin off, for all sessions, from the next hook on.

    \b
    Example:
      apportion claude-code off
    """  # noqa: D301  (\b keeps the lines of the examples apart)
    from apportion.planner.doors.claude_code.server import off_file

    file = off_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    say("apportion is off: Claude Code works as without it")


@commands.command(short_help="Switch the plugin on again.")
def on() -> None:
    """Switch the plugin on again.

    \b
    Example:
      apportion claude-code on
    """  # noqa: D301  (\b keeps the lines of the examples apart)
    from apportion.planner.doors.claude_code.server import off_file

    off_file().unlink(missing_ok=True)
    say("apportion is on")


def _asked(event: str, session_id: str | None, **more: Any) -> dict[str, Any]:
    """Ask the planner, by the way that hooks take."""
    session_id = session_id or os.environ.get(SESSION)
    if not session_id:
        raise InputError("which session?", hint="Name it with --session-id; Claude Code shows it with /status.")
    shim = _shim()
    body = json.dumps({"hook_event_name": event, "session_id": session_id, **more}).encode()
    try:
        place = shim.place()
        found = json.loads(shim.post(*place, body)) if place else None
    except (OSError, ValueError):
        found = None
    if not found:
        from apportion.planner.doors._contents import beside_database

        note = elsewhere(beside_database("token"))
        hint = "Start it: apportion serve" + ("" if note is None else f". {note}")
        raise InputError("the planner does not answer", hint=hint)
    return found  # type: ignore[no-any-return]


def elsewhere(file: Path) -> str | None:
    """Return what to do so that hooks find the token in a file, or `None` where they look for it there."""
    looked = _shim().token_file()
    if os.environ.get("CC_APPORTION_TOKEN") or Path(looked).absolute() == file.absolute():
        return None
    return f"The hooks of Claude Code look for the token in {looked}. Set CC_APPORTION_TOKEN_FILE={file.absolute()}"


def _shim() -> ModuleType:
    """Return the shim as a module: it knows where the planner is."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("apportion_claude_code_shim", PLUGIN / "shim.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _show(found: dict[str, Any]) -> None:
    agents = found["sub_agents"]
    limit = found["budget_tokens"]
    say(f"apportion is {'off' if found['off'] else 'on'}")
    used = f"{found['used_tokens']:,} tokens used"
    say(f"sub-agents: {agents['started']} started, {agents['running']} running, {agents['refused']} refused; {used}")
    if agents["estimated"]:
        say(f"  of {agents['estimated']} of them only the last request is known")
    if agents["unbooked"]:
        say(f"  what {agents['unbooked']} of them used could not be booked yet")
    say("budget: none" if limit is None else f"budget: {limit:,} tokens, {found['left_tokens']:,} left")
    say(f"results shortened: {found['results_shortened']}, {found['saved_result_tokens']:,} tokens less each time")
    say(f"prompts of sub-agents: {found['saved_prompt_tokens']:,} tokens less")
    checked, lost = found["compaction"]["checked"], found["compaction"]["lost"]
    if checked:
        say(f"compaction: {lost} of {checked} demands, facts and files were missing in the summary")


def _write(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
