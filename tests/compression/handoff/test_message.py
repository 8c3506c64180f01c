from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.compression.diff import Context, Form, Reason, Section
from apportion.compression.handoff import NOTHING, Capabilities, Handoff, Party, read_handoff, write_handoff
from apportion.errors import InputError

SCHEMA = json.loads((Path(__file__).parents[3] / "docs" / "handoff.schema.json").read_text(encoding="utf-8"))
ROLES = {"user", "assistant", "system"}

RESULT = b'{"agent":"lead","tests":["a","b"],"share":0.5}'
BASE = Context(
    (
        Section("previous_result", content=RESULT),
        Section("system", content=b"You are careful.\n" * 20),
        Section("tool_result", "read", "h\u00e9llo\n".encode() * 50),
        Section("assistant", content=b"\xff no text"),
    )
)
TARGET = Context((*BASE.sections, Section("user", content=b"Go on.\n")))
KNOWS = Capabilities(deltas=True, holds=(BASE.digest,))
HELD = {BASE.digest: BASE}


def handoff(context: Context = TARGET, **more: Any) -> Handoff:
    source, target = Party("lead-1", "lead", {"execution_time": 12.5}), Party("test-2", "tester")
    return Handoff(source, target, "Test it.", context, datetime(2026, 11, 30, tzinfo=UTC), **more)


def passed_on(message: dict[str, Any]) -> dict[str, Any]:
    """What a reader passes on that knows Mycelium's members only, as its data classes do."""
    known = {"task_description", "previous_results", "conversation_history", "files", "user_preferences"}
    tags = {"priority", "timeout", "retry_count", "tags", "correlation_id"}
    return {
        "version": message["version"],
        "source": {key: message["source"][key] for key in ("agent_id", "agent_type")},
        "target": {key: message["target"][key] for key in ("agent_id", "agent_type")},
        "context": {key: value for key, value in message["context"].items() if key in known},
        "metadata": {key: value for key, value in message["metadata"].items() if key in tags},
        "timestamp": message["timestamp"].replace("+00:00", "") + "+00:00Z",
    }


@pytest.mark.parametrize("receiver", [NOTHING, KNOWS])
def test_a_message_keeps_to_the_published_schema_and_to_what_mycelium_requires(receiver: Capabilities) -> None:
    message = json.loads(json.dumps(write_handoff(handoff(), receiver=receiver, bases=HELD)))
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.Draft7Validator(SCHEMA).validate(message)
    assert set(SCHEMA["required"]) == {"version", "source", "target", "context", "timestamp"}
    assert set(message) >= set(SCHEMA["required"])
    assert all(each["role"] in ROLES for each in message["context"]["conversation_history"])
    assert all(isinstance(each["content"], str) for each in message["context"]["conversation_history"])
    assert all(isinstance(each, dict) for each in message["context"]["previous_results"])


def test_who_says_nothing_gets_the_whole_context_in_members_that_all_know() -> None:
    message = write_handoff(handoff(), bases=HELD)
    assert "delta" not in message["context"]
    assert message["context"]["previous_results"] == [json.loads(RESULT)]
    assert [each["role"] for each in message["context"]["conversation_history"]] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    received = read_handoff(json.loads(json.dumps(message)))
    assert (received.context, received.exact, received.form) == (TARGET, True, Form.FULL)
    assert received.degraded == ()


def test_who_understands_deltas_and_holds_a_base_gets_a_delta() -> None:
    message = json.loads(json.dumps(write_handoff(handoff(), receiver=KNOWS, bases=HELD)))
    assert message["context"]["conversation_history"] == []
    assert message["context"]["delta"]["data"] == "=1-4\n+user 7\nGo on.\n\n"
    received = read_handoff(message, held=HELD)
    assert (received.context, received.exact, received.form) == (TARGET, True, Form.DELTA)
    assert received.handoff.task == "Test it."


@pytest.mark.parametrize(
    ("receiver", "bases", "reason"),
    [
        (NOTHING, HELD, Reason.NOT_UNDERSTOOD),
        (Capabilities(holds=(BASE.digest,)), HELD, Reason.NOT_UNDERSTOOD),
        (Capabilities(deltas=True), HELD, Reason.NO_BASE),
        (KNOWS, {}, Reason.BASE_EVICTED),
        (KNOWS, {BASE.digest: TARGET}, Reason.BASE_EVICTED),
    ],
)
def test_where_a_delta_cannot_be_used_the_reason_is_told(
    receiver: Capabilities, bases: dict[str, Context], reason: Reason
) -> None:
    assert receiver.shared(bases) == ([], reason)
    assert "delta" not in write_handoff(handoff(), receiver=receiver, bases=bases)["context"]


def test_a_whole_context_survives_a_reader_that_drops_what_it_does_not_know() -> None:
    received = read_handoff(passed_on(write_handoff(handoff())))
    assert (received.context, received.exact) == (TARGET, True)
    assert received.handoff.timestamp == datetime(2026, 11, 30, tzinfo=UTC)


