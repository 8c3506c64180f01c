"""ATIF trajectories: sub-agents beside and inside a file, copied context, continuations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from apportion.records import Kind, Usage
from apportion.telemetry.importers.atif import AtifImporter
from apportion.telemetry.reading import LogSource, SkipLog, find_sources

if TYPE_CHECKING:
    from apportion.telemetry.events import Event, WorkflowLog

LOGS = Path(__file__).parents[3] / "fixtures" / "logs"
TERMINUS = LOGS / "atif/terminus"
EMBEDDED = LOGS / "atif/embedded-subagents.json"
LINES = LOGS / "atif/one-per-line.jsonl"
IMPORTER = AtifImporter()

UNSTATED = frozenset({"cache_write_5m"})
"""The log does not say how long what was written to the cache lives."""


def read(*sources: LogSource, skipped: SkipLog | None = None) -> list[WorkflowLog]:
    skipped = skipped or SkipLog()
    return [log for group in IMPORTER.group(list(sources)) for log in IMPORTER.read(group, skipped)]


def read_path(path: Path) -> WorkflowLog:
    skipped = SkipLog()
    (log,) = read(*find_sources([path], skipped), skipped=skipped)
    assert (skipped.files, skipped.lines) == (0, 0)
    return log


def read_record(**record: Any) -> WorkflowLog:
    (log,) = read(LogSource(None, data=json.dumps(trajectory(**record)).encode()))
    return log


def trajectory(**fields: Any) -> dict[str, Any]:
    agent = {"name": "tester", "version": "1", "model_name": "m"}
    return {"schema_version": "ATIF-v1.7", "session_id": "s", "agent": agent, "steps": [], **fields}


def agent_step(**fields: Any) -> dict[str, Any]:
    return {"step_id": 1, "source": "agent", "message": "done", **fields}


def completions(log: WorkflowLog) -> list[Event]:
    return list({event.call: event for event in reversed(log.events) if event.call is not None}.values())[::-1]


def plain_calls(*documents: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the steps that a model made, sub-agents included, without the code under test."""
    steps = []
    for document in documents:
        steps += [
            step
            for step in document["steps"]
            if step["source"] == "agent" and not step.get("is_copied_context") and step.get("llm_call_count") != 0
        ]
        steps += plain_calls(*document.get("subagent_trajectories", []))
    return steps


@pytest.mark.parametrize("path", [TERMINUS, EMBEDDED], ids=lambda path: path.stem)
def test_calls_usage_and_cost_equal_an_independent_count(path: Path) -> None:
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    steps = plain_calls(*(json.loads(file.read_text(encoding="utf-8")) for file in files))
    metrics = [step["metrics"] for step in steps]
    log = read_path(path)
    assert log.calls == len(steps) > 0
    assert log.usage.prompt_tokens == sum(one["prompt_tokens"] for one in metrics)
    assert log.usage.output == sum(one["completion_tokens"] for one in metrics)
    assert (log.usage.cache_read or 0) == sum(one.get("cached_tokens", 0) for one in metrics)
    assert sum(event.cost_usd or 0 for event in log.events) == pytest.approx(
        sum(one.get("cost_usd", 0) for one in metrics)
    )


def test_final_metrics_that_include_sub_agents_are_not_added() -> None:
    log = read_path(TERMINUS)
    assert log.meta["final_metrics"]["total_prompt_tokens"] == log.usage.prompt_tokens == 4740


def test_trajectories_that_refer_to_each_other_are_one_workflow() -> None:
    log = read_path(TERMINUS)
    assert log.id == "atif:run-7"
    assert log.framework == "terminus-2"
    assert {event.agent_run: event.agent for event in log.events} == {
        "main": "terminus-2",
        "sub:run-7-summarization-1-summary": "terminus-2-summarization-summary",
        "sub:run-7-summarization-1-questions": "terminus-2-summarization-questions",
    }
    assert {event.parent_agent for event in log.events if event.agent_run != "main"} == {"main"}


