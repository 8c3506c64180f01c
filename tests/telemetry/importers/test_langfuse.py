"""Traces exported from Langfuse: eight real ones, and the shapes that they do not show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from apportion.records import Kind, Usage
from apportion.telemetry.importers.langfuse import LangfuseImporter
from apportion.telemetry.reading import LogSource, SkipLog

if TYPE_CHECKING:
    from apportion.telemetry.events import Event, WorkflowLog

LOGS = Path(__file__).parents[3] / "fixtures" / "logs"
FILES = sorted((LOGS / "langfuse").glob("*.json"))
IMPORTER = LangfuseImporter()


def read_file(name: str) -> WorkflowLog:
    skipped = SkipLog()
    (log,) = IMPORTER.read([LogSource(LOGS / "langfuse" / f"{name}.json")], skipped)
    assert (skipped.files, skipped.lines) == (0, 0)
    return log


def read(value: Any, skipped: SkipLog | None = None) -> list[WorkflowLog]:
    source = LogSource(None, data=json.dumps(value).encode())
    return list(IMPORTER.read([source], skipped or SkipLog()))


def completions(log: WorkflowLog) -> list[Event]:
    """Return the first event of each completion."""
    return list({event.call: event for event in reversed(log.events) if event.call is not None}.values())[::-1]


def prompt_of(log: WorkflowLog, completion: Event) -> list[tuple[Kind, str]]:
    assert completion.prompt_steps is not None
    by_step = {event.step: event for event in log.events}
    return [(by_step[step].kind, by_step[step].content) for step in completion.prompt_steps]


def innermost_generations(path: Path) -> list[dict[str, Any]]:
    observations = json.loads(path.read_text(encoding="utf-8"))["observations"]
    generations = [one for one in observations if one["type"] == "GENERATION"]
    outer = {one["parentObservationId"] for one in generations}
    return [one for one in generations if one["id"] not in outer]


# --- the real traces


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_calls_usage_and_cost_equal_an_independent_count(path: Path) -> None:
    log = read_file(path.stem)
    generations = innermost_generations(path)
    assert log.calls == len(generations) > 0
    assert log.usage.prompt_tokens == sum(one["usageDetails"]["input"] for one in generations)
    assert log.usage.output == sum(one["usageDetails"]["output"] for one in generations)
    costs = [event.cost_usd for event in log.events if event.cost_usd is not None]
    assert sum(costs) == pytest.approx(sum(one["costDetails"]["total"] for one in generations))
    assert {event.model for event in completions(log)} == {one["model"] for one in generations}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_framework_is_recognised(path: Path) -> None:
    log = read_file(path.stem)
    assert log.framework == path.stem
    assert log.source == "langfuse"
    assert log.id == f"langfuse:{json.loads(path.read_text(encoding='utf-8'))['trace']['id']}"
    assert log.origin == str(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_call_names_a_prompt_that_ends_with_something_new(path: Path) -> None:
    log = read_file(path.stem)
    before: dict[str, tuple[int, ...]] = {}
    for completion in completions(log):
        if completion.prompt_steps is None:
            assert path.stem == "microsoft-agent"
            continue
        assert completion.prompt_steps != before.get(completion.agent_run)
        before[completion.agent_run] = completion.prompt_steps


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_tool_result_follows_its_call(path: Path) -> None:
    events = read_file(path.stem).events
    called = {event.link for event in events if event.kind is Kind.TOOL_CALL}
    results = [event for event in events if event.kind is Kind.TOOL_RESULT]
    assert {event.link for event in results} <= called
    assert None not in called
    assert len({event.link for event in results}) == len(results)


@pytest.mark.parametrize(
    ("name", "agents"),
    [
        ("agno", {"Agent.run"}),
        ("autogen", {"autogen-chat-trace"}),
        ("google-adk", {"hello_agent"}),
        ("langgraph", {"agent"}),
        ("llamaindex", {"llama-index-trace"}),
        ("microsoft-agent", {"99981f6a-abd1-4d09-9fba-00e2ab172193"}),
        ("openai-agents", {"Hello world"}),
        ("pydantic-ai", {"joke_agent", "evaluator_agent"}),
    ],
)
def test_the_agent_is_the_nearest_that_is_named(name: str, agents: set[str]) -> None:
    assert {event.agent for event in read_file(name).events} == agents


def test_an_agent_that_is_run_again_with_its_history_keeps_its_context() -> None:
    log = read_file("pydantic-ai")
    joke = [event for event in completions(log) if event.agent == "joke_agent"]
    assert {event.agent_run for event in joke} == {"joke_agent"}
    assert [event.stage for event in joke] == [1, 1, 2]
    prompts = [prompt_of(log, event) for event in joke]
    assert prompts[2][: len(prompts[1])] == prompts[1]
    assert log.agents == 2


def test_system_instructions_beside_the_messages_belong_to_the_prompt() -> None:
    log = read_file("openai-agents")
    assert [kind for kind, _ in prompt_of(log, completions(log)[0])] == [Kind.TOOL_DEFINITIONS, Kind.SYSTEM, Kind.USER]
    assert (Kind.SYSTEM, "You are a helpful agent.") in prompt_of(log, completions(log)[0])


def test_tools_that_langchain_lists_among_the_messages_are_definitions() -> None:
    log = read_file("langgraph")
    first, second = (prompt_of(log, event) for event in completions(log))
    assert first[0][0] is second[0][0] is Kind.TOOL_DEFINITIONS
    assert "Dummy web search tool." in first[0][1]
    assert second[: len(first)] == first
    assert [kind for kind, _ in second[len(first) :]] == [Kind.TOOL_CALL, Kind.TOOL_RESULT]


def test_a_generation_around_the_providers_own_counts_once() -> None:
    log = read_file("agno")
    observations = json.loads((LOGS / "langfuse/agno.json").read_text(encoding="utf-8"))["observations"]
    assert sum(one["type"] == "GENERATION" for one in observations) == 4
    assert [event.usage.prompt_tokens for event in completions(log) if event.usage] == [163, 663]
    assert completions(log)[0].name == "duckduckgo_search"  # the inner generation says "None"


def test_a_call_that_a_tracer_left_out_of_the_next_request_is_put_back() -> None:
    log = read_file("agno")
    kinds = [kind for kind, _ in prompt_of(log, completions(log)[1])]
    assert kinds[-2:] == [Kind.TOOL_CALL, Kind.TOOL_RESULT]


def test_messages_that_were_flattened_into_one_text_are_taken_apart() -> None:
    log = read_file("autogen")
    kinds = [kind for kind, _ in prompt_of(log, completions(log)[0])]
    assert kinds == [Kind.SYSTEM, Kind.USER]
    assert prompt_of(log, completions(log)[0])[1][1] == "Say 'Hello World!'"


def test_a_request_that_continues_what_the_provider_keeps_is_not_a_whole_prompt() -> None:
    first, second = completions(read_file("microsoft-agent"))
    assert first.prompt_steps is not None
    assert second.prompt_steps is None


def test_tokens_that_langfuse_counted_itself_are_marked_as_estimated() -> None:
    first, second = (event.usage for event in completions(read_file("microsoft-agent")))
    assert first is not None
    assert second is not None
    assert first.estimated == {"input_uncached", "output"}
    assert second.estimated == frozenset()
    unmarked = [read_file(path.stem).usage.estimated for path in FILES if path.stem != "microsoft-agent"]
    assert set(unmarked) == {frozenset()}


def test_usage_of_the_agent_around_the_calls_is_not_added() -> None:
    observations = json.loads((LOGS / "langfuse/microsoft-agent.json").read_text(encoding="utf-8"))["observations"]
    agent = next(one for one in observations if one["type"] == "AGENT")
    assert agent["usageDetails"]["input"] == 631
    assert read_file("microsoft-agent").usage.prompt_tokens == 25 + 631


def test_scores_of_the_trace_are_the_outcome() -> None:
    assert read_file("openai-agents").outcome == {"scores": {"toxicity": 0.8, "hallucination": 0}}
    assert read_file("autogen").outcome is None


def test_session_and_tags_are_kept_and_the_word_null_is_nothing() -> None:
    assert read_file("autogen").meta["session_id"] == "session_abc"
    assert read_file("autogen").meta["tags"] == ["autogen", "dev"]
    assert "session_id" not in read_file("langgraph").meta


def test_times_and_durations_come_from_the_observations() -> None:
    first, second = completions(read_file("langgraph"))
    assert first.started_at is not None
    assert second.started_at is not None
    assert first.started_at < second.started_at
    assert first.duration_ms == pytest.approx(848)


# --- other shapes


def observation(number: int = 1, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"o{number}",
        "traceId": "t1",
        "type": "GENERATION",
        "name": "chat",
        "startTime": f"2026-01-01T00:00:{number:02d}.000Z",
        "endTime": f"2026-01-01T00:00:{number:02d}.500Z",
        "model": "gpt-4o",
        "input": [{"role": "user", "content": "hi"}],
        "output": {"role": "assistant", "content": f"hello {number}"},
        "usageDetails": {"input": 10, "output": 5, "total": 15},
        "costDetails": {},
        **fields,
    }


def export(*observations: dict[str, Any], **trace: Any) -> dict[str, Any]:
    given = {"id": "t1", "projectId": "p", "timestamp": "2026-01-01T00:00:00Z", "name": "demo", **trace}
    return {"trace": given, "observations": list(observations)}


def usage_of(details: dict[str, Any]) -> Usage | None:
    return completions(read(export(observation(usageDetails=details)))[0])[0].usage


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        # keys beside `input`: the SDKs subtract the details from it
        (
            {"input": 40, "input_cache_read": 60, "output": 7, "output_reasoning": 3, "total": 110},
            Usage(input_uncached=40, cache_read=60, output=10, reasoning=3),
        ),
        ({"input": 40, "input_cached_tokens": 60, "output": 7}, Usage(input_uncached=40, cache_read=60, output=7)),
        # keys for a part of it: OpenInference
        (
            {"input": 100, "prompt_details.cache_read": 60, "output": 10, "completion_details.reasoning": 3},
            Usage(input_uncached=40, cache_read=60, output=10, reasoning=3),
        ),
        # where names and total contradict each other, the total decides
        (
            {"input": 100, "input_cache_read": 60, "output": 10, "total": 110},
            Usage(input_uncached=40, cache_read=60, output=10),
        ),
        (
            {"input": 40, "prompt_details.cache_read": 60, "output": 10, "total": 110},
            Usage(input_uncached=40, cache_read=60, output=10),
        ),
        # cache writes by time to live, beside their rest or beside their sum
        (
            {"input": 2, "input_cached_tokens": 47105, "input_cache_creation": 0, "input_cache_creation_1h": 1076},
            Usage(input_uncached=2, cache_read=47105, cache_write_5m=0, cache_write_1h=1076),
        ),
        (
            {"input": 2, "cache_creation_input_tokens": 30, "cache_creation.ephemeral_5m_input_tokens": 30},
            Usage(input_uncached=2, cache_write_5m=30),
        ),
        (
            {"input": 2, "cache_creation_input_tokens": 30},
            Usage(input_uncached=2, cache_write_5m=30, estimated=frozenset({"cache_write_5m"})),
        ),
        ({"input": 5}, Usage(input_uncached=5)),
        ({"input": -1, "output": "many"}, None),
        ({}, None),
    ],
)
def test_usage_details_become_disjoint_columns(details: dict[str, Any], expected: Usage | None) -> None:
    assert usage_of(details) == expected


@pytest.mark.parametrize(
    ("fields", "cost"),
    [({"costDetails": {}, "totalCost": 0}, None), ({"costDetails": {"total": 0}}, 0.0), ({"totalCost": 0.5}, 0.5)],
)
def test_an_unknown_price_is_not_free(fields: dict[str, Any], cost: float | None) -> None:
    assert completions(read(export(observation(**fields)))[0])[0].cost_usd == cost


@pytest.mark.parametrize(
    "value",
    [
        export(observation(1), observation(2)),
        {"id": "t1", "timestamp": "2026-01-01T00:00:00Z", "observations": [observation(1), observation(2)]},
        [observation(1), observation(2)],
        {"data": [observation(1), observation(2)], "meta": {"page": 1}},
    ],
    ids=["export", "trace of the API", "list of observations", "page of the API"],
)
def test_all_exports_give_the_same_calls(value: Any) -> None:
    source = LogSource(None, data=json.dumps(value).encode())
    assert IMPORTER.sniff(source) >= 0.9
    (log,) = read(value)
    assert log.id == "langfuse:t1"
    assert [event.content for event in completions(log)] == ["hello 1", "hello 2"]


def test_observations_of_several_traces_in_json_lines_are_sorted_out() -> None:
    lines = [observation(1), observation(2, traceId="t2"), observation(3)]
    source = LogSource(None, data="\n".join(map(json.dumps, lines)).encode())
    logs = list(IMPORTER.read([source], SkipLog()))
    assert [(log.id, log.calls) for log in logs] == [("langfuse:t1", 2), ("langfuse:t2", 1)]


def test_fields_encoded_as_json_within_json_are_decoded() -> None:
    inner = observation(
        input=json.dumps([{"role": "user", "content": "hi"}]),
        output=json.dumps(json.dumps("hello")),
        metadata=json.dumps({"attributes": {"gen_ai.agent.name": "greeter"}}),
        usageDetails=json.dumps({"input": 3, "output": 2}),
    )
    (log,) = read(export(inner))
    assert [(event.kind, event.content) for event in log.events] == [(Kind.USER, "hi"), (Kind.ASSISTANT, "hello")]
    assert log.events[0].agent == "greeter"
    assert log.usage == Usage(input_uncached=3, output=2)


def test_a_trace_without_a_generation_is_counted_with_its_reason() -> None:
    skipped = SkipLog()
    assert read(export(observation(type="SPAN")), skipped) == []
    assert [(skip.line, skip.reason) for skip in skipped.messages] == [
        (1, "trace t1 holds no model call: none of its 1 observations generates")
    ]


def test_embeddings_are_no_calls() -> None:
    assert read(export(observation(1), observation(2, type="EMBEDDING")))[0].calls == 1


def test_an_error_at_the_root_is_the_outcome() -> None:
    root = observation(1, type="SPAN", level="ERROR", statusMessage="out of memory")
    log = read(export(root, observation(2, parentObservationId="o1")))[0]
    assert log.outcome == {"error": "out of memory"}


def test_records_of_another_kind_are_counted_and_the_rest_is_read() -> None:
    skipped = SkipLog()
    logs = read([{"a": 1}, observation(1), 7], skipped)
    assert [log.calls for log in logs] == [1]
    assert skipped.lines == 2


def test_a_trace_that_fills_the_head_is_recognised() -> None:
    big = export(observation(), input="x" * 400_000)
    assert IMPORTER.sniff(LogSource(None, data=json.dumps(big).encode())) > 0


@pytest.mark.parametrize("path", sorted(LOGS.rglob("*.*")), ids=lambda path: str(path.relative_to(LOGS)))
def test_only_its_own_format_is_recognised(path: Path) -> None:
    assert (IMPORTER.sniff(LogSource(path)) > 0) == (path.parent.name == "langfuse")
