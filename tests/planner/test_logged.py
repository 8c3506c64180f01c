from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from apportion import SkipLog, WorkflowLog, read_logs
from apportion.content import classify
from apportion.errors import InputError
from apportion.planner.logged import LEG_CALLS, problem_from_log
from apportion.planner.profiles import profile_of
from apportion.records import Action, Kind

if TYPE_CHECKING:
    from apportion.planner.problem import Problem

LOGS = Path(__file__).resolve().parents[2] / "fixtures" / "logs"


@pytest.fixture(scope="module")
def log() -> WorkflowLog:
    (log,) = read_logs(LOGS / "sessions" / "claude-code-cipherbox.jsonl.zst", SkipLog())
    return log


@pytest.fixture(scope="module")
def problem(log: WorkflowLog) -> Problem:
    return problem_from_log(log, simplified={"claude-opus-4-6": "claude-haiku-4-5-20251001"})


def test_every_call_is_in_one_leg(log: WorkflowLog, problem: Problem) -> None:
    calls = [agent.variants[0].calls for agent in problem.agents]
    assert sum(calls) == log.calls
    assert max(calls) <= LEG_CALLS


def test_a_prompt_has_the_size_that_the_log_states_where_the_run_begins(log: WorkflowLog, problem: Problem) -> None:
    usages: dict[str, int | None] = {}
    for event in log.events:
        if event.usage is not None:
            usages.setdefault(event.agent_run, event.usage.prompt_tokens)
    firsts = [agent for agent in problem.agents if agent.id.endswith(" 1")]
    assert [problem.context_tokens(agent) for agent in firsts] == list(usages.values())


def test_later_legs_go_on_from_a_cached_prefix(problem: Problem) -> None:
    main = [agent for agent in problem.agents if agent.id.startswith("main")]
    for before, after in pairwise(main):
        shared = len(before.uses)
        assert [use.item_id for use in after.uses[:shared]] == [use.item_id for use in before.uses]
        assert after.cached_uses in {0, *range(shared, len(after.uses) + 1)}
    assert sum(agent.cached_uses > 0 for agent in main) >= 5


def test_results_of_sub_agents_are_reported_once_to_the_leg_that_gets_them(log: WorkflowLog, problem: Problem) -> None:
    reports = {agent.id: agent.reports_to for agent in problem.agents if agent.reports_to}
    assert reports == {"Explore 2": "main 7", "Plan 1": "main 8"}
    step = {event.name: event.step for event in log.events if event.kind is Kind.HANDOFF_RESULT}["Explore"]
    holders = [
        agent.id for agent in problem.agents if any(use.item_id.endswith(f"at step {step}") for use in agent.uses)
    ]
    assert holders == ["main 8"]  # the leg after the one that it was reported to


def test_sub_agents_can_be_deferred_and_simplified_and_the_main_agent_cannot(problem: Problem) -> None:
    for agent in problem.agents:
        assert agent.mandatory == agent.id.startswith("main")
    variants = {agent.id: [variant.id for variant in agent.variants] for agent in problem.agents}
    assert variants["Plan 1"] == ["full", "simplified"]
    assert variants["main 1"] == variants["Explore 1"] == ["full"]


def test_results_may_be_written_by_their_structure_in_the_size_that_their_kind_has_on_average(
    log: WorkflowLog, problem: Problem
) -> None:
    shorter = {item.id: item for item in problem.items if any(form.action is Action.STRUCTURE for form in item.forms)}
    assert len(shorter) >= 10
    checked = 0
    for event in log.events:
        item = shorter.get(f"{event.name} at step {event.step}")
        if item is None or event.kind is not Kind.TOOL_RESULT:
            continue
        (form,) = (form for form in item.forms if form.action is Action.STRUCTURE)
        saved = profile_of(classify(event.content), Action.STRUCTURE).saved
        assert 0 < item.tokens * (1 - saved) <= form.tokens < item.tokens
        assert (form.loss_points, form.need_ppm) == (0, 0)
        assert item.forms[0].action is Action.MASK
        checked += 1
    assert checked >= 10


def test_the_same_log_makes_the_same_problem(log: WorkflowLog, problem: Problem) -> None:
    again = problem_from_log(log, simplified={"claude-opus-4-6": "claude-haiku-4-5-20251001"})
    assert again.fingerprint == problem.fingerprint


def test_a_log_without_known_models_is_refused() -> None:
    (log,) = read_logs(LOGS / "ag2" / "whowhen-1.json", SkipLog())
    with pytest.raises(InputError, match="no call of a model"):
        problem_from_log(log)


def test_a_simplified_model_needs_a_price(log: WorkflowLog) -> None:
    with pytest.raises(InputError, match="no prices are known"):
        problem_from_log(log, simplified={"claude-opus-4-6": "no such model"})


@pytest.mark.parametrize("folder", ["claude_code", "codex", "opencode", "normalised", "langfuse", "openai_messages"])
def test_real_logs_of_all_kinds_make_valid_problems(folder: str) -> None:
    for log in read_logs(LOGS / folder, SkipLog()):
        try:
            problem = problem_from_log(log)
        except InputError:
            continue
        assert problem.agents
