from __future__ import annotations

import sys
from decimal import Decimal
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest

from apportion.errors import InputError
from apportion.planner.limits import LEAST_TASK_BUDGET, TASK_BUDGET_BETA, TURNS_PER_CALL, Limits
from apportion.planner.plan import AgentPlan
from apportion.planner.problem import Problem
from apportion.planner.solver import plan_workflow

if TYPE_CHECKING:
    from pathlib import Path


def test_each_agent_of_a_plan_gets_the_limits_of_its_variant(tmp_path: Path) -> None:
    file = tmp_path / "problem.toml"
    file.write_bytes(files("apportion.planner.doors.cli").joinpath("example_problem.toml").read_bytes())
    problem = Problem.load(file)
    plan = plan_workflow(problem)
    running = [agent for agent in plan.agents if not agent.deferred]
    assert running
    for agent in running:
        variants = {v.id: v for one in problem.agents if one.id == agent.agent_id for v in one.variants}
        variant = variants[str(agent.variant_id)]
        limits = Limits.of(problem, agent)
        assert (limits.work_tokens, limits.tokens) == (agent.work_tokens, agent.tokens)
        assert (limits.turns, limits.model) == (TURNS_PER_CALL * variant.calls, variant.model_id)
        assert (limits.cost_nusd is None) == (problem.max_cost_nusd is None)


def test_a_deferred_agent_has_no_limits(tmp_path: Path) -> None:
    file = tmp_path / "problem.toml"
    file.write_bytes(files("apportion.planner.doors.cli").joinpath("example_problem.toml").read_bytes())
    with pytest.raises(InputError, match="agent 'x' is deferred"):
        Limits.of(Problem.load(file), AgentPlan(agent_id="x", stage_id="s", variant_id=None))


def test_anthropic_gets_a_countdown_with_what_remains_and_its_header() -> None:
    limits = Limits(work_tokens=64_000)
    assert limits.as_anthropic() == {
        "max_tokens": 64_000,
        "output_config": {"task_budget": {"type": "tokens", "total": 64_000}},
        "betas": [TASK_BUDGET_BETA],
    }
    later = limits.as_anthropic(used_tokens=60_000)
    assert later["output_config"]["task_budget"] == {"type": "tokens", "total": 64_000, "remaining": 4_000}
    assert later["max_tokens"] == 4_000
    assert limits.as_anthropic(used_tokens=70_000)["output_config"]["task_budget"]["remaining"] == 0


def test_a_budget_that_anthropic_would_refuse_is_left_out_and_max_tokens_stays() -> None:
    assert Limits(work_tokens=LEAST_TASK_BUDGET).as_anthropic_task_budget() is not None
    assert Limits(work_tokens=LEAST_TASK_BUDGET - 1).as_anthropic() == {"max_tokens": LEAST_TASK_BUDGET - 1}
    assert Limits(work_tokens=0).as_anthropic() == {"max_tokens": 1}  # 0 is refused
    assert Limits().as_anthropic() == {}
    with pytest.raises(InputError, match="used_tokens must be at least 0"):
        Limits(work_tokens=64_000).as_anthropic(used_tokens=-1)


def test_claude_code_and_litellm_get_only_what_is_limited() -> None:
    limits = Limits(tokens=100, cost_nusd=1_500_000_000, turns=8, model="m")
    assert limits.as_claude_code() == {"maxTurns": 8, "model": "m"}
    assert limits.as_litellm() == {"max_budget": 1.5, "models": ["m"]}
    assert Limits(tokens=100).as_claude_code() == Limits(tokens=100).as_litellm() == {}
    assert (Limits().as_max_tokens(), Limits(work_tokens=0).as_max_tokens()) == (None, 1)


def test_limits_that_are_none_are_refused() -> None:
    for bad in ({"work_tokens": -1}, {"tokens": -1}, {"cost_nusd": -1}, {"turns": 0}):
        with pytest.raises(InputError, match="must be at least"):
            Limits(**bad)  # type: ignore[arg-type]


def test_pydantic_ai_stops_a_run_at_these_limits() -> None:
    pytest.importorskip("pydantic_ai", reason="pydantic-ai is not installed")
    from pydantic_ai.exceptions import UsageLimitExceeded
    from pydantic_ai.usage import RunUsage

    limits = Limits(work_tokens=500, tokens=2_000, cost_nusd=2_500_000_000, turns=3).as_pydantic_ai()
    assert limits.cost_limit == Decimal("2.5")
    limits.check_tokens(RunUsage(input_tokens=1_500, output_tokens=500))
    for usage in (RunUsage(input_tokens=100, output_tokens=501), RunUsage(input_tokens=1_900, output_tokens=101)):
        with pytest.raises(UsageLimitExceeded):
            limits.check_tokens(usage)
    with pytest.raises(UsageLimitExceeded):
        limits.check_before_request(RunUsage(requests=3))
    unlimited = Limits().as_pydantic_ai()
    unlimited.check_before_request(RunUsage(requests=10**6))


def test_anthropics_own_types_know_these_fields() -> None:
    pytest.importorskip("anthropic", reason="anthropic is not installed")
    from anthropic.types.beta import BetaOutputConfigParam, BetaTokenTaskBudgetParam

    arguments = Limits(work_tokens=64_000).as_anthropic(used_tokens=1)
    assert set(arguments["output_config"]) <= set(BetaOutputConfigParam.__annotations__)
    assert set(arguments["output_config"]["task_budget"]) == set(BetaTokenTaskBudgetParam.__annotations__)


def test_without_pydantic_ai_an_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic_ai.usage", None)
    with pytest.raises(InputError, match="need the package pydantic-ai"):
        Limits().as_pydantic_ai()