def test_a_delta_that_such_a_reader_dropped_is_missed() -> None:
    received = read_handoff(passed_on(write_handoff(handoff(), receiver=KNOWS, bases=HELD)), held=HELD)
    assert (received.context, received.reason) == (None, Reason.DELTA_DROPPED)
    assert received.degraded == ("the context is not here: delta_dropped",)


@pytest.mark.parametrize(
    ("damage", "held", "reason"),
    [
        ({}, {}, Reason.NO_BASE),
        ({"v": 9}, HELD, Reason.UNKNOWN_VERSION),
        ({"data": "=1-99\n"}, HELD, Reason.MALFORMED),
        ({"target": "0" * 32}, HELD, Reason.MALFORMED),
        ({}, {BASE.digest: TARGET}, Reason.WRONG_BASE),
    ],
)
def test_a_delta_that_cannot_be_used_asks_for_the_whole(
    damage: dict[str, Any], held: dict[str, Context], reason: Reason
) -> None:
    message = write_handoff(handoff(), receiver=KNOWS, bases=HELD)
    message["context"]["delta"] |= damage
    received = read_handoff(message, held=held)
    assert (received.context, received.reason, received.exact) == (None, reason, False)
    assert received.handoff.task == "Test it."


def test_a_conversation_that_somebody_changed_is_noticed() -> None:
    message = write_handoff(handoff())
    message["context"]["conversation_history"][0]["content"] += "And do as I say."
    received = read_handoff(message)
    assert (received.context, received.reason) == (None, Reason.HASH_MISMATCH)


def test_a_message_of_others_is_read_and_not_called_exact() -> None:
    message = {
        "version": "1.1",
        "source": {"agent_id": "a", "agent_type": "b", "more": 1},
        "target": {"agent_id": "c", "agent_type": "d", "requirements": {"tools": []}},
        "context": {
            "task_description": "Do it.",
            "previous_results": [{"x": 1}],
            "conversation_history": [{"role": "user", "content": "Hello", "timestamp": "now"}, {"role": "odd role"}],
            "files": [{"path": "a.py"}],
        },
        "state": {"variables": {"n": 1}},
        "timestamp": "yesterday",
        "unknown": [],
    }
    jsonschema.Draft7Validator(SCHEMA["properties"]["source"] | {"definitions": SCHEMA["definitions"]}).validate(
        message["source"]
    )
    received = read_handoff(message)
    assert received.context is not None
    assert [(each.kind, each.content) for each in received.context.sections] == [
        ("previous_result", b'{"x":1}'),
        ("user", b"Hello"),
        ("user", b""),
    ]
    assert not received.exact
    assert received.handoff.more == {"files": [{"path": "a.py"}]}
    assert received.handoff.target.more == {"requirements": {"tools": []}}
    assert len(received.degraded) == 3


@pytest.mark.parametrize(
    "damage",
    [
        {"version": 1}, {"version": "one"}, {"version": "1"}, {"source": None}, {"source": {"agent_id": "a"}},
        {"target": []}, {"target": {"agent_id": 1, "agent_type": "b"}}, {"context": None}, {"timestamp": None},
    ],
)  # fmt: skip
def test_what_is_no_handoff_message_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="handoff") as caught:
        read_handoff(write_handoff(handoff()) | damage)
    assert caught.value.hint


@pytest.mark.parametrize("value", [None, [], "x", 7, {"version": "1.0"}])
def test_other_json_is_refused(value: Any) -> None:
    with pytest.raises(InputError):
        read_handoff(value)


def test_an_agent_says_what_it_understands_by_tags_of_its_message() -> None:
    said = Capabilities(deltas=True, frames=True, holds=(BASE.digest, TARGET.digest))
    message = passed_on(write_handoff(handoff(capabilities=said, metadata={"tags": ["urgent", 7], "priority": "high"})))
    assert Capabilities.of(message) == said
    assert message["metadata"]["tags"][:2] == ["urgent", 7]
    assert Capabilities.of({"metadata": {"tags": "odd"}}) == NOTHING
    assert Capabilities.of_tags(["apportion.holds/nonsense", "apportion.accepts/delta-2", None]) == NOTHING


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            Section,
            st.sampled_from(["user", "system", "tool_result", "previous_result", "state"]),
            st.sampled_from(["", "a b", "\ud800"]),
            st.binary(max_size=20) | st.sampled_from([RESULT, b'{"a": 1}', b'{"a":NaN}', b"[1]"]),
        ),
        max_size=6,
    )
)
def test_any_context_comes_back_from_its_whole_message(sections: list[Section]) -> None:
    context = Context(tuple(sections))
    received = read_handoff(json.loads(json.dumps(write_handoff(handoff(context)))))
    assert (received.context, received.exact) == (context, True)
