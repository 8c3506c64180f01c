"""The command `apportion doctor`."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion.planner.doors.cli._common import WIDTH, print_json, say
from apportion.planner.doors.cli.telemetry import JsonOption, StoreOption  # noqa: TC001  (typer reads them)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apportion.planner.doctor import Finding
    from apportion.settings import Settings

BROKEN = 1
"""Exit code when something is broken."""

SCHEMA = "apportion.doctor/1"
"""Name and version of the JSON that is written."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("doctor", help=_HELP, short_help="Find what is broken, and mend what can be made again.")(
        doctor_command
    )


_HELP = """Find what is broken, and mend what can be made again.

Examines the settings files, the telemetry store, the stores of originals and of cached results, the ledger, the trained
models, the package, the tokenizer's rank files, plug-ins and extras. Each file is read as its users read it, and
compared with its seal: a digest from the last time that all was well, which finds every bit that flipped since, unless
the file was written in between. Seals lie in FILE.seals beside the store.

With --repair, what follows from other files is made again: cached results, indexes, counts, and the name of the models
in use. Logs, originals, accounts, models and settings are never touched.

\b
Examples:
  apportion doctor
  apportion doctor --repair
  apportion doctor --json | jq '.findings[] | select(.state == "broken")'

Exit codes: 0 nothing is broken, or no longer; 1 something is; 2 an option cannot be used.
"""


def doctor_command(
    *,
    store: StoreOption = None,
    repair: Annotated[bool, typer.Option("--repair", help="Make again what can be made again.")] = False,
    as_json: JsonOption = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what is well, too.")] = False,
) -> None:
    """Find what is broken, and mend what can be made again."""
    from apportion.planner.doctor import Doctor, State

    findings = Doctor(_settings(store), folder=Path.cwd(), repair=repair).examine()
    broken = sum(finding.state is State.BROKEN for finding in findings)
    if as_json:
        print_json({"schema": SCHEMA, "ok": not broken, "findings": [_json(finding) for finding in findings]})
    else:
        _show(findings, verbose=verbose)
        say(_verdict(findings))
    if broken:
        raise typer.Exit(BROKEN)


def _settings(store: Path | None) -> Settings:
    """Return the settings in force, or the defaults where a file of settings is broken: that is told among the rest."""
    from apportion.errors import SettingsError
    from apportion.settings import Settings, TelemetrySettings, load_settings

    try:
        return load_settings(overrides={"telemetry.store_path": store}).settings
    except SettingsError:
        return Settings(telemetry=TelemetrySettings(store_path=store))


def _json(finding: Finding) -> dict[str, Any]:
    return {**finding._asdict(), "state": finding.state.value}


def _show(findings: Sequence[Finding], *, verbose: bool) -> None:
    from apportion.planner.doctor import State
    from apportion.planner.report.figures import plain

    for finding in findings:
        if finding.state is State.OK and not verbose:
            continue
        head = plain(f"{finding.state.value:<9} {finding.part}: {finding.where}")
        say(head)
        for text in filter(None, (finding.what, finding.next_step and f"-> {finding.next_step}")):
            say(textwrap.fill(plain(text), WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT))


_INDENT = " " * 10


def _verdict(findings: Sequence[Finding]) -> str:
    from apportion.planner.doctor import State
    from apportion.planner.report.figures import count

    numbers = {state: sum(finding.state is state for finding in findings) for state in State}
    parts = [f"{count(numbers[State.OK], 'part')} well", count(numbers[State.NOTE], "note")]
    parts += [f"{numbers[State.REPAIRED]:,} repaired"] if numbers[State.REPAIRED] else []
    return ", ".join([*parts, f"{numbers[State.BROKEN]:,} broken"])
