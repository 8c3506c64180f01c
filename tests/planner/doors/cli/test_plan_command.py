"""`apportion plan`, run as users run it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from apportion.errors import InfeasiblePlanError
from apportion.planner.explanation import Explanation
from apportion.planner.plan import Plan
from apportion.planner.policies import Defer, Policy
from apportion.planner.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.planner.doors.cli.conftest import Answer

PROBLEMS = Path(__file__).parents[4] / "fixtures" / "problems"


@pytest.fixture
def run(run: Callable[..., Answer]) -> Callable[..., Answer]:
    return lambda *arguments: run("plan", *arguments)


@pytest.fixture
def problem_file(place: Path, planned: Callable[[int], tuple[Problem, Plan]], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A problem file, for which a plan is at hand that no solver has to look for."""
    problem, plan = planned(3)
    problem.save(place / "problem.toml")

    def stub(asked: Problem, *, deadline_ms: float | None) -> Plan:
        assert asked.agents == problem.agents
        return plan.model_copy(update={"degraded": () if deadline_ms is None else (f"deadline {deadline_ms}",)})

    monkeypatch.setattr("apportion.planner.solver.plan_workflow", stub)
    return place / "problem.toml"


def test_a_plan_is_shown_with_its_agents_pieces_and_certificate(run: Callable[..., Answer], problem_file: Path) -> None:
    answer = run(problem_file)
    assert (answer.code, answer.err) == (0, "")
    for words in (
        "agents run, with",
        "piece of context",
        "Limits that bind:",
        "certificate",
        "(deferred)",
        "Policies:",
    ):
        assert words in answer.out
    assert max(map(len, answer.out.splitlines())) <= 80
    assert len(run(problem_file, "--explain").out) > len(answer.out)


def test_json_holds_plan_and_explanation(run: Callable[..., Answer], problem_file: Path, place: Path) -> None:
    printed = run(problem_file, "--json", "-")
    answer = run(problem_file, "--json", "plan.json")
    assert "wrote plan.json" in answer.err
    assert answer.out
    data = json.loads((place / "plan.json").read_text("utf-8"))
    assert data == json.loads(printed.out)
    assert data["schema"] == "apportion.plan/1"
    assert Plan.model_validate_json(json.dumps(data["plan"])).agents
    assert Explanation.model_validate_json(json.dumps(data["explanation"])).summary


def test_a_deadline_of_zero_is_passed_on(run: Callable[..., Answer], problem_file: Path) -> None:
    assert "Degraded: deadline 0." in run(problem_file, "--deadline-ms", "0").out


def test_budgets_replace_those_of_the_problem(
    run: Callable[..., Answer], problem_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Problem] = []

    def stub(problem: Problem, **_: Any) -> Plan:
        asked.append(problem)
        raise InfeasiblePlanError("too little")

    monkeypatch.setattr("apportion.planner.solver.plan_workflow", stub)
    assert run(problem_file, "--budget-tokens", "5000", "--budget-usd", "0.25").code == 3
    assert (asked[0].max_tokens, asked[0].max_cost_nusd) == (5000, 250_000_000)
    answer = run(problem_file, "--budget-tokens", "0")
    assert answer.code in {2, 3}  # the reserve may not fit
    assert "Traceback" not in answer.err


def test_what_is_infeasible_ends_with_3_and_says_what_is_missing(
    run: Callable[..., Answer], problem_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stub(*_: Any, **__: Any) -> Plan:
        error = InfeasiblePlanError("what must run does not fit", missing_tokens=25_800)
        error.__dict__["conflict"] = ("tokens",)
        raise error

    monkeypatch.setattr("apportion.planner.solver.plan_workflow", stub)
    answer = run(problem_file)
    assert (answer.code, answer.out) == (3, "")
    assert answer.err.splitlines() == [
        "error: what must run does not fit",
        "These cannot all be kept, while any one fewer could: tokens.",
        "Missing at least: 25,800 tokens (tokens).",
    ]


def test_the_example_is_a_problem(run: Callable[..., Answer]) -> None:
    answer = run("--example")
    assert answer.code == 0
    problem = Problem.parse(tomllib.loads(answer.out))
    assert len(problem.agents) == 4
    assert answer.out == (PROBLEMS / "research.toml").read_text("utf-8")


def test_the_problem_in_the_help_is_one(run: Callable[..., Answer]) -> None:
    shown = run("--help").out.partition("The smallest problem:\n")[2].partition("\n\n")[0]
    assert Problem.parse(tomllib.loads(shown)).agents[0].id == "writer"


@pytest.mark.parametrize("name", sorted(path.name for path in PROBLEMS.glob("*.toml")))
def test_the_problems_of_the_fixtures_are_valid(name: str, tmp_path: Path) -> None:
    problem = Problem.load(PROBLEMS / name)
    for copy in ("copy.toml", "copy.json"):
        problem.save(tmp_path / copy)
        assert Problem.load(tmp_path / copy) == problem


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.toml"], "missing.toml: cannot read the problem: No such file or directory"),
        (["."], "Is a directory"),
        (["bad.toml"], "bad.toml: not valid TOML"),
        (["empty.json"], "empty.json: models: Field required (and 2 more)"),
        (["problem.toml", "--json", "problem.toml"], "--json would overwrite what is read"),
        (["problem.toml", "--json", ""], "--json needs the name of a file"),
        (["problem.toml", "--deadline-ms", "-1"], "--deadline-ms must be from 0 to"),
        (["problem.toml", "--budget-tokens", "2M"], "--budget-tokens must be a whole number"),
        (["problem.toml", "--budget-usd", "nan"], "--budget-usd must be above 0"),
    ],
)
def test_mistakes_end_with_2_and_one_message(
    arguments: list[str], said: str, run: Callable[..., Answer], problem_file: Path, place: Path
) -> None:
    (place / "bad.toml").write_text("a = ")
    (place / "empty.json").write_text("{}")
    answer = run(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("name", ["empty.toml", "empty.json"])
def test_an_empty_problem_is_told_what_the_least_is(name: str, run: Callable[..., Answer], place: Path) -> None:
    (place / name).write_text("{}" if name.endswith("json") else "")
    answer = run(name)
    assert answer.code == 2
    assert "models: Field required (and 2 more)" in answer.err
    assert "at least one of models, stages and agents" in " ".join(answer.err.split())
    assert "apportion plan --example" in answer.err


def test_policies_are_asked_for_by_name(
    run: Callable[..., Answer], problem_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Problem] = []

    def stub(problem: Problem, **_: Any) -> Plan:
        asked.append(problem)
        raise InfeasiblePlanError("too little")

    def load() -> tuple[dict[str, Policy], tuple[str, ...]]:
        return {"defer": Defer()}, ("x:y: policy does not load: it is broken",)

    monkeypatch.setattr("apportion.planner.solver.plan_workflow", stub)
    monkeypatch.setattr("apportion.planner.policies.load_policies", load)
    assert "warning: x:y: policy does not load" in run(problem_file, "--policy", "defer").err
    assert not any(agent.mandatory for agent in asked[0].agents)
    answer = run(problem_file, "--policy", "panic")
    assert answer.code == 2
    assert "there is no policy 'panic'" in answer.err
    assert "hint: Installed: defer" in answer.err