def test_a_trajectory_whose_relatives_are_missing_stands_alone(tmp_path: Path) -> None:
    for name in ("trajectory.json", "trajectory.summarization-1-summary.json"):
        (tmp_path / name).write_bytes((TERMINUS / name).read_bytes())
    log = read_path(tmp_path)
    assert log.agents == 2
    assert [log.id for log in read(LogSource(TERMINUS / "trajectory.cont-1.json"))] == ["atif:run-7-cont-1"]


def test_a_broken_relative_is_counted_and_does_not_cost_the_rest(tmp_path: Path) -> None:
    for path in TERMINUS.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "trajectory.cont-1.json").write_text('{\n"schema_version": "ATIF-v1.6",\n"steps": [\n')
    skipped = SkipLog()
    logs = read(*find_sources([tmp_path], skipped), skipped=skipped)
    assert [log.calls for log in logs] == [4]
    assert [(Path(skip.path).name, skip.line) for skip in skipped.messages] == [("trajectory.cont-1.json", 4)]


def test_context_copied_into_a_trajectory_is_input_not_a_call() -> None:
    events = [event for event in read_path(TERMINUS).events if event.agent_run == "sub:run-7-summarization-1-summary"]
    assert [(event.kind, event.call is None) for event in events] == [
        (Kind.USER, True),
        (Kind.ASSISTANT, True),
        (Kind.USER, True),
        (Kind.ASSISTANT, False),
    ]


def test_summarising_and_continuing_start_the_context_anew() -> None:
    log = read_path(TERMINUS)
    anew = [event for event in log.events if event.compaction]
    assert [(event.agent_run, event.kind) for event in anew] == [("main", Kind.SYSTEM), ("main", Kind.SYSTEM)]
    assert "summarization" in anew[0].content
    assert anew[1].content == log.events[0].content  # the copied system prompt of the continuation


def test_managed_context_starts_the_context_anew_with_its_summary() -> None:
    log = read_path(EMBEDDED)
    (anew,) = (event for event in log.events if event.compaction)
    summary = log.events[anew.step + 1]
    assert (summary.kind, summary.content, summary.agent_run) == (Kind.SYSTEM, "Reader A: 2 s, reader B: 1 s.", "main")


def test_calls_that_start_sub_agents_are_hand_offs() -> None:
    log = read_path(EMBEDDED)
    story = [(event.kind, event.agent_run, event.name, event.link) for event in log.events if event.link]
    assert story == [
        (Kind.HANDOFF, "main", "researcher", "call_d1"),
        (Kind.HANDOFF_RESULT, "main", "researcher", "call_d1"),
        (Kind.HANDOFF, "main", "researcher", "call_d2"),
        (Kind.HANDOFF_RESULT, "main", "researcher", "call_d2"),
    ]
    runs = list(dict.fromkeys(event.agent_run for event in log.events))
    assert runs == ["main", "sub:child-a", "sub:child-b"]


def test_a_dispatch_without_a_model_is_no_call_and_several_calls_in_a_step_are_told() -> None:
    log = read_path(EMBEDDED)
    assert next(event for event in log.events if event.kind is Kind.HANDOFF).call is None
    assert log.meta["calls_within_steps"] == 1


def test_what_was_written_to_the_cache_is_taken_from_the_prompt() -> None:
    usages = [event.usage for event in completions(read_path(EMBEDDED))]
    assert Usage(input_uncached=50, cache_read=5000, cache_write_5m=150, output=30, estimated=UNSTATED) in usages


@pytest.mark.parametrize(
    ("metrics", "usage"),
    [
        (
            {"prompt_tokens": 100, "completion_tokens": 5, "cached_tokens": 40},
            Usage(input_uncached=60, cache_read=40, output=5),
        ),
        ({"prompt_tokens": 100, "cached_tokens": 100}, Usage(input_uncached=0, cache_read=100)),
        (
            {"prompt_tokens": 10, "extra": {"cache_creation_input_tokens": 50}},
            Usage(input_uncached=10, cache_write_5m=50, estimated=UNSTATED),
        ),
        ({"completion_tokens": 5, "extra": {"reasoning_tokens": 3}}, Usage(output=5, reasoning=3)),
        ({"prompt_tokens": None}, None),
        ({"logprobs": [0.1]}, None),
        (None, None),
    ],
)
def test_metrics_become_disjoint_columns(metrics: Any, usage: Usage | None) -> None:
    log = read_record(steps=[agent_step(metrics=metrics)])
    assert log.events[0].usage == usage


