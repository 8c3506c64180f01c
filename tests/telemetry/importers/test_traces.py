"""From a tree of spans to agent runs, prompts and hand-offs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from apportion.records import Kind, Usage
from apportion.telemetry.events import LogBuilder
from apportion.telemetry.importers._attributes import Role, agent_name, plain_name
from apportion.telemetry.importers._completions import Piece
from apportion.telemetry.importers._spans import Span
from apportion.telemetry.importers._traces import add_spans

if TYPE_CHECKING:
    from apportion.telemetry.events import WorkflowLog

START = datetime(2026, 1, 1, tzinfo=UTC)
SYSTEM = Piece(Kind.SYSTEM, "Be brief.")


def user(text: str) -> Piece:
    return Piece(Kind.USER, text)


def said(text: str) -> Piece:
    return Piece(Kind.ASSISTANT, text)


def call(name: str, link: str | None = None, arguments: str = "{}") -> Piece:
    return Piece(Kind.TOOL_CALL, arguments, name, link)


def result(text: str, name: str | None = None, link: str | None = None) -> Piece:
    return Piece(Kind.TOOL_RESULT, text, name, link)


def span(number: int, role: Role, parent: int | None = None, **fields: Any) -> Span:
    return Span(
        id=str(number),
        parent=None if parent is None else str(parent),
        role=role,
        started_at=START + timedelta(seconds=number),
        **{"name": f"span {number}", "duration_ms": 500.0, **fields},
    )


def model(number: int, parent: int | None = None, *pieces: Piece, answer: Piece | None = None, **fields: Any) -> Span:
    return span(number, Role.LLM, parent, prompt=pieces, answer=[answer or said(f"answer {number}")], **fields)


def agent(number: int, name: str, parent: int | None = None) -> Span:
    return span(number, Role.AGENT, parent, agent=name, starts_run=True)


def build(*spans: Span) -> WorkflowLog:
    builder = LogBuilder("w", source="s", framework="f")
    assert add_spans(builder, spans) == len({event.call for event in builder._events if event.call is not None})
    log = builder.build()
    assert log is not None
    return log


def runs(log: WorkflowLog) -> list[str]:
    return [event.agent_run for event in log.events if event.call is not None]


def kinds_of_prompt(log: WorkflowLog, number: int) -> list[Kind] | None:
    event = next(event for event in log.events if event.call == number)
    kinds = {one.step: one.kind for one in log.events}
    return None if event.prompt_steps is None else [kinds[step] for step in event.prompt_steps]


def test_agents_side_by_side_with_different_tasks_have_contexts_of_their_own() -> None:
    log = build(
        agent(1, "explorer"),
        agent(2, "explorer"),
        model(3, 1, SYSTEM, user("look at a")),
        model(4, 2, SYSTEM, user("look at b")),
        model(5, 1, SYSTEM, user("look at a"), said("answer 3"), user("go on")),
    )
    assert runs(log) == ["explorer", "explorer#2", "explorer"]


def test_an_agent_invoked_again_with_its_history_continues_its_context() -> None:
    log = build(
        agent(1, "writer"),
        model(2, 1, SYSTEM, user("write")),
        agent(3, "writer"),
        model(4, 3, SYSTEM, user("write"), said("answer 2"), user("shorten")),
    )
    assert runs(log) == ["writer", "writer"]
    assert [event.stage for event in log.events if event.call is not None] == [1, 2]


def test_without_content_each_invocation_is_a_context_unless_a_thread_joins_them() -> None:
    apart = build(agent(1, "a"), model(2, 1), agent(3, "a"), model(4, 3))
    joined = build(agent(1, "a"), model(2, 1, thread="t"), agent(3, "a"), model(4, 3, thread="t"))
    assert (runs(apart), runs(joined)) == (["a", "a#2"], ["a", "a"])


def test_a_chain_gives_its_name_to_calls_that_no_agent_claims() -> None:
    log = build(
        span(1, Role.CHAIN, name="summarise"),
        span(2, Role.CHAIN, 1, name="RunnableSequence"),
        model(3, 2, user("a")),
        model(4, None, user("b")),
    )
    assert [event.agent for event in log.events if event.call is not None] == ["summarise", "main"]


def test_calls_of_one_chain_about_different_things_do_not_share_a_context() -> None:
    log = build(*(model(number, 1, user(f"text {number}")) for number in (2, 3)), span(1, Role.CHAIN, name="summarise"))
    assert runs(log) == ["summarise", "summarise#2"]


def test_a_transfer_tool_names_the_agent_it_hands_over_to() -> None:
    log = build(
        agent(1, "Triage Agent"),
        model(2, 1, user("refund"), answer=call("transfer_to_billing_agent", "c1")),
        agent(3, "Billing Agent"),
        model(4, 3, user("refund"), call("transfer_to_billing_agent", "c1"), result("ok", link="c1")),
    )
    assert [(event.kind, event.name) for event in log.events if event.link == "c1"][:2] == [
        (Kind.HANDOFF, "Billing Agent"),
        (Kind.HANDOFF, "Billing Agent"),
    ]
    assert runs(log) == ["Triage Agent", "Billing Agent"]


def test_a_tool_that_asks_a_model_but_starts_no_agent_is_a_tool() -> None:
    log = build(
        agent(1, "a"),
        model(2, 1, user("x"), answer=call("digest", "c1")),
        span(3, Role.TOOL, 1, tool="digest", link="c1"),
        model(4, 3, user("long text")),
        model(5, 1, user("x"), call("digest", "c1"), result("short", link="c1")),
    )
    assert {event.kind for event in log.events if event.link == "c1"} == {Kind.TOOL_CALL, Kind.TOOL_RESULT}


def test_a_tool_that_starts_different_agents_hands_over_by_call() -> None:
    log = build(
        agent(1, "lead"),
        model(2, 1, user("x"), answer=call("task", "c1")),
        span(3, Role.TOOL, 1, tool="task", link="c1"),
        agent(4, "coder", 3),
        model(5, 4, user("code")),
        model(6, 1, user("x"), call("task", "c1"), result("done", link="c1"), answer=call("task", "c2")),
        span(7, Role.TOOL, 1, tool="task", link="c2"),
        agent(8, "tester", 7),
        model(9, 8, user("test")),
    )
    assert [(event.name, event.link) for event in log.events if event.kind is Kind.HANDOFF] == [
        ("coder", "c1"),
        ("tester", "c2"),
    ]
    assert {event.agent_run: event.parent_agent for event in log.events} == {
        "lead": None,
        "coder": "lead",
        "tester": "lead",
    }


def test_a_call_of_a_tool_that_starts_no_agent_this_time_is_no_hand_off() -> None:
    log = build(
        agent(1, "lead"),
        model(2, 1, user("x"), answer=call("task", "c1")),
        span(3, Role.TOOL, 1, tool="task", link="c1"),
        agent(4, "coder", 3),
        model(5, 4, user("code")),
        model(6, 1, user("x"), call("task", "c1"), result("done", link="c1"), answer=call("task", "c2")),
        span(7, Role.TOOL, 1, tool="task", link="c2"),
    )
    assert [event.link for event in log.events if event.kind is Kind.HANDOFF] == ["c1"]


def test_a_span_around_another_model_span_is_the_same_call() -> None:
    usage = Usage(input_uncached=7, output=2)
    log = build(
        model(1, None, SYSTEM, user("x"), answer=said("full"), usage=Usage(input_uncached=70), cost_usd=9.0),
        model(2, 1, usage=usage, cost_usd=0.5, model="gpt-4o", answer=said("None")),
    )
    (event,) = (event for event in log.events if event.call is not None)
    assert (event.usage, event.cost_usd, event.model, event.content) == (usage, 0.5, "gpt-4o", "full")


def test_a_span_around_several_model_spans_is_no_call() -> None:
    log = build(model(1, None, SYSTEM), model(2, 1, user("a")), model(3, 1, user("b")))
    assert log.calls == 2


def test_edited_history_is_a_whole_prompt_of_what_is_left() -> None:
    log = build(
        agent(1, "a"),
        model(2, 1, SYSTEM, user("one"), said("x"), user("two")),
        model(3, 1, SYSTEM, user("two"), said("answer 2"), user("three")),
    )
    assert kinds_of_prompt(log, 1) == [Kind.SYSTEM, Kind.USER, Kind.ASSISTANT, Kind.USER]
    assert sum(event.content == "two" for event in log.events) == 1


def test_a_request_that_begins_with_a_result_continues_what_the_provider_keeps() -> None:
    log = build(
        agent(1, "a"),
        model(2, 1, SYSTEM, user("x"), answer=call("f", "c1")),
        model(3, 1, SYSTEM, result("r", link="c1")),
    )
    assert kinds_of_prompt(log, 1) is None
    assert [event.kind for event in log.events] == [
        Kind.SYSTEM,
        Kind.USER,
        Kind.TOOL_CALL,
        Kind.TOOL_RESULT,
        Kind.ASSISTANT,
    ]


def test_what_is_new_in_a_kept_conversation_is_added_even_if_it_was_said_before() -> None:
    log = build(
        agent(1, "a"),
        model(2, 1, user("yes"), answer=said("sure?")),
        model(3, 1, user("yes"), keeps_state=True),
    )
    assert [event.content for event in log.events if event.kind is Kind.USER] == ["yes", "yes"]
    assert kinds_of_prompt(log, 1) is None


def test_a_conversation_that_begins_with_a_greeting_of_the_agent_is_still_whole() -> None:
    log = build(
        agent(1, "a"),
        model(2, 1, said("Hello!"), user("x")),
        model(3, 1, said("Hello!"), user("x"), said("answer 2"), user("y")),
    )
    assert kinds_of_prompt(log, 1) == [Kind.ASSISTANT, Kind.USER, Kind.ASSISTANT, Kind.USER]


def test_calls_without_identifiers_are_tied_to_their_results_by_number() -> None:
    first, second = call("f", None, '{"n":1}'), call("f", None, '{"n":2}')
    log = build(
        agent(1, "a"),
        model(2, 1, user("x"), answer=first),
        model(3, 1, user("x"), first, result("one", "f"), answer=second),
        model(4, 1, user("x"), first, result("one", "f"), second, result("two", "f")),
    )
    assert [(event.content, event.link) for event in log.events if event.link] == [
        ('{"n":1}', "a:f:0"),
        ("one", "a:f:0"),
        ('{"n":2}', "a:f:1"),
        ("two", "a:f:1"),
    ]


def test_a_trace_without_calls_adds_nothing() -> None:
    builder = LogBuilder("w", source="s", framework="f")
    assert add_spans(builder, [agent(1, "a"), span(2, Role.TOOL, 1, tool="t")]) == 0
    assert len(builder) == 0


def test_many_calls_with_their_whole_history_are_read_as_one_history() -> None:
    history: list[Piece] = [SYSTEM]
    spans = [agent(0, "a")]
    for number in range(1, 301):
        history.append(user(f"turn {number}"))
        spans.append(model(number, 0, *history))
        history.append(said(f"answer {number}"))
    log = build(*spans)
    assert len(log.events) == 601
    assert len(kinds_of_prompt(log, 299) or []) == 600


@pytest.mark.parametrize(
    ("span_name", "agent_of_it"),
    [
        ("invoke_agent planner", "planner"),
        ("agent_run [hello_agent]", "hello_agent"),
        ("joke_agent run", "joke_agent"),
        ("planner", "planner"),
    ],
)
def test_instrumentations_put_words_around_the_name(span_name: str, agent_of_it: str) -> None:
    assert plain_name(span_name) == agent_of_it


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({"gen_ai.agent.name": "a", "langgraph_node": "n"}, "a"),
        ({"langgraph_node": "n"}, "n"),
        ({"langgraph_node": "agent", "langgraph_checkpoint_ns": "researcher:1|agent:2"}, "researcher"),
        ({"metadata": '{"langgraph_node": "n"}'}, "n"),
        ({"traceloop.association.properties.langgraph_node": "n"}, "n"),
        ({"graph.node.id": "g"}, "g"),
        ({}, None),
    ],
)
def test_the_agent_of_a_span_is_found_under_all_its_names(attributes: dict[str, Any], name: str | None) -> None:
    assert agent_name(attributes, Role.AGENT) == name
