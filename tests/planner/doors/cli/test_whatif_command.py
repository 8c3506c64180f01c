"""`apportion whatif`, run as users run it on a real problem."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from apportion.planner.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.planner.doors.cli.conftest import Answer

ROOT = Path(__file__).parents[4]


@pytest.fixture
def ask(run: Callable[..., Answer], place: Path) -> Callable[..., Answer]:
    shutil.copy(ROOT / "fixtures" / "problems" / "research.toml", place / "problem.toml")
    return lambda *arguments: run("whatif", "problem.toml", *arguments)


def test_several_budgets_give_a_row_each_that_never_falls_in_value(ask: Callable[..., Answer]) -> None:
    code, out, _ = ask("--budget", "100,60000,none", "--budget", "150000", "--json")
    data = json.loads(out)
    assert (code, data["schema"], data["question"], data["axis"]) == (0, "apportion.whatif/1", "budgets", "tokens")
    assert [row["budget_tokens"] for row in data["rows"]] == [100, 60_000, 150_000, None]
    assert not data["rows"][0]["fits"]
    assert data["rows"][0]["missing"]
    values = [row["points"] for row in data["rows"] if row["fits"]]
    assert values == sorted(values)
    assert all(row["points"] <= row["bound_points"] for row in data["rows"] if row["fits"])
    code, out, _ = ask("--budget", "100,60000,none")
    assert [line.split()[0] for line in out.splitlines()] == ["budget", "100", "60,000", "none"]


def test_a_change_is_compared_with_the_plan_as_it_is(ask: Callable[..., Answer]) -> None:
    problem = Problem.load("problem.toml")
    model = problem.models[0].id
    code, out, _ = ask("--price", f"{model}=0.5", "--json")
    data = json.loads(out)
    assert (code, data["question"]) == (0, "change")
    assert data["after"]["cost_usd"] < data["before"]["cost_usd"]
    assert f"{model} at 0.5 times its prices" in data["change"]
    assert ask("--price", f"{model}=0.5")[1].startswith("What if: ")


def test_a_quality_gives_a_cheaper_plan_that_is_worth_it(ask: Callable[..., Answer]) -> None:
    _, out, _ = ask("--quality", "80%", "--json")
    data = json.loads(out)
    assert data["after"]["points"] >= 0.8 * data["before"]["points"] - 0.1
    assert data["after"]["cost_usd"] <= data["before"]["cost_usd"]


def test_a_front_holds_no_plan_that_another_beats(ask: Callable[..., Answer]) -> None:
    _, out, _ = ask("--front", "4", "--json", "-")
    rows = json.loads(out)["rows"]
    assert rows
    for one in rows:
        assert not any(
            other["tokens"] <= one["tokens"]
            and other["cost_usd"] <= one["cost_usd"]
            and other["points"] >= one["points"]
            and other != one
            for other in rows
        )


def test_where_nothing_fits_the_code_is_3_and_what_is_missing_is_told(
    ask: Callable[..., Answer],
) -> None:
    code, out, err = ask("--budget", str(Problem.load("problem.toml").reserve_tokens + 100))
    assert (code, out) == (3, "")
    assert "Missing at least" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing is to change"),
        (["--budget", "1,,2"], "--budget holds an empty amount"),
        (["--budget", "50k"], "--budget must be a whole number"),
        (["--budget", "1,2", "--front", "3"], "are three questions"),
        (["--budget", "1,2", "--budget-usd", "1"], "cannot both be varied"),
        (["--price", "0.5"], "--price needs MODEL=FACTOR"),
        (["--price", "nobody=0.5"], "'nobody'"),
        (["--without", "nobody"], "'nobody'"),
        (["--quality", "lots"], "--quality must be a number"),
        (["--budget", "9", "--json", "problem.toml"], "--json would overwrite what is read"),
    ],
)
def test_questions_that_cannot_be_used_end_with_2(arguments: list[str], said: str, ask: Callable[..., Answer]) -> None:
    code, out, err = ask(*arguments)
    assert (code, out) == (2, "")
    assert said in err
