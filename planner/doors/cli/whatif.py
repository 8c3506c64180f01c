"""The command `apportion whatif`."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion.errors import InputError
from apportion.planner.doors.cli._common import say
from apportion.planner.doors.cli._files import output, write_output
from apportion.planner.doors.cli._json import JsonFileCommand
from apportion.planner.doors.cli._numbers import amount, whole_number
from apportion.planner.doors.cli.plan import INFEASIBLE, MOST_TOKENS, MOST_USD, complain_of_conflict, load_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apportion.planner.problem import Problem

MOST_BUDGETS = 1_000
"""Budgets of one question at most."""

MOST_FACTOR = 1e6
"""Largest factor of prices."""

SCHEMA = "apportion.whatif/1"
"""Name and version of the JSON that is written."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    summary = "What if the budget, the agents, the context or a price were different?"
    app.command("whatif", cls=JsonFileCommand, help=_HELP, short_help=summary, no_args_is_help=True)(whatif_command)


_HELP = """What if the budget, the agents, the context or a price were different?

Reads a problem as `apportion plan` does, plans it as it is and under the changes, and compares. With several budgets,
it shows what each of them buys: where more tokens no longer help, and from where on nothing fits. With --front, it
shows what can be had of few tokens, a low bill and much value, where nothing is to be had for nothing.

"at most" and "gap" are proven: no plan within that budget is worth more.

\b
Examples:
  apportion whatif problem.toml --budget 50000,100000,200000
  apportion whatif problem.toml --budget-usd 0.05,0.10,none
  apportion whatif problem.toml --without reviewer --price sonnet=0.5
  apportion whatif problem.toml --quality 90%
  apportion whatif problem.toml --front 8 --json

Exit codes: 0 answered, also where nothing fits some of several budgets; 2 the question cannot be used; 3 nothing fits.
"""


def whatif_command(
    problem_file: Annotated[
        str, typer.Argument(metavar="PROBLEM", help="The problem: a .toml or .json file.", show_default=False)
    ],
    *,
    budgets: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            metavar="TOKENS,...",
            help="Limit of the workflow in tokens, or several of them; none is no limit.",
        ),
    ] = None,
    budgets_usd: Annotated[
        list[str] | None,
        typer.Option("--budget-usd", metavar="AMOUNT,...", help="The same in US dollars."),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="NAME", help="Leave out an agent or a piece of context; repeatable."),
    ] = None,
    prices: Annotated[
        list[str] | None,
        typer.Option("--price", metavar="MODEL=FACTOR", help="Multiply the prices of a model; repeatable."),
    ] = None,
    quality: Annotated[
        str | None,
        typer.Option(
            "--quality",
            metavar="POINTS|SHARE%",
            help="Look for the cheapest plan that is worth so much, in points or as a share of the plan as it is.",
        ),
    ] = None,
    front: Annotated[
        int | None,
        typer.Option(
            "--front",
            parser=whole_number("--front", least=2, most=100),
            metavar="NUMBER",
            help="Show about so many plans of which none is better than another in tokens, cost and value.",
        ),
    ] = None,
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json", metavar="FILE", help="Write the answer as JSON; alone or with - it is printed instead of tables."
        ),
    ] = None,
) -> None:
    """What if the budget, the agents, the context or a price were different?"""
    from apportion.errors import InfeasiblePlanError

    target = None if json_file is None else output("--json", json_file)
    tokens = _amounts("--budget", budgets, whole_number("--budget", least=0, most=MOST_TOKENS))
    usd = _amounts("--budget-usd", budgets_usd, amount("--budget-usd", most=MOST_USD))
    factors = dict(_factor(text) for text in prices or ())
    problem = load_problem(problem_file, target)
    try:
        answer, data = _answer(problem, tokens, usd, without or [], factors, quality, front)
    except InfeasiblePlanError as error:
        complain_of_conflict(error)
        raise typer.Exit(INFEASIBLE) from None
    if target is None or not target.to_stdout:
        say(answer)
    if target is not None:
        write_output(target, json.dumps({"schema": SCHEMA, **data}, indent=2, ensure_ascii=False) + "\n")
        if not target.to_stdout:
            typer.echo(f"wrote {target.name}", err=True)


