"""The command `apportion plan`."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from apportion.planner.doors.cli._common import WIDTH, complain, say
from apportion.planner.doors.cli._files import Output, check_outputs, output, write_output
from apportion.planner.doors.cli._json import JsonFileCommand
from apportion.planner.doors.cli._numbers import amount, whole_number
from apportion.planner.doors.cli._tables import table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apportion.errors import InfeasiblePlanError
    from apportion.planner.explanation import Explanation
    from apportion.planner.plan import AgentPlan, Plan
    from apportion.planner.problem import Problem

INFEASIBLE = 3
"""Exit code when the mandatory part does not fit."""

MOST_TOKENS = 2**53
"""Largest token budget: what a double holds exactly."""

MOST_USD = 1_000_000.0
"""Largest budget in US dollars."""

MOST_MS = 86_400_000
"""Longest deadline: a day."""

SCHEMA = "apportion.plan/1"
"""Name and version of the JSON that is written."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    summary = "Plan a workflow: who runs how, on which context, with how many tokens?"
    app.command("plan", cls=JsonFileCommand, help=_HELP, short_help=summary, no_args_is_help=True)(plan_command)


_HELP = """Plan a workflow: who runs how, on which context, with how many tokens?

Reads a problem from a TOML or JSON file, decides budgets and what happens to each piece of context for all agents at
once, and says how far from the best plan the result can be at most.

\b
The smallest problem:
  max_tokens = 20_000
  [[models]]
  id = "m"
  input = 3_000_000         # nano-dollars per 1,000 tokens: 3 USD per million
  output = 15_000_000
  cache_read = 300_000
  cache_write_5m = 3_750_000
  cache_write_1h = 6_000_000
  [[stages]]
  id = "only"
  [[agents]]
  id = "writer"
  stage_id = "only"
  [[agents.variants]]
  model_id = "m"
  demand = { probabilities = [0.5, 0.9], tokens = [2_000, 5_000] }

\b
Examples:
  apportion plan --example > problem.toml
  apportion plan problem.toml --explain
  apportion plan problem.toml --budget-tokens 200000 --policy defer

Exit codes: 0 planned; 2 the problem cannot be used; 3 the mandatory agents do not fit: what conflicts and what is
missing is told on standard error.
"""


_LEAST = (
    "A problem needs at least one of models, stages and agents, and each agent a variant with a demand. "
    "The smallest one stands in: apportion plan -h; a larger one: apportion plan --example"
)


def _print_example(wanted: bool) -> None:  # noqa: FBT001  (typer calls it so)
    if wanted:
        from importlib.resources import files

        typer.echo(files("apportion.planner.doors.cli").joinpath("example_problem.toml").read_bytes(), nl=False)
        raise typer.Exit


