"""The command `apportion demo`."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from apportion.planner.doors.cli._common import WIDTH, print_json, say
from apportion.planner.doors.cli._numbers import amount, whole_number
from apportion.planner.doors.cli._tables import table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apportion.compression.loading import PreloadCounts
    from apportion.planner.demo import DemoReport
    from apportion.planner.demo.report import TurnCount


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("demo", help=_HELP, short_help="Play a small workflow with planning off and on.")(demo_command)


_HELP = """Play a small workflow of five agents with planning off and on, and compare.

A lead has a library reviewed by a security expert, a code reviewer and an architecture reviewer; then the user asks for
SQL injection in particular; then for test cases. The agents read, search and check the real source of the library
dataset 1.6.2. Only their model is pretended, since no network is needed: it takes the same steps both times, and
reports what it finds in the prompt that it was really sent.

\b
Examples:
  apportion demo
  apportion demo --pause 60          the user answers within the life of the prompt cache
  apportion demo --budget 500000     not enough for all: see what is deferred, and why
  apportion demo --json | jq .tokens_saved
"""


def demo_command(
    *,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="Whose tokens and prices to count.", show_default=False),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            "--budget",
            parser=whole_number("--budget", most=10**12),
            metavar="TOKENS",
            help="Tokens of all prompts and outputs together, with planning on.",
        ),
    ] = None,
    pause: Annotated[
        float,
        typer.Option(
            "--pause",
            parser=amount("--pause", most=10**7),
            metavar="SECONDS",
            help="How long the user reads between two turns.",
        ),
    ] = 600.0,
    json_output: Annotated[bool, typer.Option("--json", help="Print the whole comparison as JSON.")] = False,
) -> None:
    """Play a small workflow with planning off and on."""
    from apportion.errors import InputError
    from apportion.planner.demo import DemoOptions, play
    from apportion.planner.demo.play import DEFAULT_MODEL
    from apportion.prices import lookup

    name = model or DEFAULT_MODEL
    if lookup(name) is None:
        raise InputError(f"--model {name}: no such model in the price list", hint=f"Try {DEFAULT_MODEL}, for example.")
    options = DemoOptions(model=name, max_tokens=budget, pause_s=pause)
    report = play(options, progress=lambda text: typer.echo(f"{text} ...", err=True))
    if json_output:
        print_json(report.as_json())
        return
    for line in _lines(report):
        say(line)


def _lines(report: DemoReport) -> Iterator[str]:
    from apportion.planner.report.figures import percent, usd

    off, on = report.off.total, report.on.total
    calls = f"{off.calls} calls" if off.calls == on.calls else f"{off.calls} calls, {on.calls} with planning,"
    yield from _text(
        f"{calls} of five agents in three turns, by the tokens and list prices of {report.model}. With planning the "
        f"prompts held {percent(report.tokens_saved)} fewer tokens, and the bill was {usd(on.usd)} instead of "
        f"{usd(off.usd)}: {percent(report.bill_saved)} less."
    )
    yield ""
    headers = (
        "Turn",
        "Planning",
        "Prompt\ntokens",
        "Bill",
        "Loaded",
        "Handed\nover",
        "Shorter",
        "Refer-\nences",
        "Masked",
    )
    rows = [
        _row(name, planning, count)
        for name, *counts in _turns(report)
        for planning, count in zip(("off", "on"), counts, strict=True)
    ]
    yield from table(headers, rows)
    yield from _text(
        "Loaded: tokens of agents' files and tool definitions. Handed over: tokens of messages from agent to agent. "
        "Shorter: times that a piece was sent in a shorter form that loses nothing; references: as the name of a piece "
        "that the agent has; masked: as a handle, with a stub."
    )
    yield ""
    yield from _text(_loss(report))
    yield from _text(_preload(report.on.preload))
    yield ""
    yield from table(("Agent", "Budget", "Used with\nplanning", "Without"), list(_agents(report)))
    for refused in report.on.refused:
        yield from _text(f"Not run: {refused}")


def _turns(report: DemoReport) -> Iterator[tuple[str, TurnCount, TurnCount]]:
    names = ("1 review", "2 SQL", "3 tests")
    yield from zip(names, report.off.turns, report.on.turns, strict=True)
    yield "all", report.off.total, report.on.total


def _row(name: str, planning: str, count: TurnCount) -> tuple[str, ...]:
    from apportion.planner.report.figures import tokens, usd

    done = (str(count.actions[action]) if planning == "on" else "" for action in ("structure", "reference", "mask"))
    return (
        name,
        planning,
        tokens(count.prompt_tokens),
        usd(count.usd),
        tokens(count.loaded_tokens),
        tokens(count.transmitted_tokens),
        *done,
    )


def _agents(report: DemoReport) -> Iterator[tuple[str, ...]]:
    from apportion.planner.report.figures import tokens

    for agent, used in report.off.used.items():
        budget = tokens(report.on.allocated[agent]) if report.on.allocated else "none"
        yield agent, budget, tokens(report.on.used[agent]), tokens(used)


def _loss(report: DemoReport) -> str:
    """Say what was lost."""
    from apportion.planner.report.figures import percent

    on = report.on
    found = sum(map(len, report.off.findings.values()))
    lost = sum(map(len, report.findings_lost.values()))
    similarity = (
        "Similarity in meaning was not measured: that needs the extra semantic."
        if on.similarity is None
        else f"What was sent has a similarity of {percent(on.similarity)} with its originals."
    )
    return (
        f"Findings: {found} without planning, of which {found - lost} were made with planning too. "
        f"Facts: {percent(on.total.visible_facts / on.total.facts)} of those in the prompts stood in what was sent. "
        f"{on.proof.exact} of {on.proof.pieces} pieces that were not sent whole were had back exactly. "
        f"{similarity}"
    )


def _preload(counts: PreloadCounts) -> str:
    return (
        f"Agents that were in memory when they were asked for, because the lead had named them: {counts.hits} of "
        f"{counts.hits + counts.misses}; loaded in vain: {counts.wasted}; at most {counts.peak_bytes / 1e6:.2f} MB in "
        "memory."
    )


def _text(text: str) -> Iterator[str]:
    yield from textwrap.wrap(text, WIDTH)