def test_results_without_an_identifier_belong_to_the_calls_in_order() -> None:
    log = read_path(TERMINUS)
    calls = {event.link: event.step for event in log.events if event.kind is Kind.TOOL_CALL}
    results = {event.link: event.step for event in log.events if event.kind is Kind.TOOL_RESULT}
    assert calls.keys() == results.keys() == {"call_0_1", "call_1_1", "call_2_1"}
    assert all(calls[link] < results[link] for link in calls)


def test_reasoning_message_and_calls_of_a_step_are_one_completion() -> None:
    log = read(LogSource(LINES))[0]
    first = [event for event in log.events if event.call == 0]
    assert [event.kind for event in first] == [Kind.THINKING, Kind.ASSISTANT, Kind.TOOL_CALL, Kind.TOOL_CALL]
    assert [event.usage is not None for event in first] == [True, False, False, False]
    assert [(event.content, event.link) for event in log.events if event.kind is Kind.TOOL_RESULT] == [
        ("19 EUR", "c1"),
        ("4 free", "c2"),
    ]


def test_each_line_of_a_data_set_is_a_workflow() -> None:
    assert [(log.id, log.calls) for log in read(LogSource(LINES))] == [("atif:price-1", 2), ("atif:price-2", 1)]


def test_stages_count_the_turns_of_the_user_in_the_main_run() -> None:
    stages = [(event.stage, event.agent_run) for event in read_path(TERMINUS).events if event.kind is Kind.USER]
    assert [stage for stage, run in stages if run == "main"] == [1, 2, 2, 2]
    assert {stage for stage, run in stages if run != "main"} == {1}


def test_pictures_leave_a_marker() -> None:
    log = read_path(EMBEDDED)
    assert log.events[1].content.startswith("Compare the two readers.\n[image omitted: ")


def test_a_trajectory_without_identifiers_gets_one_from_its_content() -> None:
    ids = {read_record(session_id=None, steps=[agent_step(message=text)]).id for text in ("a", "a", "b")}
    assert len(ids) == 2


def test_trajectories_in_a_circle_are_read_once() -> None:
    records = []
    for name, other in (("a", "b"), ("b", "a")):
        step = agent_step(observation={"results": [{"subagent_trajectory_ref": [{"session_id": other}]}]})
        records.append(trajectory(session_id=name, steps=[step]))
    data = "\n".join(json.dumps(record) for record in records).encode()
    (log,) = read(LogSource(None, data=data))
    assert (log.id, log.calls, log.agents) == ("atif:a", 2, 2)


def test_a_step_from_nobody_is_counted_and_the_rest_is_read() -> None:
    skipped = SkipLog()
    record = trajectory(steps=[{"source": "oracle"}, 7, agent_step()])
    (log,) = read(LogSource(None, data=json.dumps(record).encode()), skipped=skipped)
    assert log.calls == 1
    assert [(skip.line, skip.reason) for skip in skipped.messages] == [
        (1, "step 1 comes neither from a user, nor an agent, nor the system"),
        (1, "step 2 comes neither from a user, nor an agent, nor the system"),
    ]


def test_a_trajectory_without_steps_is_counted() -> None:
    skipped = SkipLog()
    assert read(LogSource(None, data=json.dumps(trajectory()).encode()), skipped=skipped) == []
    assert [skip.reason for skip in skipped.messages] == ["trajectory without a usable step"]


@pytest.mark.parametrize("path", sorted(LOGS.rglob("*.*")), ids=lambda path: str(path.relative_to(LOGS)))
def test_only_its_own_format_is_recognised(path: Path) -> None:
    assert IMPORTER.sniff(LogSource(path)) == float("atif" in path.parts)