def plan_command(
    problem_file: Annotated[
        str, typer.Argument(metavar="PROBLEM", help="The problem: a .toml or .json file.", show_default=False)
    ],
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="Write plan and explanation as JSON; alone or with - they are printed instead of tables.",
        ),
    ] = None,
    deadline_ms: Annotated[
        int | None,
        typer.Option(
            parser=whole_number("--deadline-ms", least=0, most=MOST_MS),
            metavar="NUMBER",
            help="Stop improving after so many milliseconds; default: when the plan is good enough.",
        ),
    ] = None,
    budget_tokens: Annotated[
        int | None,
        typer.Option(
            parser=whole_number("--budget-tokens", least=0, most=MOST_TOKENS),
            metavar="TOKENS",
            help="Limit of the workflow in tokens, instead of the problem's.",
        ),
    ] = None,
    budget_usd: Annotated[
        float | None,
        typer.Option(
            parser=amount("--budget-usd", most=MOST_USD),
            metavar="AMOUNT",
            help="Limit of the workflow in US dollars, instead of the problem's.",
        ),
    ] = None,
    policies: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            metavar="NAME",
            help="What the plan may do where the budget does not suffice, for example defer or simplify; repeatable.",
        ),
    ] = None,
    explain: Annotated[  # noqa: FBT002
        bool, typer.Option("--explain", help="Say why, for each agent and each piece of context.")
    ] = False,
    example: Annotated[  # noqa: ARG001, FBT002  (its callback does the work)
        bool,
        typer.Option("--example", help="Print an example problem and exit.", is_eager=True, callback=_print_example),
    ] = False,
) -> None:
    """Plan a workflow."""
    from apportion.errors import InfeasiblePlanError
    from apportion.planner.explanation import explain as explain_plan

    target = None if json_file is None else output("--json", json_file)
    problem = _with_budget(load_problem(problem_file, target), budget_tokens, budget_usd)
    problem = _under(problem, policies or [])
    try:
        plan = _plan(problem, deadline_ms)
    except InfeasiblePlanError as error:
        complain_of_conflict(error)
        raise typer.Exit(INFEASIBLE) from None
    why = explain_plan(problem, plan)
    if target is None or not target.to_stdout:
        _show(problem, plan, why, every_piece=explain)
    if target is not None:
        data = {"schema": SCHEMA, "plan": plan.model_dump(mode="json"), "explanation": why.model_dump(mode="json")}
        write_output(target, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
        if not target.to_stdout:
            typer.echo(f"wrote {target.name}", err=True)


def load_problem(file: str, target: Output | None) -> Problem:
    """Read the problem of a command.

    Args:
        file: Its file.
        target: Where something will be written, which must not be that file.

    Raises:
        InputError: It cannot be read, or is no problem.
    """
    from pathlib import Path

    from apportion.errors import InputError
    from apportion.planner.problem import Problem

    check_outputs([] if target is None else [target], [file], [Path(file)])
    try:
        return Problem.load(file)
    except InputError as error:
        if "Field required" not in error.message or error.hint:
            raise
        raise InputError(error.message, path=error.path, hint=_LEAST) from error


def _with_budget(problem: Problem, budget_tokens: int | None, budget_usd: float | None) -> Problem:
    """Return the problem with other limits, checked anew."""
    from apportion.planner.problem import Problem

    limits: dict[str, int] = {}
    if budget_tokens is not None:
        limits["max_tokens"] = budget_tokens
    if budget_usd is not None:
        limits["max_cost_nusd"] = round(budget_usd * 1e9)
    return Problem.parse(problem.fields_with(**limits)) if limits else problem


def _under(problem: Problem, names: list[str]) -> Problem:
    """Return the problem with the choices that policies add.

    Raises:
        InputError: There is no such policy.
    """
    if not names:
        return problem
    from apportion.planner.policies import load_policies, named_policies, with_policies

    known, broken = load_policies()
    for message in broken:
        typer.echo(f"warning: {_plain(message)}", err=True)
    return with_policies(problem, named_policies(known, names))


def _plan(problem: Problem, deadline_ms: int | None) -> Plan:
    from apportion.planner.solver import plan_workflow

    return plan_workflow(problem, deadline_ms=deadline_ms)


def complain_of_conflict(error: InfeasiblePlanError) -> None:
    """Say on standard error what does not fit, what conflicts, and what is missing."""
    from apportion.planner.explanation import explain_infeasible

    why = explain_infeasible(error)
    complain(_plain(error.message))
    for line in why.text.splitlines()[1:]:
        typer.echo(_plain(line), err=True)


def _show(problem: Problem, plan: Plan, why: Explanation, *, every_piece: bool) -> None:
    _say_all([*_nothing_runs(plan), why.summary, *[f"Degraded: {reason}." for reason in plan.degraded]])
    say()
    _say_lines(table(("agent", "runs as", "work\ntokens", "enough\nwith", "tokens", "cost"), list(_agent_rows(plan))))
    if any(agent.variant_id is not None and not agent.sample_size for agent in plan.agents):
        say("* by a prior: there are no observations")
    pieces = list(_piece_rows(problem, plan))
    if pieces:
        say()
        _say_lines(table(("piece of context", "sent as", "tokens"), pieces))
    _section("Limits that bind", [limit.text for limit in why.limits])
    _section("Policies", [decision.text for decision in why.policies])
    if every_piece:
        for agent in why.agents:
            _section("", [agent.text, *[f"- {piece.text}" for piece in agent.pieces]])
    say()
    _say_lines(table(("certificate", ""), list(_certificate_rows(plan))))


def _nothing_runs(plan: Plan) -> list[str]:
    """Say so where a plan lets no agent run: its tokens and costs of 0 are no savings."""
    if any(agent.variant_id is not None for agent in plan.agents):
        return []
    return ["Nothing runs: " + ("every agent is deferred." if plan.agents else "the problem names no agents.")]


def _agent_rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    for agent in plan.agents:
        if agent.variant_id is None:
            yield agent.agent_id, "(deferred)", "", "", "", ""
        else:
            yield (
                agent.agent_id,
                agent.variant_id,
                f"{agent.work_tokens:,}",
                _confidence(agent),
                f"{agent.tokens + agent.given_tokens:,}",
                _usd(agent.cost_nusd + agent.given_cost_nusd),
            )
    yield "all", "", "", "", f"{plan.tokens:,}", _usd(plan.cost_nusd)


def _confidence(agent: AgentPlan) -> str:
    if agent.cut_off_probability is None:
        return ""
    return f"{1 - agent.cut_off_probability:.0%}" + ("" if agent.sample_size else "*")


def _piece_rows(problem: Problem, plan: Plan) -> Iterator[tuple[str, str, str]]:
    for agent in plan.agents:
        if agent.pieces:
            yield f"for {agent.agent_id}:", "", ""
        for piece in agent.pieces:
            whole = problem.item_of[piece.item_id].tokens
            size = f"{whole:,}" if piece.form == "keep" else f"{piece.tokens:,} of {whole:,}"
            yield f"  {piece.item_id}", piece.form, size


def _certificate_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    from apportion.planner.problem import UNITS_PER_POINT

    yield "value of this plan, in points", f"{plan.points:,.1f}"
    yield "no plan is worth more than", f"{plan.bound / UNITS_PER_POINT:,.1f}"
    yield "gap", f"{plan.gap:.3%}"
    if plan.cost_bound_nusd is not None:
        yield "plans of this value cost at least", _usd(plan.cost_bound_nusd)
    yield "status", plan.status
    yield "proof, choices, end", f"{plan.bound_source}, {plan.source}, {plan.stopped_by}"


def _section(title: str, lines: list[str]) -> None:
    if lines:
        say()
        if title:
            say(f"{title}:")
        _say_all(lines)


def _say_all(lines: list[str]) -> None:
    for line in lines:
        indent = "  " if line.startswith("- ") else ""
        say(textwrap.fill(_plain(line), WIDTH, subsequent_indent=indent, break_long_words=False))


def _say_lines(lines: Iterator[str]) -> None:
    for line in lines:
        say(line)


def _usd(nusd: int) -> str:
    return f"${nusd / 1e9:,.4f}"


def _plain(text: str) -> str:
    from apportion.planner.report.figures import plain

    return plain(text)