def _answer(
    problem: Problem,
    tokens: Sequence[float],
    usd: Sequence[float],
    without: Sequence[str],
    factors: dict[str, float],
    quality: str | None,
    front: int | None,
) -> tuple[str, dict[str, Any]]:
    """Return the answer for people and for programs."""
    several = len(tokens) > 1 or len(usd) > 1
    if sum((several, front is not None, quality is not None)) > 1:
        raise InputError("several budgets, --front and --quality are three questions", hint="Ask one of them at a time")
    if several and tokens and usd:
        raise InputError("--budget and --budget-usd cannot both be varied", hint="Give one value of one of them")
    if several:
        return _swept(problem, tokens, usd, without, factors)
    if front is not None:
        return _front(problem, tokens, usd, without, factors, front)
    if not (tokens or usd or without or factors or quality):
        raise InputError("nothing is to change", hint="Give --budget, --budget-usd, --without, --price or --quality")
    return _compared(problem, tokens, usd, without, factors, quality)


def _swept(
    problem: Problem, tokens: Sequence[float], usd: Sequence[float], without: Sequence[str], factors: dict[str, float]
) -> tuple[str, dict[str, Any]]:
    from apportion.planner.sweeps import sweep
    from apportion.planner.whatif import changed_problem

    changed = changed_problem(problem, without=without, price=factors)
    found = sweep(changed, budgets_tokens=tokens or None, budgets_usd=usd or None)
    rows = [{**row, "missing": point.missing} for row, point in zip(found.to_rows(), found.points, strict=True)]
    return str(found), {"question": "budgets", "axis": found.axis, "rows": rows}


def _front(
    problem: Problem,
    tokens: Sequence[float],
    usd: Sequence[float],
    without: Sequence[str],
    factors: dict[str, float],
    number: int,
) -> tuple[str, dict[str, Any]]:
    from apportion.planner.sweeps import pareto
    from apportion.planner.whatif import changed_problem

    changed = changed_problem(
        problem, budget_tokens=_only(tokens), budget_usd=_only(usd), without=without, price=factors
    )
    found = pareto(changed, number)
    return str(found), {"question": "front", "rows": found.to_rows()}


def _compared(
    problem: Problem,
    tokens: Sequence[float],
    usd: Sequence[float],
    without: Sequence[str],
    factors: dict[str, float],
    quality: str | None,
) -> tuple[str, dict[str, Any]]:
    from apportion.planner.solver import plan_workflow
    from apportion.planner.whatif import STUDY, what_if

    plan = plan_workflow(problem, deadline_ms=None, effort=STUDY)
    found = what_if(
        plan,
        problem=problem,
        budget_tokens=_only(tokens),
        budget_usd=_only(usd),
        without=without,
        price=factors,
        quality=None if quality is None else _quality(quality, plan.points),
    )
    totals = {
        side: {
            "points": each.points,
            "gap": each.gap,
            "tokens": each.tokens,
            "cost_usd": each.cost_usd,
            "deferred": list(each.deferred),
        }
        for side, each in (("before", found.before), ("after", found.after))
    }
    changes = {"points": found.points, "tokens": found.tokens, "cost_usd": found.cost_usd}
    data = {"question": "change", "change": found.change, **totals, "difference": changes, "rows": found.to_rows()}
    return str(found), data


def _only(values: Sequence[float]) -> float | None:
    return values[0] if values else None


def _amounts(option: str, given: Sequence[str] | None, parse: Callable[[str], float]) -> list[float]:
    """Return the amounts of an option that may be repeated and hold several at once."""
    words = [word.strip() for text in given or () for word in text.split(",")]
    if any(not word for word in words):
        raise InputError(f"{option} holds an empty amount", hint=f"For example {option} 50000,100000,none")
    if len(words) > MOST_BUDGETS:
        raise InputError(f"{len(words):,} budgets are too many", hint=f"Ask for {MOST_BUDGETS:,} at most")
    return list(dict.fromkeys(math.inf if word.lower() == "none" else parse(word) for word in words))


def _factor(text: str) -> tuple[str, float]:
    model, equals, factor = text.rpartition("=")
    if not equals or not model:
        raise InputError(f"--price needs MODEL=FACTOR, not '{text[:40]}'", hint="For example --price sonnet=0.5")
    return model, amount("--price", most=MOST_FACTOR)(factor)


def _quality(text: str, points: float) -> float:
    """Return the points that are wanted; a share is one of the plan as it is."""
    if text.endswith("%"):
        return points * amount("--quality", most=100.0)(text[:-1]) / 100
    return amount("--quality", most=2.0**53)(text)
