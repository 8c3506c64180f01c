"""Pieces of messages, links between calls and results, usage of the OpenAI chat API."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.records import Kind, Usage
from apportion.telemetry.events import LogBuilder
from apportion.telemetry.importers._completions import (
    Links,
    Piece,
    add_completion,
    chat_usage,
    message_pieces,
    tool_definitions,
    uncached,
)


@given(st.lists(st.one_of(st.none(), st.sampled_from(["a", "b", "call-0", "a#2"]))))
def test_links_of_calls_are_unique_and_results_find_them_in_order(identifiers: list[str | None]) -> None:
    links = Links()
    calls = [links.call(identifier) for identifier in identifiers]
    assert len({(link, given) for link, given in zip(calls, identifiers, strict=True)}) == len(calls)
    assert [links.result(identifier)[0] for identifier in identifiers if identifier] == [
        link for link, identifier in zip(calls, identifiers, strict=True) if identifier
    ]


def test_invented_links_carry_the_prefix() -> None:
    links = Links("run:")
    assert links.call(None, "f") == "run:call-0"
    assert links.result(None, "f") == ("run:call-0", "f")


def test_a_result_without_call_keeps_its_identifier() -> None:
    assert Links().result("lost", "f") == ("lost", "f")
    assert Links().result() == (None, None)


def test_a_result_without_identifier_answers_the_oldest_open_call_of_its_tool() -> None:
    links = Links()
    links.call("1", "read")
    links.call("2", "write")
    assert links.result(None, "write") == ("2", "write")
    assert links.result() == ("1", "read")


def test_a_message_of_the_anthropic_api_is_taken_apart() -> None:
    content = [
        {"type": "thinking", "thinking": "why"},
        {"type": "text", "text": "I read."},
        {"type": "text", "text": "Twice."},
        {"type": "tool_use", "id": "t1", "name": "read", "input": {"path": "a"}},
        {"type": "redacted_thinking", "data": "x"},
    ]
    links = Links()
    assert message_pieces({"role": "assistant", "content": content}, links) == [
        Piece(Kind.THINKING, "why"),
        Piece(Kind.ASSISTANT, "I read.\nTwice."),
        Piece(Kind.TOOL_CALL, '{"path":"a"}', "read", "t1"),
        Piece(Kind.THINKING, ""),
    ]
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "done"}]}
    assert message_pieces({"role": "user", "content": [result, "and now?"]}, links) == [
        Piece(Kind.TOOL_RESULT, "done", "read", "t1"),
        Piece(Kind.USER, "and now?"),
    ]


@pytest.mark.parametrize(
    ("message", "pieces"),
    [
        ({"role": "assistant"}, [Piece(Kind.ASSISTANT, "")]),
        ({"role": "assistant", "content": "a", "reasoning_content": "r"},
         [Piece(Kind.THINKING, "r"), Piece(Kind.ASSISTANT, "a")]),
        ({"role": "assistant", "thinking_blocks": [{"type": "thinking", "thinking": "r"}, 5]},
         [Piece(Kind.THINKING, "r")]),
        ({"role": "assistant", "content": None, "refusal": "no"}, [Piece(Kind.ASSISTANT, "no")]),
        ({"role": "developer", "content": "be brief"}, [Piece(Kind.SYSTEM, "be brief")]),
        ({"role": ["odd"], "content": {"a": 1}}, [Piece(Kind.USER, '{"a":1}')]),
        ({"role": "assistant", "tool_calls": [{"custom": {"name": "patch", "input": "*** x"}, "id": "c"}, 7]},
         [Piece(Kind.TOOL_CALL, "*** x", "patch", "c")]),
    ],
)  # fmt: skip
def test_messages_of_the_openai_api_are_taken_apart(message: dict[str, Any], pieces: list[Piece]) -> None:
    assert message_pieces(message, Links()) == pieces


def test_tool_schemas_are_one_piece_where_there_are_any() -> None:
    assert tool_definitions([{"name": "f"}], None, [], "odd") == [Piece(Kind.TOOL_DEFINITIONS, '[{"name":"f"}]')]


def test_usage_cost_and_duration_stand_on_the_first_event_only() -> None:
    builder = LogBuilder("w", source="s", framework="f")
    pieces = [Piece(Kind.THINKING, "t"), Piece(Kind.ASSISTANT, "a")]
    usage = Usage(output=2)
    call = add_completion(
        builder, pieces, agent="main", agent_run="main", usage=usage, cost_usd=0.5, duration_ms=9.0, model="m", stage=3
    )
    log = builder.build()
    assert log is not None
    assert [(event.usage, event.cost_usd, event.duration_ms) for event in log.events] == [
        (usage, 0.5, 9.0),
        (None, None, None),
    ]
    assert {(event.call, event.model, event.stage) for event in log.events} == {(call, "m", 3)}


def test_a_completion_that_said_nothing_is_still_a_call() -> None:
    builder = LogBuilder("w", source="s", framework="f")
    add_completion(builder, [], agent="main", agent_run="main")
    log = builder.build()
    assert log is not None
    assert log.calls == 1


@pytest.mark.parametrize(
    ("given_usage", "expected"),
    [
        (None, None),
        ({}, None),
        ({"prompt_tokens": "many"}, None),
        ({"prompt_tokens": 10, "completion_tokens": 2}, Usage(input_uncached=10, output=2)),
        ({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4}},
         Usage(input_uncached=6, cache_read=4)),
        ({"prompt_tokens": 10, "prompt_cache_hit_tokens": 4}, Usage(input_uncached=6, cache_read=4)),
        ({"prompt_tokens": 10, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 5},
         Usage(input_uncached=1, cache_read=4, cache_write_5m=5, estimated=frozenset({"cache_write_5m"}))),
        ({"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 7}},
         Usage(output=9, reasoning=7)),
        ({"prompt_tokens": 10**40, "completion_tokens": 1}, Usage(output=1)),
    ],
)  # fmt: skip
def test_chat_usage_is_read_into_disjoint_columns(given_usage: Any, expected: Usage | None) -> None:
    assert chat_usage(given_usage) == expected


def test_a_prompt_smaller_than_its_cached_part_cannot_include_it() -> None:
    assert uncached(10, 4, None) == 6
    assert uncached(10, 400) == 10
    assert uncached(None, 4) is None
